"""How a text is prepared before its tokens: SigLIP's sentencepiece and lower case, BLIP's cleaned captions."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
import transformers
from support.models import tiny_dense
from support.models.tiny_checkpoints import build_d2s_config, draw_d2s_weights, write_checkpoint

from stair_es.model import registry
from stair_es.model.adapters.dense import clean_caption
from stair_es.model.base import Encoder, ModelSpec
from stair_es.optional import format_install_command

TEXTS = ["a red dog", "A Red dog!", "cat"]
_PIECES = 17
"""As many as the tiny networks know."""


def _load(folder: Path) -> Encoder:
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert encoder.has_dense
    return encoder


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    """A SigLIP with the tokenizer of SigLIP 1: a `spiece.model`, trained here."""
    folder = tiny_dense.write_siglip(tmp_path / "siglip")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red dog", "a cat", "red cat"] * 20),
        model_writer=model,
        vocab_size=_PIECES,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "spiece.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "SiglipTokenizer", "model_max_length": 7}')
    return folder


def test_siglip_with_sentencepiece_is_as_transformers_has_it(siglip: Path) -> None:
    words: Any = transformers.SiglipTokenizer
    ids = words.from_pretrained(siglip)(TEXTS, padding="max_length", truncation=True, max_length=7, return_tensors="pt")
    assert ids["input_ids"].max() < _PIECES
    kind: Any = transformers.SiglipModel
    with torch.inference_mode():
        rows = kind.from_pretrained(siglip).eval().get_text_features(input_ids=ids["input_ids"]).pooler_output
    assert _load(siglip).encode_texts_dense(TEXTS) == pytest.approx((rows / rows.norm(dim=1, keepdim=True)).numpy(), abs=2e-5)


def test_siglip_needs_sentencepiece(siglip: Path) -> None:
    code = (
        "import sys\nsys.modules['sentencepiece'] = None\n"
        "from stair_es.errors import MissingExtra\nfrom stair_es.model import registry\n"
        "from stair_es.model.base import Encoder, ModelSpec\n"
        f"try:\n    registry.load_encoder(ModelSpec(name={str(siglip)!r})).encode_texts_dense(['dog'])\n"
        "except MissingExtra as error:\n    print(error.message, error.remedy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'sentencepiece'" in done.stdout
    assert format_install_command("models") in done.stdout
    assert "again" not in done.stdout


def test_siglip_lowercases_for_any_tokenizer(tmp_path: Path) -> None:
    folder = tiny_dense.write_siglip(tmp_path / "siglip2")
    (folder / "tokenizer.json").write_text(
        (folder / "tokenizer.json").read_text().replace('"lowercase":true', '"lowercase":false')
    )
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    kind: Any = transformers.AutoTokenizer
    words = kind.from_pretrained(folder)
    assert words("A Red DOG")["input_ids"] != words("a red dog")["input_ids"]
    upper, lower = _load(folder).encode_texts_dense(["A Red DOG", "a red dog"])
    assert upper == pytest.approx(lower, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A photo of a dog.", "a photo of a dog"),
        ('"Two" dogs (one #1): run; ~fast*!\n', "two dogs one 1 run fast"),
        ("it's 5-fold, isn't it?", "it's 5-fold, isn't it?"),
        ("a.b", "a b"),
        (" tabs\tand\n\nlines ", "tabs and lines"),
        ("...", ""),
        ("w " * 60, " ".join(["w"] * 50)),
    ],
)
def test_captions_are_cleaned_as_blip_did(text: str, clean: str) -> None:
    assert clean_caption(text) == clean


def test_blip_and_d2s_read_clean_captions(tmp_path: Path) -> None:
    tiny_dense.write_blip(tmp_path / "blip")
    head = write_checkpoint(tmp_path / "d2s", build_d2s_config("../blip"), draw_d2s_weights())
    for folder in (tmp_path / "blip", head):
        found = _load(folder).encode_texts_dense(["a red dog.", "(A red dog!)\n", "a red dog"])
        assert found[:2] == pytest.approx(found[[2, 2]], abs=1e-6)
    encoder = registry.load_encoder(ModelSpec(name=str(head)))
    dotted, plain = encoder.encode_texts(["a red dog.", "a red dog"])
    assert dotted.to_dict() == pytest.approx(plain.to_dict(), abs=1e-5)
    assert not len(encoder.encode_texts([" .!"])[0])  # nothing is left of it
