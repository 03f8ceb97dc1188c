import base64
import io
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from PIL.Image import Transpose
from support.errors import expect_error
from support.strategies import draw_damaged_bytes

from stair_es.config.defaults import MAX_PIXELS
from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodedImage, DecodeLimits, decode_image
from stair_es.types import ImageSpec, ResizeMode

SPEC = ImageSpec(size_px=64)
PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


def save_image(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_bytes(data: bytes, thumbnail_px: int = 0, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    return decode_image(data, SPEC, DecodeLimits(max_pixels=max_pixels), thumbnail_px)


def get_center(decoded: DecodedImage) -> list[int]:
    return [int(value) for value in decoded.pixels_HWC[32, 32]]


def is_near(actual: list[int], wanted: list[int], tolerance: int = 6) -> bool:
    return max(abs(a - w) for a, w in zip(actual, wanted, strict=True)) <= tolerance


def turn_image(upright: Image.Image, orientation: int) -> Image.Image:
    """Return the picture as it is stored with an EXIF orientation."""
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_90,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_270,
    }
    return upright.transpose(turns[orientation]) if orientation in turns else upright


RED = Image.new("RGB", (100, 50), (200, 30, 20))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_common_formats_become_rgb_on_a_white_square(format_: str) -> None:
    decoded = decode_bytes(save_image(RED, format_))
    assert decoded.pixels_HWC.shape == (64, 64, 3)
    assert decoded.pixels_HWC.dtype == np.uint8
    assert is_near(get_center(decoded), [200, 30, 20])
    assert decoded.pixels_HWC[0, 0].tolist() == [255, 255, 255]
    assert (decoded.width, decoded.height, decoded.format) == (100, 50, format_)


def test_cmyk_keeps_its_color() -> None:
    assert is_near(get_center(decode_bytes(save_image(RED.convert("CMYK"), "JPEG", quality=95))), [200, 30, 20], 12)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format_: str) -> None:
    grey = Image.fromarray(np.full((20, 20), 0x4000, dtype=np.uint16))
    assert is_near(get_center(decode_bytes(save_image(grey, format_))), [64, 64, 64])


def test_float_tiff_is_scaled_over_its_range() -> None:
    values = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    decoded = decode_bytes(save_image(Image.fromarray(values), "TIFF"))
    assert decoded.pixels_HWC.min() < 10


def test_palette_alpha_and_rgba_are_on_white() -> None:
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert get_center(decode_bytes(save_image(palette, "PNG", transparency=0))) == [255, 255, 255]
    half = Image.new("RGBA", (10, 10), (0, 0, 0, 128))
    assert is_near(get_center(decode_bytes(save_image(half, "PNG"))), [127, 127, 127])
    grey_alpha = Image.new("LA", (10, 10), (0, 0))
    assert get_center(decode_bytes(save_image(grey_alpha, "PNG"))) == [255, 255, 255]


@pytest.mark.parametrize("format_", ["GIF", "WEBP"])
def test_first_frame_of_an_animation(format_: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ((0, 0, 250), (250, 0, 0))]
    data = save_image(frames[0], format_, save_all=True, append_images=frames[1:], duration=50)
    assert is_near(get_center(decode_bytes(data)), [0, 0, 250], 12)


