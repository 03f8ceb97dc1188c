"""Images are encoded again: upright, limited in size, without metadata."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits
from stair_es.web.thumbnails import ImageCache, ServedFile, render_image

PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "tabby-cat.jpg"
LIMITS = DecodeLimits(max_pixels=1_000_000)


def open_rendered(rendered: ServedFile) -> Image.Image:
    return Image.open(io.BytesIO(rendered.data))


def encode_image(image: Image.Image, kind: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


@pytest.mark.parametrize(("side_px", "kind"), [(256, "WEBP"), (64, "JPEG")])
def test_a_picture_keeps_its_shape_within_the_side(side_px: int, kind: str) -> None:
    rendered = render_image(PHOTO.read_bytes(), side_px, kind, LIMITS)  # type: ignore[arg-type]
    image = open_rendered(rendered)
    with Image.open(PHOTO) as original:
        ratio = original.width / original.height
    assert (image.format, max(image.size), rendered.media_type) == (kind, side_px, f"image/{kind.lower()}")
    assert image.width / image.height == pytest.approx(ratio, abs=0.03)


def test_a_small_picture_isn_t_enlarged() -> None:
    data = encode_image(Image.new("RGB", (40, 30), (255, 0, 0)), "PNG")
    image = open_rendered(render_image(data, 1600, "JPEG", LIMITS))
    assert image.size == (40, 30)
    assert np.abs(np.asarray(image, np.int16) - (255, 0, 0)).max() < 8


def test_it_is_upright_without_metadata() -> None:
    image = Image.new("RGB", (60, 20), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 30, 20))  # the left half is red
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    exif[0x010E] = "taken at home"
    data = encode_image(image, "JPEG", exif=exif, comment=b"secret", quality=95)
    assert b"taken at home" in data
    assert b"secret" in data
    rendered = render_image(data, 100, "JPEG", LIMITS)
    result = open_rendered(rendered)
    assert result.size == (20, 60)
    assert not result.getexif()
    assert b"taken at home" not in rendered.data
    assert b"secret" not in rendered.data
    red, _, blue = np.asarray(result)[5, 10]  # the left half is on top now
    assert red > 200 > 60 > blue


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "file-empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "unknown-image-format"),
        (b"<html><script>alert(1)</script></html>", "unknown-image-format"),
        (b"%PDF-1.7", "unknown-image-format"),
        (PHOTO.read_bytes()[:300], "image-damaged"),
        (PHOTO.read_bytes()[:2000], "image-damaged"),
        (b"GIF89a" + b"\xff" * 50, "unknown-image-format"),
    ],
)
def test_invalid_images_are_rejected(data: bytes, code: str) -> None:
    with expect_error(code, DecodeError):
        render_image(data, 100, "WEBP", LIMITS)


def test_a_bomb_is_rejected_before_its_pixels_are_read() -> None:
    bomb = encode_image(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with expect_error("decompression-bomb", DecodeError):
        render_image(bomb, 100, "WEBP", LIMITS)


def test_polyglot_files_are_served_as_images() -> None:
    data = encode_image(Image.new("RGB", (8, 8)), "GIF") + b"<script>alert(1)</script>"
    assert b"<script>" not in render_image(data, 8, "WEBP", LIMITS).data


def test_the_same_pixels_have_the_same_tag() -> None:
    first, again = (render_image(PHOTO.read_bytes(), 64, "WEBP", LIMITS) for _ in range(2))
    assert first == again
    assert first.etag != render_image(PHOTO.read_bytes(), 65, "WEBP", LIMITS).etag


def test_the_cache_evicts_the_least_recently_used_image() -> None:
    cache = ImageCache(3 * 1200)
    for name in "abc":
        cache.put(name, ServedFile(media_type="image/webp", data=bytes(1000), etag=name))
    assert cache.get("a") is not None
    cache.put("d", ServedFile(media_type="image/webp", data=bytes(1000), etag="d"))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]
    for size_bytes, is_kept in ((3 * 1200 - 200, True), (3 * 1200 - 199, False)):
        large = ServedFile(media_type="image/webp", data=bytes(size_bytes), etag="h")
        assert cache.put(size_bytes, large) is large
        assert (cache.get(size_bytes) is not None) == is_kept


def test_the_cache_drops_images_after_their_time_to_live() -> None:
    cache = ImageCache(10_000, ttl_s=0.0)
    cache.put("a", ServedFile(media_type="image/webp", data=bytes(10), etag="a"))
    assert cache.get("a") is None
