"""`Encoder.encode`: images as callers have them, and texts, with errors as values."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError, ModelError, StairError
from stair_es.model.base import Encoder, ModelCard
from stair_es.sources.base import ReadLimits
from stair_es.types import ImageSpec, Pixels, SparseVector


class LeftSideEncoder(Encoder):
    """Toy encoder that names the brightness of the left side of an image, and the length of a text."""

    card = ModelCard(name="left", model_id="left-1", image_spec=ImageSpec(size_px=8, fit="stretch"), description="")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        self.batches.append(len(pixels_BHWC))
        return [SparseVector.from_mapping({"left": 1.0 + float(p[:, 0].mean())}) for p in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_mapping({"chars": float(len(text))} if text else {}) for text in texts]


def build_picture(side_px: int = 16) -> Image.Image:
    """Return a picture that is white on its left half."""
    pixels = np.zeros((side_px, side_px, 3), np.uint8)
    pixels[:, : side_px // 2] = 255
    return Image.fromarray(pixels)


def save_picture(picture: Image.Image, **options: Any) -> bytes:  # noqa: ANN401  of Pillow
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def describe(result: SparseVector | StairError) -> object:
    return dict(result.to_dict()) if isinstance(result, SparseVector) else result.code


def test_each_input_has_its_vector_or_its_error_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "white left.png"
    path.write_bytes(save_picture(build_picture()))
    turned = Image.open(io.BytesIO(save_picture(build_picture(), exif=_turn_half())))
    images: list[Any] = [
        path,
        b"x",
        str(path),
        tmp_path / "gone.png",
        path.read_bytes(),
        build_picture().convert("CMYK"),
        turned,
        b"",
        "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(),
        "data:image/png;base64,x",
        path.as_uri(),
        "a\0b",
        "\ud800.png",
    ]
    results = LeftSideEncoder().encode(images=images, texts=["abc", "\ud800", ""])
    white: dict[str, float] = {"left": 256.0}
    assert list(map(describe, results)) == [
        *(white, "unknown-image-format", white, "file-unreadable", white, white, {"left": 1.0}, "file-empty"),
        *(white, "not-an-image-reference", white, "not-an-image-reference", "not-an-image-reference"),
        *({"chars": 3.0}, "text-not-unicode", {}),
    ]
    assert turned.getpixel((0, 0)) == (255, 255, 255), "the caller's image is as it was"
    assert str(tmp_path / "gone.png") in str(results[3])


def _turn_half() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 3
    return exif


def test_images_are_encoded_in_batches_of_readable_ones() -> None:
    encoder, picture = LeftSideEncoder(), build_picture()
    assert len(encoder.encode(images=[picture, b"x"] * 40)) == 80
    assert encoder.batches == [16, 16, 8]
    assert encoder.encode() == encoder.encode(images=[b"x"])[:0] == []
    assert encoder.batches == [16, 16, 8]


def test_the_first_error_is_raised_if_wanted() -> None:
    with expect_error("unknown-image-format", DecodeError):
        LeftSideEncoder().encode(images=[build_picture(), b"x"], raise_errors=True)
    with expect_error("text-not-unicode", ModelError):
        LeftSideEncoder().encode(texts=["\ud800"], raise_errors=True)
    [vector] = LeftSideEncoder().encode(texts=["ab"], raise_errors=True)
    assert vector.tokens == ("chars",)


@pytest.mark.parametrize(
    ("image", "limits", "code"),
    [
        (save_picture(build_picture()), ReadLimits(max_bytes=10), "file-too-large"),
        (save_picture(build_picture()), ReadLimits(max_pixels=255), "decompression-bomb"),
        (build_picture(), ReadLimits(max_pixels=255), "decompression-bomb"),
        ("http://127.0.0.1:9/x.jpg", ReadLimits(), "address-not-allowed"),
    ],
)
def test_limits_apply_to_every_kind_of_image(image: Any, limits: ReadLimits, code: str) -> None:  # noqa: ANN401
    [error] = LeftSideEncoder().encode(images=[image], read_limits=limits)
    assert isinstance(error, StairError)
    assert error.code == code


@pytest.mark.parametrize(
    "arguments", [{"images": "a.jpg"}, {"images": b"x"}, {"images": [1]}, {"texts": "cat"}, {"texts": [b"x"]}]
)
def test_single_values_and_other_types_are_mistakes(arguments: dict[str, Any]) -> None:
    with expect_error("invalid-encoder-input"):
        LeftSideEncoder().encode(**arguments)


def test_inputs_are_checked_before_any_is_encoded() -> None:
    encoder = LeftSideEncoder()
    with expect_error("invalid-encoder-input"):
        encoder.encode(images=[build_picture()], texts="cat")
    assert encoder.batches == []
    with expect_error("unknown-image-format"):
        encoder.encode(images=[b"x", *[build_picture()] * 40], raise_errors=True)
    assert encoder.batches == [31]
