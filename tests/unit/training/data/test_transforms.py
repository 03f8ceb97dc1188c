"""Views of a picture: the same for the same generator, as far from it as said and no farther, and bad bytes refused."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stair_es.errors import DecodeError, UsageError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.data.transforms import AUGMENTATION_PRESETS, NO_AUGMENTATION, Augmentation, augment_image, get_augmentation
from stair_es.types import ImageSpec, Pixels

PHOTO = (Path(__file__).parents[4] / "examples" / "photos" / "two-spaniels.jpg").read_bytes()
SPEC = ImageSpec(size_px=64)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def view(how: Augmentation, seed: int, data: bytes = PHOTO) -> Pixels:
    return augment_image(data, SPEC, how, np.random.default_rng(seed))


@pytest.mark.parametrize("how", AUGMENTATION_PRESETS.values(), ids=AUGMENTATION_PRESETS)
def test_a_view_is_a_function_of_the_generator(how: Augmentation) -> None:
    views = [view(how, seed) for seed in range(6)]
    assert all(each.shape == (64, 64, 3) and each.dtype == np.uint8 for each in views)
    for seed, each in enumerate(views):
        np.testing.assert_array_equal(each, view(how, seed))
    assert len({each.tobytes() for each in views}) == (1 if how == NO_AUGMENTATION else 6)


def test_no_augmentation_is_decoding() -> None:
    np.testing.assert_array_equal(view(NO_AUGMENTATION, 3), decode_image(PHOTO, SPEC, DecodeLimits()).pixels_HWC)
    # and so nearly is what changes nothing on the other way
    still = view(replace(NO_AUGMENTATION, flip=1e-12), 3)
    assert np.abs(still.astype(int) - view(NO_AUGMENTATION, 3)).mean() < 1


@pytest.mark.parametrize("size", [(64, 64), (100, 80), (80, 120), (300, 60)])
def test_a_view_is_squashed_as_the_encoder_squashes(size: tuple[int, int]) -> None:
    spec = replace(SPEC, fit="squash")
    data = png(Image.open(io.BytesIO(PHOTO)).resize(size))
    still = augment_image(data, spec, replace(NO_AUGMENTATION, flip=1e-12), np.random.default_rng(3))
    seen = decode_image(data, spec, DecodeLimits()).pixels_HWC
    white_still, white_seen = ((pixels == 255).all(axis=2).mean() for pixels in (still, seen))
    assert white_still == pytest.approx(white_seen, abs=1.5 / 64)  # the same page around it, but for a row or column
    assert np.abs(still.astype(int) - seen).mean() < 6


def test_the_next_view_does_not_depend_on_this_one() -> None:
    rngs = [np.random.default_rng(7) for _ in range(3)]
    for rng, how, data in zip(
        rngs,
        (NO_AUGMENTATION, AUGMENTATION_PRESETS["strong"], AUGMENTATION_PRESETS["light"]),
        (PHOTO, PHOTO, png(Image.new("RGBA", (3, 90)))),
        strict=True,
    ):
        augment_image(data, SPEC, how, rng)
    assert len({rng.random() for rng in rngs}) == 1


def test_mirrored() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = 255
    data = png(Image.fromarray(picture))
    assert view(Augmentation(flip=1.0), 0, data)[32, :, 0].tolist() == picture[32, ::-1, 0].tolist()
    mirrored = sum(int(view(Augmentation(flip=0.5), seed, data)[0, 0, 0]) == 0 for seed in range(400))
    assert 160 < mirrored < 240


def test_a_crop_shows_as_much_as_is_reported() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 256)[:, None], (256, 256)).astype(np.uint8)
    data = png(Image.fromarray(np.stack([ramp, ramp.T, ramp], axis=-1)))
    shown = []
    for seed in range(200):
        pixels = view(Augmentation(crop_area=0.25), seed, data).astype(float)
        high, wide = np.ptp(pixels[..., 0].mean(axis=1)) / 255, np.ptp(pixels[..., 1].mean(axis=0)) / 255
        assert abs(high - wide) < 0.03  # the proportions stay
        shown.append(high * wide)
    assert 0.22 < min(shown) < 0.32
    assert max(shown) > 0.93
    sides = [view(Augmentation(crop_area=0.5, crop_ratio=2.0), seed, data) for seed in range(50)]
    bars = [bool((each[0] == 255).all() or (each[:, 0] == 255).all()) for each in sides]
    assert 10 < sum(bars) < 50  # another proportion leaves bars of background


def test_colors_change_as_far_as_is_reported() -> None:
    data = png(Image.new("RGB", (50, 50), (100, 120, 140)))
    means = np.array([view(Augmentation(brightness=0.2), seed, data).mean(axis=(0, 1)) for seed in range(200)])
    assert 80 <= means[:, 0].min() < 84
    assert 116 < means[:, 0].max() <= 121
    grey = [np.ptp(view(Augmentation(saturation=0.9), seed, data)[0, 0]) for seed in range(50)]
    assert min(grey) < 20 < 40 < max(grey)
    assert len({view(Augmentation(contrast=0.5), seed).tobytes() for seed in range(5)}) == 5


def test_the_background_shows_through_transparency_alone() -> None:
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (20, 20, 44, 44))
    colors = set()
    for seed in range(40):
        pixels = view(Augmentation(background=0.5), seed, png(image))
        assert np.abs(pixels[32, 32].astype(int) - (10, 20, 30)).max() <= 1
        colors.add(tuple(int(value) for value in pixels[0, 0]))
    assert (255, 255, 255) in colors
    assert 10 < len(colors) < 30
    opaque = png(Image.new("RGB", (64, 64), (10, 20, 30)))
    assert {tuple(view(Augmentation(background=1.0), seed, opaque).reshape(-1, 3).max(axis=0)) for seed in range(5)} == {
        (10, 20, 30)
    }


def test_colors_change_around_the_picture_too() -> None:
    data = png(Image.new("RGB", (64, 32), (255, 255, 255)))
    for seed in range(20):
        pixels = view(replace(AUGMENTATION_PRESETS["strong"], background=0.0), seed, data)
        assert np.ptp(pixels) <= 1  # white on white: no edge shows where the picture ends


def test_rotation_keeps_the_corners() -> None:
    image = Image.new("RGB", (60, 60), (200, 0, 0))
    pixels = view(Augmentation(rotation_deg=45), 1, png(image))
    assert (pixels[0, 0] > 200).all()  # the background
    assert pixels[32, 32].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (900, 2), (3000, 2000)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    for seed in range(5):
        assert view(AUGMENTATION_PRESETS["strong"], seed, png(Image.new("RGB", size, (9, 9, 9)))).shape == (64, 64, 3)


@pytest.mark.parametrize("data", [b"", b"no image", PHOTO[:200], PHOTO[: len(PHOTO) // 2]])
@pytest.mark.parametrize("how", AUGMENTATION_PRESETS.values(), ids=AUGMENTATION_PRESETS)
def test_bad_bytes_are_rejected(data: bytes, how: Augmentation) -> None:
    with pytest.raises(DecodeError):
        view(how, 0, data)


def test_bombs_are_rejected() -> None:
    data = png(Image.new("1", (3000, 3000)))
    with pytest.raises(DecodeError, match="bomb"):
        augment_image(data, SPEC, AUGMENTATION_PRESETS["light"], np.random.default_rng(0), DecodeLimits(max_pixels=1_000_000))


def test_values_out_of_range() -> None:
    for field in fields(Augmentation):
        with pytest.raises(UsageError, match=field.name) as failed:
            Augmentation(**{field.name: -0.5})
        assert "Give a number" in failed.value.remedy
    with pytest.raises(UsageError, match="crop_area"):
        Augmentation(crop_area=float("nan"))
    with pytest.raises(UsageError, match="none, light, strong") as failed:
        get_augmentation("wild")
    assert get_augmentation("strong") == AUGMENTATION_PRESETS["strong"]
