"""CLIP, SigLIP, ALIGN and BLIP on tiny checkpoints: dense vectors against the models' own forward passes, and cleaned texts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.errors import expect_error
from support.models import tiny_dense
from support.models.tiny_checkpoints import MaliciousPickle, build_d2s_config, draw_d2s_weights, write_checkpoint
from tokenizers import Tokenizer

from stair_es.model import registry
from stair_es.model.adapters.dense import clean_caption
from stair_es.model.base import Encoder, ModelSpec
from stair_es.optional import format_install_command
from stair_es.types import Floats

_PIECES = 17
"""As many as the tiny networks know."""
TEXTS = ["a red dog", "cat", "a dog [ a cat"]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_dense.write_clip,
    "siglip": tiny_dense.write_siglip,
    "align": tiny_dense.write_align,
    "blip": tiny_dense.write_blip,
}
CLIP_MEAN, CLIP_STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
IDS = {"a red dog": [3, 8, 10, 9, 4], "cat": [3, 13, 4], "a dog [ a cat": [3, 8, 9, 14, 8, 13, 4]}
"""Written out by hand: `[CLS]` is 3, `[SEP]` 4, `[PAD]` 0."""


@pytest.fixture(params=[*MAKERS])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / request.param)


def load_encoder(checkpoint: Path) -> Encoder:
    encoder = registry.load_encoder(ModelSpec(name=str(checkpoint)))
    assert encoder.has_dense
    return encoder


def draw_pixels(checkpoint: Path, count: int = 3) -> NDArray[np.uint8]:
    side = registry.resolve_model(ModelSpec(name=str(checkpoint))).card.image_spec.size_px
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), np.uint8)


def compute_vectors(checkpoint: Path, pixels_BHWC: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Unit vectors of the images and of `TEXTS`, from the model's forward pass over what we prepared by hand.

    SigLIP was trained without a mask: its text tower sees the padding.
    """
    form = checkpoint.name
    kind: Any = {
        "clip": transformers.CLIPModel,
        "siglip": transformers.SiglipModel,
        "align": transformers.AlignModel,
        "blip": transformers.BlipForImageTextRetrieval,
    }[form]
    model = kind.from_pretrained(checkpoint).eval()
    mean, std = (CLIP_MEAN, CLIP_STD) if form in ("clip", "blip") else (np.full(3, 0.5), np.full(3, 0.5))
    pixels = torch.from_numpy(((pixels_BHWC / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    length = {"clip": 7, "siglip": 7, "align": 64, "blip": 7}[form]
    ids = torch.tensor([IDS[text] + [0] * (length - len(IDS[text])) for text in TEXTS])
    mask = torch.tensor([[1] * len(IDS[text]) + [0] * (length - len(IDS[text])) for text in TEXTS])
    with torch.inference_mode():
        if form == "blip":
            image_rows = model.vision_proj(model.vision_model(pixels)[0][:, 0])
            text_rows = model.text_proj(model.text_encoder(input_ids=ids, attention_mask=mask)[0][:, 0])
        else:
            out = model(input_ids=ids, pixel_values=pixels, **({} if form == "siglip" else {"attention_mask": mask}))
            image_rows, text_rows = out.image_embeds, out.text_embeds
    images_BD, texts_BD = ((rows / rows.norm(dim=1, keepdim=True)).numpy() for rows in (image_rows, text_rows))
    return images_BD, texts_BD


def test_vectors_match_the_model(checkpoint: Path) -> None:
    encoder, pixels = load_encoder(checkpoint), draw_pixels(checkpoint)
    images_BD, texts_BD = compute_vectors(checkpoint, pixels)
    assert encoder.encode_images_dense(pixels) == pytest.approx(images_BD, abs=2e-5)
    assert encoder.encode_texts_dense(TEXTS) == pytest.approx(texts_BD, abs=2e-5)


def test_loading_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    load_encoder(checkpoint).encode_texts_dense(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_alone_and_in_a_batch_are_the_same(checkpoint: Path) -> None:
    encoder, pixels = load_encoder(checkpoint), draw_pixels(checkpoint, 10)
    vectors, texts = encoder.encode_images_dense(pixels), TEXTS * 4
    for vector, one in zip(vectors, pixels, strict=True):
        assert encoder.encode_images_dense(one[None])[0] == pytest.approx(vector, abs=1e-5)
    for vector, text in zip(encoder.encode_texts_dense(texts), texts, strict=True):
        assert encoder.encode_texts_dense([text])[0] == pytest.approx(vector, abs=1e-5)


def test_long_texts_are_cut(checkpoint: Path) -> None:
    assert np.isfinite(load_encoder(checkpoint).encode_texts_dense(["a red dog . " * 50])).all()


def test_a_dense_model_has_no_tokens(checkpoint: Path) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(checkpoint)))
    with expect_error("model-without-tokens") as caught:
        encoder.encode_texts(["dog"])
    assert "stair-es evaluate" in caught.value.remedy
    with expect_error("model-without-tokens"):
        encoder.encode_images(draw_pixels(checkpoint))
    with expect_error("model-without-tokens"):  # before an index is made
        registry.resolve_model(ModelSpec(name=str(checkpoint))).check_indexable()


def test_half_precision_is_near(checkpoint: Path) -> None:
    pixels = draw_pixels(checkpoint)
    half_precision = registry.load_encoder(ModelSpec(name=str(checkpoint), precision="bf16"))
    assert half_precision.has_dense
    assert (half_precision.encode_images_dense(pixels) * load_encoder(checkpoint).encode_images_dense(pixels)).sum(
        1
    ) == pytest.approx(1, abs=0.02)


def remove_tensor(checkpoint: Path) -> str:
    weights = load_file(checkpoint / "model.safetensors")
    name = str(next(iter(weights)))
    del weights[name]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return name


def change_shape(checkpoint: Path) -> str:
    weights = load_file(checkpoint / "model.safetensors")
    name = next(str(name) for name in weights if name.endswith("weight") and "embedding" in name)
    save_file({**weights, name: torch.zeros(3, 3)}, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return name


def pickle_code(checkpoint: Path) -> str:
    (checkpoint / "model.safetensors").unlink()
    torch.save({"logit_scale": MaliciousPickle()}, checkpoint / "pytorch_model.bin")
    return str(checkpoint)


def remove_tokenizer(checkpoint: Path) -> str:
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    return "tokenizer"


def remove_preprocessing(checkpoint: Path) -> str:
    (checkpoint / "preprocessor_config.json").unlink()
    return "preprocessor_config.json"


def add_token(checkpoint: Path) -> str:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    return "'zebra'"


def use_wide_images(checkpoint: Path) -> str:
    config = json.loads((checkpoint / "preprocessor_config.json").read_text())
    wide = {"height": 16, "width": 20}
    (checkpoint / "preprocessor_config.json").write_text(json.dumps({**config, "size": wide, "crop_size": wide}))
    return str(wide)


@pytest.mark.parametrize(
    "spoil", [remove_tensor, change_shape, pickle_code, remove_tokenizer, add_token, remove_preprocessing, use_wide_images]
)
def test_a_broken_checkpoint_is_reported(checkpoint: Path, spoil: Callable[[Path], str]) -> None:
    """Each `spoil` returns what the message has to name."""
    fact = spoil(checkpoint)
    with expect_error("checkpoint-error") as caught:
        load_encoder(checkpoint).encode_texts_dense(["dog"])
    assert fact in caught.value.message
    assert caught.value.remedy


def test_a_captioning_blip_has_an_unknown_format(tmp_path: Path) -> None:
    checkpoint = tiny_dense.write_blip(tmp_path / "blip")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "architectures": ["BlipForConditionalGeneration"]}))
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(checkpoint)))
    assert "BlipForConditionalGeneration" in caught.value.message


