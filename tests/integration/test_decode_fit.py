"""Squares as CLIP, SigLIP and ALIGN make them, compared with torchvision and their checkpoints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.models import tiny_dense
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize  # type: ignore[import-untyped]

from stair_es.errors import DecodeError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import ImageSpec, Pixels

SIZES = [(64, 64), (100, 37), (37, 100), (225, 224), (31, 30), (16, 16), (301, 17)]
SPECS = {
    "crop": ImageSpec(size_px=16, fit="crop"),
    "stretch": ImageSpec(size_px=16, fit="stretch"),
    "stretch and cut": ImageSpec(size_px=16, fit="stretch", resized_px=20),
    "crop and cut": ImageSpec(size_px=16, fit="crop", resized_px=20),
    "bilinear": ImageSpec(size_px=16, fit="crop", resample="bilinear"),
    "nearest": ImageSpec(size_px=16, fit="stretch", resample="nearest"),
}


def png(size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def of_torchvision(data: bytes, spec: ImageSpec) -> Pixels:
    side = spec.resized_px or spec.size_px
    resize = Resize(side if spec.fit == "crop" else (side, side), interpolation=InterpolationMode(spec.resample))
    return np.asarray(Compose([resize, CenterCrop(spec.size_px)])(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", [*SPECS])
def test_squares_match_torchvision(form: str, size: tuple[int, int]) -> None:
    data, spec = png(size), SPECS[form]
    found = decode_image(data, spec, DecodeLimits(), thumbnail_px=8)
    assert (found.pixels_HWC == of_torchvision(data, spec)).all()
    assert found.box == (0, 0, 16, 16)


def test_an_image_that_is_too_long_is_rejected() -> None:
    with pytest.raises(DecodeError, match="too long"):
        decode_image(png((2000, 3)), SPECS["crop"], DecodeLimits())


@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (tiny_dense.write_clip, ImageSpec(size_px=16, fit="crop", resized_px=16)),
        (tiny_dense.write_siglip, ImageSpec(size_px=16, fit="stretch")),
        (tiny_dense.write_align, ImageSpec(size_px=32, fit="stretch", resized_px=40)),
        (tiny_dense.write_blip, ImageSpec(size_px=16, fit="stretch")),
    ],
)
def test_fit_is_read(tmp_path: Path, make: Callable[[Path], Path], spec: ImageSpec) -> None:
    folder = make(tmp_path / "model")
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.image_spec == spec
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.image_spec == spec
