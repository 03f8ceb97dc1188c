"""Views of an image: the same for the same generator, within the limits of the augmentation; and rejected bytes."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.data.transforms import AUGMENTATION_PRESETS, NO_AUGMENTATION, Augmentation, augment_image, get_augmentation
from stair_es.types import ImageSpec, Pixels

PHOTO = (Path(__file__).parents[4] / "examples" / "photos" / "two-spaniels.jpg").read_bytes()
SPEC = ImageSpec(size_px=64)


def encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def draw_view(augmentation: Augmentation, seed: int, data: bytes = PHOTO) -> Pixels:
    return augment_image(data, SPEC, augmentation, np.random.default_rng(seed))


@pytest.mark.parametrize("augmentation", AUGMENTATION_PRESETS.values(), ids=AUGMENTATION_PRESETS)
def test_a_view_is_a_function_of_the_generator(augmentation: Augmentation) -> None:
    views = [draw_view(augmentation, seed) for seed in range(6)]
    for seed, view_HWC in enumerate(views):
        assert (view_HWC.shape, view_HWC.dtype) == ((64, 64, 3), np.dtype(np.uint8))
        np.testing.assert_array_equal(view_HWC, draw_view(augmentation, seed))
    assert len({view_HWC.tobytes() for view_HWC in views}) == (1 if augmentation == NO_AUGMENTATION else 6)


def test_no_augmentation_is_decoding() -> None:
    decoded_HWC = decode_image(PHOTO, SPEC, DecodeLimits()).pixels_HWC
    np.testing.assert_array_equal(draw_view(NO_AUGMENTATION, 3), decoded_HWC)
    unchanged_HWC = draw_view(replace(NO_AUGMENTATION, flip=1e-12), 3)  # resized by the augmentation
    assert np.abs(unchanged_HWC.astype(int) - decoded_HWC).mean() < 1


@pytest.mark.parametrize("size", [(64, 64), (100, 80), (80, 120), (300, 60)])
def test_a_view_is_squashed_as_the_encoder_squashes(size: tuple[int, int]) -> None:
    spec = replace(SPEC, fit="squash")
    data = encode_png(Image.open(io.BytesIO(PHOTO)).resize(size))
    unchanged_HWC = augment_image(data, spec, replace(NO_AUGMENTATION, flip=1e-12), np.random.default_rng(3))
    decoded_HWC = decode_image(data, spec, DecodeLimits()).pixels_HWC
    white_shares = [(pixels_HWC == 255).all(axis=2).mean() for pixels_HWC in (unchanged_HWC, decoded_HWC)]
    assert white_shares[0] == pytest.approx(white_shares[1], abs=1.5 / 64)  # the same background, but for a row or column
    assert np.abs(unchanged_HWC.astype(int) - decoded_HWC).mean() < 6


def test_the_next_view_does_not_depend_on_this_one() -> None:
    numbers = set()
    for preset, data in (("none", PHOTO), ("strong", PHOTO), ("light", encode_png(Image.new("RGBA", (3, 90))))):
        rng = np.random.default_rng(7)
        augment_image(data, SPEC, AUGMENTATION_PRESETS[preset], rng)
        numbers.add(rng.random())
    assert len(numbers) == 1


def test_mirrored() -> None:
    pixels_HWC = np.zeros((64, 64, 3), np.uint8)
    pixels_HWC[:, :32] = 255
    data = encode_png(Image.fromarray(pixels_HWC))
    assert draw_view(Augmentation(flip=1.0), 0, data)[32, :, 0].tolist() == pixels_HWC[32, ::-1, 0].tolist()
    mirrored = sum(int(draw_view(Augmentation(flip=0.5), seed, data)[0, 0, 0]) == 0 for seed in range(400))
    assert 160 < mirrored < 240


def test_a_crop_shows_as_much_as_configured() -> None:
    ramp_HW = np.broadcast_to(np.linspace(0, 255, 256)[:, None], (256, 256)).astype(np.uint8)
    data = encode_png(Image.fromarray(np.stack([ramp_HW, ramp_HW.T, ramp_HW], axis=-1)))
    areas = []
    for seed in range(200):
        view_HWC = draw_view(Augmentation(crop_area=0.25), seed, data).astype(float)
        height, width = np.ptp(view_HWC[..., 0].mean(axis=1)) / 255, np.ptp(view_HWC[..., 1].mean(axis=0)) / 255
        assert abs(height - width) < 0.03  # the proportions stay
        areas.append(height * width)
    assert 0.22 < min(areas) < 0.32
    assert max(areas) > 0.93
    views = [draw_view(Augmentation(crop_area=0.5, crop_ratio=2.0), seed, data) for seed in range(50)]
    has_bars = [bool((view_HWC[0] == 255).all() or (view_HWC[:, 0] == 255).all()) for view_HWC in views]
    assert 10 < sum(has_bars) < 50  # another proportion leaves bars of background


def test_colors_change_as_far_as_configured() -> None:
    data = encode_png(Image.new("RGB", (50, 50), (100, 120, 140)))
    means_BC = np.array([draw_view(Augmentation(brightness=0.2), seed, data).mean(axis=(0, 1)) for seed in range(200)])
    assert 80 <= means_BC[:, 0].min() < 84
    assert 116 < means_BC[:, 0].max() <= 121
    ranges = [np.ptp(draw_view(Augmentation(saturation=0.9), seed, data)[0, 0]) for seed in range(50)]
    assert min(ranges) < 20 < 40 < max(ranges)
    assert len({draw_view(Augmentation(contrast=0.5), seed).tobytes() for seed in range(5)}) == 5


def test_the_background_shows_through_transparency_alone() -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (20, 20, 44, 44))
    colors = set()
    for seed in range(40):
        view_HWC = draw_view(Augmentation(background=0.5), seed, encode_png(image))
        assert np.abs(view_HWC[32, 32].astype(int) - (10, 20, 30)).max() <= 1
        colors.add(tuple(view_HWC[0, 0].tolist()))
    assert (255, 255, 255) in colors
    assert 10 < len(colors) < 30
    opaque = encode_png(Image.new("RGB", (64, 64), (10, 20, 30)))
    for seed in range(5):
        assert draw_view(Augmentation(background=1.0), seed, opaque).max(axis=(0, 1)).tolist() == [10, 20, 30]


def test_colors_change_around_the_image_too() -> None:
    data = encode_png(Image.new("RGB", (64, 32), (255, 255, 255)))
    for seed in range(20):
        view_HWC = draw_view(replace(AUGMENTATION_PRESETS["strong"], background=0.0), seed, data)
        assert np.ptp(view_HWC) <= 1  # white on white: no edge shows where the image ends


def test_rotation_keeps_the_corners() -> None:
    image = Image.new("RGB", (60, 60), (200, 0, 0))
    view_HWC = draw_view(Augmentation(rotation_deg=45), 1, encode_png(image))
    assert (view_HWC[0, 0] > 200).all()  # the background
    assert view_HWC[32, 32].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (900, 2), (3000, 2000)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    data = encode_png(Image.new("RGB", size, (9, 9, 9)))
    for seed in range(5):
        assert draw_view(AUGMENTATION_PRESETS["strong"], seed, data).shape == (64, 64, 3)


@pytest.mark.parametrize("data", [b"", b"no image", PHOTO[:200], PHOTO[: len(PHOTO) // 2]])
@pytest.mark.parametrize("augmentation", AUGMENTATION_PRESETS.values(), ids=AUGMENTATION_PRESETS)
def test_bad_bytes_are_rejected(data: bytes, augmentation: Augmentation) -> None:
    with pytest.raises(DecodeError):
        draw_view(augmentation, 0, data)


def test_decompression_bombs_are_rejected() -> None:
    data = encode_png(Image.new("1", (3000, 3000)))
    with expect_error("decompression-bomb"):
        augment_image(data, SPEC, AUGMENTATION_PRESETS["light"], np.random.default_rng(0), DecodeLimits(max_pixels=1_000_000))


def test_values_out_of_range() -> None:
    for name, value in (*((field.name, -0.5) for field in fields(Augmentation)), ("crop_area", float("nan"))):
        with expect_error("invalid-augmentation") as caught:
            Augmentation(**{name: value})
        assert name in caught.value.message
    with expect_error("config-error") as caught:
        get_augmentation("wild")
    assert "none, light, strong" in caught.value.remedy
    assert get_augmentation("strong") == AUGMENTATION_PRESETS["strong"]