# --- how a text is prepared before its tokens ---


@pytest.fixture
def siglip_folder(tmp_path: Path) -> Path:
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


def test_siglip_with_sentencepiece_is_as_transformers_has_it(siglip_folder: Path) -> None:
    words: Any = transformers.SiglipTokenizer
    texts = ["a red dog", "A Red dog!", "cat"]
    ids = words.from_pretrained(siglip_folder)(texts, padding="max_length", truncation=True, max_length=7, return_tensors="pt")
    assert ids["input_ids"].max() < _PIECES
    kind: Any = transformers.SiglipModel
    with torch.inference_mode():
        rows = kind.from_pretrained(siglip_folder).eval().get_text_features(input_ids=ids["input_ids"]).pooler_output
    assert load_encoder(siglip_folder).encode_texts_dense(texts) == pytest.approx(
        (rows / rows.norm(dim=1, keepdim=True)).numpy(), abs=2e-5
    )


def test_siglip_needs_sentencepiece(siglip_folder: Path) -> None:
    code = (
        "import sys\nsys.modules['sentencepiece'] = None\n"
        "from stair_es.errors import MissingExtra\nfrom stair_es.model import registry\n"
        "from stair_es.model.base import Encoder, ModelSpec\n"
        f"try:\n    registry.load_encoder(ModelSpec(name={str(siglip_folder)!r})).encode_texts_dense(['dog'])\n"
        "except MissingExtra as error:\n    print(error.message, error.remedy)\n"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'sentencepiece'" in completed.stdout
    assert format_install_command("models") in completed.stdout
    assert "again" not in completed.stdout


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
    upper, lower = load_encoder(folder).encode_texts_dense(["A Red DOG", "a red dog"])
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
        vectors = load_encoder(folder).encode_texts_dense(["a red dog.", "(A red dog!)\n", "a red dog"])
        assert vectors[:2] == pytest.approx(vectors[[2, 2]], abs=1e-6)
    encoder = registry.load_encoder(ModelSpec(name=str(head)))
    dotted, plain = encoder.encode_texts(["a red dog.", "a red dog"])
    assert dotted.to_dict() == pytest.approx(plain.to_dict(), abs=1e-5)
    assert not len(encoder.encode_texts([" .!"])[0])  # nothing is left of it
