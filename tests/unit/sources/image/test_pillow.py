"""Pillow's limit against decompression bombs belongs to the application that imports the package."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.pillow import IMAGE_FORMATS, _allowance
from stair_es.types import ImageSpec

SPEC = ImageSpec(size_px=16)
LARGE = Image.effect_noise((64, 64), 50).convert("RGB")


@pytest.fixture
def low_limit() -> Iterator[int]:
    """A limit of the application that is far below the size of the images here."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 100
    yield 100
    Image.MAX_IMAGE_PIXELS = before


def save_image(image: Image.Image, format_: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


@pytest.mark.parametrize("format_", IMAGE_FORMATS)
def test_our_limit_overrides_that_of_the_application(low_limit: int, format_: str) -> None:
    data = save_image(LARGE, format_)
    assert decode_image(data, SPEC, DecodeLimits()).width == 64
    assert low_limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


@pytest.mark.parametrize("format_", IMAGE_FORMATS)
def test_our_limit_applies_below_the_applications(format_: str) -> None:
    with expect_error("decompression-bomb", DecodeError):
        decode_image(save_image(LARGE, format_), SPEC, DecodeLimits(max_pixels=64 * 64 - 1))


def test_image_within_the_limit_keeps_it() -> None:
    before = Image.MAX_IMAGE_PIXELS
    assert before is not None, "importing the package has changed it"
    with _allowance.allow(before):
        assert before == Image.MAX_IMAGE_PIXELS


def test_application_warnings_are_kept(tmp_path: Path) -> None:
    """In an own process, since pytest has filters of its own."""
    (tmp_path / "large.png").write_bytes(save_image(LARGE, "PNG"))
    code = (
        "from PIL import Image; import stair_es.sources.image.decode; "
        "Image.MAX_IMAGE_PIXELS = 3000; Image.open('large.png').load()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "DecompressionBombWarning" in done.stderr


def test_the_last_of_several_threads_restores_the_limit(low_limit: int) -> None:
    count = 8
    inside, data = Barrier(count), save_image(LARGE, "TIFF")

    def decode_in_thread(number: int) -> int | None:
        with _allowance.allow(low_limit + 1):
            inside.wait()
            decode_image(data, SPEC, DecodeLimits())
            seen = Image.MAX_IMAGE_PIXELS
            inside.wait()
        return seen

    with ThreadPoolExecutor(count) as pool:
        assert set(pool.map(decode_in_thread, range(count))) == {None}
    assert low_limit == Image.MAX_IMAGE_PIXELS


def test_a_failed_image_restores_the_limit(low_limit: int) -> None:
    with expect_error("image-damaged", DecodeError):
        decode_image(save_image(LARGE, "PNG")[:2000], SPEC, DecodeLimits())
    assert low_limit == Image.MAX_IMAGE_PIXELS
