"""CLIP, SigLIP, ALIGN and BLIP on tiny checkpoints: dense vectors against the whole model's own forward pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.models import tiny_dense
from support.models.tiny_checkpoints import MaliciousPickle

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.types import Floats

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
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / request.param)


def _load(folder: Path) -> Encoder:
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert encoder.has_dense
    return encoder


def _pixels(folder: Path, count: int = 3) -> NDArray[np.uint8]:
    side = registry.resolve_model(ModelSpec(name=str(folder))).card.image_spec.size_px
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), np.uint8)


def _reference(folder: Path, pixels_BHWC: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Unit vectors of the images and of `TEXTS`, from the model's forward pass over what we prepared by hand.

    SigLIP was trained without a mask: its text tower sees the padding.
    """
    form = folder.name
    kind: Any = {
        "clip": transformers.CLIPModel,
        "siglip": transformers.SiglipModel,
        "align": transformers.AlignModel,
        "blip": transformers.BlipForImageTextRetrieval,
    }[form]
    model = kind.from_pretrained(folder).eval()
    mean, std = (CLIP_MEAN, CLIP_STD) if form in ("clip", "blip") else (np.full(3, 0.5), np.full(3, 0.5))
    pixels = torch.from_numpy(((pixels_BHWC / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    length = {"clip": 7, "siglip": 7, "align": 64, "blip": 7}[form]
    ids = torch.tensor([IDS[text] + [0] * (length - len(IDS[text])) for text in TEXTS])
    mask = torch.tensor([[1] * len(IDS[text]) + [0] * (length - len(IDS[text])) for text in TEXTS])
    with torch.inference_mode():
        if form == "blip":
            seen = model.vision_proj(model.vision_model(pixels)[0][:, 0])
            output = model.text_proj(model.text_encoder(input_ids=ids, attention_mask=mask)[0][:, 0])
        else:
            out = model(input_ids=ids, pixel_values=pixels, **({} if form == "siglip" else {"attention_mask": mask}))
            seen, output = out.image_embeds, out.text_embeds
    seen_BD, said_BD = ((rows / rows.norm(dim=1, keepdim=True)).numpy() for rows in (seen, output))
    return seen_BD, said_BD


def test_vectors_match_the_model(folder: Path) -> None:
    encoder, pixels = _load(folder), _pixels(folder)
    images_BD, texts_BD = _reference(folder, pixels)
    assert encoder.encode_images_dense(pixels) == pytest.approx(images_BD, abs=2e-5)
    assert encoder.encode_texts_dense(TEXTS) == pytest.approx(texts_BD, abs=2e-5)


def test_loading_prints_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    _load(folder).encode_texts_dense(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_alone_and_in_a_batch_are_the_same(folder: Path) -> None:
    encoder, pixels = _load(folder), _pixels(folder, 10)
    many, texts = encoder.encode_images_dense(pixels), TEXTS * 4
    for vector, one in zip(many, pixels, strict=True):
        assert encoder.encode_images_dense(one[None])[0] == pytest.approx(vector, abs=1e-5)
    for vector, text in zip(encoder.encode_texts_dense(texts), texts, strict=True):
        assert encoder.encode_texts_dense([text])[0] == pytest.approx(vector, abs=1e-5)


def test_long_texts_are_cut(folder: Path) -> None:
    assert np.isfinite(_load(folder).encode_texts_dense(["a red dog . " * 50])).all()


def test_a_dense_model_has_no_tokens(folder: Path) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    with pytest.raises(ModelError, match="dense vectors only") as wrong:
        encoder.encode_texts(["dog"])
    assert "stair-es evaluate" in wrong.value.remedy
    with pytest.raises(ModelError, match="dense vectors only"):
        encoder.encode_images(_pixels(folder))
    with pytest.raises(ModelError, match="dense vectors only"):  # before an index is made
        registry.resolve_model(ModelSpec(name=str(folder))).check_indexable()


def test_half_precision_is_near(folder: Path) -> None:
    pixels = _pixels(folder)
    rough = registry.load_encoder(ModelSpec(name=str(folder), precision="bf16"))
    assert rough.has_dense
    assert (rough.encode_images_dense(pixels) * _load(folder).encode_images_dense(pixels)).sum(1) == pytest.approx(1, abs=0.02)


def _without(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "model.safetensors", metadata={"format": "pt"})


def _other_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("weight") and "embedding" in name)
    save_file({**weights, name: torch.zeros(3, 3)}, folder / "model.safetensors", metadata={"format": "pt"})


def _code(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"logit_scale": MaliciousPickle()}, folder / "pytorch_model.bin")


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _no_preprocessing(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _not_square(folder: Path) -> None:
    config = json.loads((folder / "preprocessor_config.json").read_text())
    wide = {"height": 16, "width": 20}
    (folder / "preprocessor_config.json").write_text(json.dumps({**config, "size": wide, "crop_size": wide}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without, "lack "),
        (_other_shape, "wrong shape"),
        (_code, "the weights in .* can't be loaded"),
        (_no_tokenizer, "has no tokenizer"),
        (_no_preprocessing, r"no preprocessor_config\.json"),
        (_not_square, "doesn't describe a square image"),
    ],
)
def test_a_broken_checkpoint_is_reported(folder: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=said) as wrong:
        _load(folder).encode_texts_dense(["dog"])
    assert wrong.value.remedy


def test_a_captioning_blip_has_an_unknown_format(tmp_path: Path) -> None:
    folder = tiny_dense.write_blip(tmp_path / "blip")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BlipForConditionalGeneration"]}))
    with pytest.raises(ModelError, match="unknown format"):
        registry.resolve_model(ModelSpec(name=str(folder)))