def test_exif_rotation_and_date() -> None:
    upright = Image.new("RGB", (40, 80), (0, 200, 0))
    upright.paste((200, 0, 0), (0, 0, 40, 40))  # red above green
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned by 90 degrees to the left
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    decoded = decode_bytes(save_image(upright.rotate(90, expand=True), "JPEG", exif=exif, quality=95))
    assert (decoded.width, decoded.height, decoded.taken_at) == (40, 80, "2024-05-06T07:08:09")
    assert is_near(decoded.pixels_HWC[10, 32].tolist(), [200, 0, 0], 12)
    assert is_near(decoded.pixels_HWC[54, 32].tolist(), [0, 200, 0], 12)


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "yesterday", "2024:13:40 99:00:00"])
def test_an_invalid_date_is_ignored(date: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = date
    assert decode_bytes(save_image(RED, "JPEG", exif=exif)).taken_at is None


def test_large_jpeg_reports_its_own_size_though_decoded_smaller() -> None:
    decoded = decode_bytes(save_image(Image.new("RGB", (3000, 1000), (10, 90, 200)), "JPEG"))
    assert (decoded.width, decoded.height) == (3000, 1000)
    assert is_near(get_center(decoded), [10, 90, 200])


@pytest.mark.parametrize("fit", get_args(ResizeMode))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_jpegs_look_as_at_full_scale(orientation: int, fit: ResizeMode) -> None:
    """With sides that no scale divides, where half a pixel too much would shift the picture."""
    upright = Image.open(PHOTOS / "half-a-fig.jpg").resize((1201, 899), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = save_image(turn_image(upright, orientation), "JPEG", exif=exif, quality=92)
    full, scaled = (decode_image(data, replace(SPEC, fit=fit), DecodeLimits()) for data in (save_image(upright, "BMP"), jpeg))
    difference = np.abs(scaled.pixels_HWC.astype(float) - full.pixels_HWC).mean()
    assert 0 < difference < 0.3  # saved again at quality 85: 0.2; half a pixel too much: 0.6 to 2
    assert (scaled.box, scaled.width, scaled.height, scaled.colors) == (full.box, full.width, full.height, full.colors)
    assert count_differences(scaled, full) <= 2


@pytest.mark.parametrize("fit", get_args(ResizeMode))
def test_small_jpegs_are_decoded_at_full_scale(fit: ResizeMode) -> None:
    jpeg = save_image(draw_disc((255, 251)), "JPEG")
    with Image.open(io.BytesIO(jpeg)) as image:
        bitmap = save_image(image, "BMP")
    one, other = (decode_image(data, replace(SPEC, fit=fit), DecodeLimits()) for data in (jpeg, bitmap))
    assert (one.pixels_HWC == other.pixels_HWC).all()


def test_a_line_of_pixels_survives() -> None:
    assert decode_bytes(save_image(Image.new("RGB", (5000, 1)), "PNG")).pixels_HWC.shape == (64, 64, 3)


def test_thumbnail_is_a_small_webp() -> None:
    thumbnail = decode_bytes(save_image(Image.new("RGB", (400, 200)), "PNG"), thumbnail_px=80).thumbnail
    assert thumbnail is not None
    head, _, data = thumbnail.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert small.size == (80, 40)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("fit", get_args(ResizeMode))
def test_a_thumbnail_has_its_size_whatever_the_model_needs(fit: ResizeMode, format_: str) -> None:
    data = save_image(Image.new("RGBA" if format_ == "PNG" else "RGB", (1000, 800)), format_)
    spec = ImageSpec(size_px=16, fit=fit)
    small, plain = (decode_image(data, spec, DecodeLimits(), thumbnail_px) for thumbnail_px in (512, 0))
    with Image.open(io.BytesIO(base64.b64decode(str(small.thumbnail).partition(",")[2]))) as thumbnail:
        assert thumbnail.size == (512, 410)
    assert (small.pixels_HWC == plain.pixels_HWC).all()


def draw_disc(size: tuple[int, int], *, upside_down: bool = False) -> Image.Image:
    """Return a drawing at any size: a bright disc on a slope from dark to light."""
    image = Image.linear_gradient("L").rotate(110).resize(size)
    ImageDraw.Draw(image).ellipse((size[0] // 5, size[1] // 6, size[0] // 2, size[1] // 2), fill=255)
    return image.rotate(180 if upside_down else 0).convert("RGB")


def count_differences(one: DecodedImage, other: DecodedImage) -> int:
    assert one.perceptual_hash
    assert other.perceptual_hash
    assert len(one.perceptual_hash) == len(other.perceptual_hash) == 16
    return bin(int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).count("1")


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_the_perceptual_hash_survives_another_size_and_quality(fit: ResizeMode) -> None:
    spec = ImageSpec(size_px=64, fit=fit)
    original, smaller, other = (
        decode_image(data, spec, DecodeLimits())
        for data in (
            save_image(draw_disc((900, 600)), "PNG"),
            save_image(draw_disc((300, 200)), "JPEG", quality=30),
            save_image(draw_disc((900, 600), upside_down=True), "PNG"),
        )
    )
    assert count_differences(original, smaller) <= 4
    assert count_differences(original, other) >= 10


def test_the_perceptual_hash_is_of_the_upright_flat_picture() -> None:
    upright, exif = draw_disc((300, 200)), Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    turned = decode_bytes(save_image(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))
    assert turned.perceptual_hash == decode_bytes(save_image(upright, "PNG")).perceptual_hash

    clear = Image.merge("RGBA", (*Image.effect_noise((300, 200), 90).convert("RGB").split(), Image.new("L", (300, 200))))
    assert decode_bytes(save_image(clear, "PNG")).perceptual_hash is None  # noise that nobody sees
    assert decode_bytes(save_image(RED, "PNG")).perceptual_hash is None


@cache
def list_seed_images() -> tuple[bytes, ...]:
    """A small image in each format, with the headers that are parsed here."""
    noise, exif = Image.effect_noise((48, 32), 80), Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    seeds = [save_image(noise.convert("RGB"), kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")]
    seeds += [save_image(noise, kind) for kind in ("GIF", "BMP", "PPM")]
    return (*seeds, save_image(noise, "TIFF", compression="tiff_lzw"), save_image(noise.convert("RGB"), "JPEG", progressive=True))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow's, about damaged files
@given(data=draw_damaged_bytes(st.deferred(lambda: st.sampled_from(list_seed_images()))), fit=st.sampled_from(("pad", "crop")))
def test_damaged_images_are_pixels_or_rejected(data: bytes, fit: ResizeMode) -> None:
    try:
        decoded = decode_image(data, replace(SPEC, fit=fit), DecodeLimits(max_pixels=1_000_000), thumbnail_px=16)
    except DecodeError:
        return
    left, upper, right, lower = decoded.box
    assert decoded.pixels_HWC.shape == (64, 64, 3)
    assert decoded.pixels_HWC.dtype == np.uint8
    assert 0 <= left < right <= 64
    assert 0 <= upper < lower <= 64
    assert 1 <= decoded.width * decoded.height <= 1_000_000
    assert decoded.taken_at is None or datetime.fromisoformat(decoded.taken_at)
    assert decoded.thumbnail


PHOTO = save_image(Image.effect_noise((300, 300), 80).convert("RGB"), "JPEG")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "file-empty"),
        (b"hello, I am text\n" * 50, "unknown-image-format"),
        (PHOTO[: len(PHOTO) // 2], "image-damaged"),
        (PHOTO[:20], "unknown-image-format"),
        (save_image(RED, "PNG")[:60], "image-damaged"),
        (save_image(Image.effect_noise((99, 99), 80), "PNG")[:4000], "image-damaged"),
        (b"GIF89a" + b"\xff" * 30, "unknown-image-format"),
        (b"%PDF-1.4\n", "unknown-image-format"),
    ],
)
def test_bad_bytes_fail(data: bytes, code: str) -> None:
    with expect_error(code, DecodeError):
        decode_bytes(data)


def test_a_decompression_bomb_is_rejected_before_it_is_decoded() -> None:
    bomb = save_image(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    for data, limits, numbers in ((bomb, {}, ("20000", "128000000")), (save_image(RED, "PNG"), {"max_pixels": 4999}, ("4999",))):
        with expect_error("decompression-bomb", DecodeError) as caught:
            decode_bytes(data, **limits)
        assert all(number in caught.value.message for number in numbers)
    assert decode_bytes(save_image(RED, "PNG"), max_pixels=5000)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_becomes_upright(orientation: int, format_: str) -> None:
    upright = Image.new("RGB", (40, 80), (0, 0, 200))
    upright.paste((200, 0, 0), (0, 0, 40, 40))
    upright.paste((0, 200, 0), (0, 0, 20, 40))  # green, red; below them blue
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_bytes(save_image(turn_image(upright, orientation), format_, exif=exif, quality=95))
    assert (decoded.width, decoded.height) == (40, 80)
    corners = [decoded.pixels_HWC[y, x].tolist() for y, x in ((10, 22), (10, 42), (54, 32))]
    expected = [[0, 200, 0], [200, 0, 0], [0, 0, 200]]
    assert all(is_near(corner, color, 12) for corner, color in zip(corners, expected, strict=True)), corners


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow's, which takes the resolution from it
def test_broken_exif_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"
    exif[0x011A] = 72.0
    data = bytearray(save_image(RED, "JPEG", exif=exif))
    start = data.index(b"Exif") + 6
    for i in range(start + 8, start + 60):
        for value in (0x00, 0x7F, 0xFF):
            broken = bytes(data[:i]) + bytes([value]) + bytes(data[i + 1 :])
            assert decode_bytes(broken).pixels_HWC.shape == (64, 64, 3)


def test_large_images_are_not_copied_at_full_size() -> None:
    """In a process of its own: 8 bytes a pixel and the interpreter have to do."""
    code = (
        "import io\nfrom pathlib import Path\nfrom PIL import Image\n"
        "from stair_es.sources.image.decode import DecodeLimits, decode_image\nfrom stair_es.types import ImageSpec\n"
        "for mode in ('RGBA', 'LA', 'I;16'):\n"
        "    buffer = io.BytesIO(); Image.new(mode, (4000, 4000)).save(buffer, 'PNG', compress_level=1)\n"
        "    for fit in ('pad', 'crop'):\n"
        "        decode_image(buffer.getvalue(), ImageSpec(size_px=64, fit=fit), DecodeLimits())\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 16_000_000 * 8 + 150_000_000
