"""Narrow precisions of the torch backend, on the CPU: the same words, nearly the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_precisions_see_the_same(precision: str) -> None:
    pytest.importorskip("torch")
    spec = registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec
    names = ("tabby-cat.jpg", "giant-panda.jpg", "wall-clock.jpg")
    pixels = np.stack([decode_image((PHOTOS / name).read_bytes(), spec, DecodeLimits()).pixels_HWC for name in names])
    exact = registry.load_encoder(ModelSpec(name="stair-mini", backend="torch", threads=1)).encode_images(pixels)
    narrow_spec = ModelSpec(name="stair-mini", backend="torch", threads=1, precision=precision)  # type: ignore[arg-type]
    narrow = registry.load_encoder(narrow_spec).encode_images(pixels)
    for one, other in zip(exact, narrow, strict=True):
        assert one.tokens[0] in other.top(3).tokens
        assert one.dot(other) / (one.dot(one) * other.dot(other)) ** 0.5 > 0.97
        assert one != other


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(name="stair-mini", backend="onnx", precision="bf16"), "onnx backend computes in fp32"),
        (ModelSpec(name="stair-mini", precision="int4"), "unknown precision"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_precision_is_rejected(spec: ModelSpec, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.load_encoder(spec).encode_images(np.zeros((1, 288, 288, 3), np.uint8))
