"""Names of colors: of single ones, of drawn pictures, and through the decoder."""

from __future__ import annotations

import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stair_es.sources.image import colors
from stair_es.sources.image.colors import COLOR_NAMES, MAX_COLORS, MIN_SHARE, measure_colors, name_colors
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import ImageSpec

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"
WHITE, GRAY, RED, GREEN = (255, 255, 255), (128, 128, 128), (210, 25, 30), (40, 140, 50)
SPECS = [
    ImageSpec(size_px=64),
    ImageSpec(size_px=64, background=(127, 127, 127)),
    ImageSpec(size_px=384),
    ImageSpec(size_px=224, fit="crop"),
    ImageSpec(size_px=224, fit="stretch"),
]


def draw_disc(of: tuple[int, ...], on: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A disc in the middle, a fifth of the picture."""
    image = Image.new(mode, size, on)
    middle_x, middle_y, radius = size[0] // 2, size[1] // 2, int((size[0] * size[1] / 5 / 3.14) ** 0.5)
    box = (middle_x - radius, middle_y - radius, middle_x + radius, middle_y + radius)
    ImageDraw.Draw(image).ellipse(box, fill=of)
    return image


def save_image(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def decode_colors(data: bytes, spec: ImageSpec = SPECS[0]) -> tuple[str, ...]:
    return decode_image(data, spec, DecodeLimits()).colors


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"),
        ((35, 35, 38), "black"),
        ((255, 255, 255), "white"),
        ((235, 235, 230), "white"),
        ((128, 128, 128), "gray"),
        ((80, 82, 85), "gray"),
        ((190, 190, 195), "gray"),
        ((255, 0, 0), "red"),
        ((139, 0, 0), "red"),
        ((220, 20, 60), "red"),
        ((190, 60, 40), "red"),
        ((255, 140, 0), "orange"),
        ((240, 110, 40), "orange"),
        ((255, 255, 0), "yellow"),
        ((255, 215, 0), "yellow"),
        ((240, 230, 100), "yellow"),
        ((0, 128, 0), "green"),
        ((0, 255, 0), "green"),
        ((107, 142, 35), "green"),
        ((30, 60, 30), "green"),
        ((0, 0, 255), "blue"),
        ((0, 0, 128), "blue"),
        ((135, 206, 235), "blue"),
        ((0, 128, 128), "blue"),
        ((128, 0, 128), "purple"),
        ((138, 43, 226), "purple"),
        ((180, 150, 220), "purple"),
        ((255, 192, 203), "pink"),
        ((255, 105, 180), "pink"),
        ((139, 69, 19), "brown"),
        ((92, 64, 51), "brown"),
        ((150, 60, 10), "brown"),
        ((150, 100, 60), "brown"),
        ((210, 180, 140), "beige"),
        ((245, 222, 179), "beige"),
    ],
)
def test_plain_image_has_one_color(rgb: tuple[int, int, int], name: str) -> None:
    assert name_colors(Image.new("RGB", (40, 30), rgb)) == (name,)


def test_every_cell_of_the_cube_has_a_name_and_every_name_a_cell() -> None:
    names_P, oklab_P3 = colors._build_tables()
    assert set(names_P) == set(range(len(COLOR_NAMES)))
    measured = [np.degrees(np.arctan2(*oklab_P3.T[:0:-1])) % 360, oklab_P3[:, 0], np.hypot(*oklab_P3.T[1:])]
    held = np.zeros(len(names_P), bool)
    for rule in colors._RULES:
        held |= np.all([(low <= at) & (at < high) for at, (low, high) in zip(measured, rule[1:], strict=True)], axis=0)
    assert held.all()  # where no rule held, the first name would be taken


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ({"red": 0.7, "green": MIN_SHARE - 0.001, "blue": MIN_SHARE}, ("red", "blue")),
        (dict.fromkeys(("red", "green", "blue", "pink", "white"), 0.2), ("red", "green", "blue", "pink")),
    ],
)
def test_small_shares_and_a_fifth_color_are_left_out(
    monkeypatch: pytest.MonkeyPatch, shares: dict[str, float], names: tuple[str, ...]
) -> None:
    monkeypatch.setattr(colors, "measure_colors", lambda _: shares)
    assert name_colors(Image.new("RGB", (1, 1))) == names


def test_shares_are_relative_and_in_name_order() -> None:
    shares = measure_colors(draw_disc(RED, GREEN))
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == set(COLOR_NAMES)
    assert name_colors(draw_disc(RED, GREEN)) == tuple(sorted(("red", "green"), key=lambda name: -shares[name]))


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), GRAY, (210, 180, 140), (92, 64, 51)])
def test_disc_outranks_its_plain_background(background: tuple[int, int, int]) -> None:
    assert name_colors(draw_disc(RED, background))[0] == "red"


def test_colored_backgrounds_count() -> None:
    assert set(name_colors(draw_disc(WHITE, (60, 120, 200)))) == {"white", "blue"}
    assert name_colors(Image.new("RGB", (30, 30), (60, 120, 200))) == ("blue",)


def test_small_color_shares_are_ignored() -> None:
    image = Image.new("RGB", (320, 320), GREEN)
    ImageDraw.Draw(image).rectangle((0, 0, 20, 20), fill=RED)
    assert name_colors(image) == ("green",)


def test_stripes_of_every_color_give_no_more_than_the_heaviest() -> None:
    image = Image.new("RGB", (60, 60))
    bands = [RED, GREEN, (60, 120, 200), (250, 220, 40), WHITE, (128, 0, 128)]
    for place, rgb in enumerate(bands):
        ImageDraw.Draw(image).rectangle((0, 10 * place, 60, 10 * place + 9), fill=rgb)
    names = name_colors(image)
    shares = measure_colors(image)
    assert 1 < len(names) <= MAX_COLORS
    assert [shares[name] for name in names] == sorted((shares[name] for name in names), reverse=True)
    assert min(shares[name] for name in names) >= MIN_SHARE


def test_a_gradient_of_grays_has_no_color() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 256, dtype=np.uint8), (64, 1)))
    assert set(name_colors(ramp.convert("RGB"))) <= {"black", "gray", "white"}
    assert name_colors(ramp.convert("RGB"))[0] == "gray"
    assert decode_colors(save_image(ramp, "PNG")) == name_colors(ramp.convert("RGB"))
    sixteen = Image.fromarray(np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1)))
    assert set(decode_colors(save_image(sixteen, "PNG"))) <= {"black", "gray", "white"}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_the_smallest_pictures_have_their_color(size: tuple[int, int]) -> None:
    assert decode_colors(save_image(Image.new("RGB", size, RED), "PNG")) == ("red",)


def test_transparent_pixels_have_no_color() -> None:
    cut_out = draw_disc((*RED, 255), (*GREEN, 0), "RGBA")
    for spec in SPECS:  # on whatever ground it is shown
        assert decode_colors(save_image(cut_out, "PNG"), spec) == ("red",)
    assert decode_colors(save_image(Image.new("RGBA", (9, 9), (*GREEN, 0)), "PNG")) == ()
    assert decode_colors(save_image(Image.new("LA", (9, 9), (10, 255)), "PNG")) == ("black",)
    palette = Image.new("P", (10, 10), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.paste(1, (2, 2, 8, 8))
    assert decode_colors(save_image(palette, "PNG", transparency=0)) == ("red",)
    assert decode_colors(save_image(palette, "GIF", transparency=0)) == ("red",)


@pytest.mark.parametrize("format_", ["GIF", "WEBP"])
def test_an_animation_has_the_colors_of_its_first_frame(format_: str) -> None:
    frames = [Image.new("RGB", (32, 32), rgb) for rgb in ((0, 0, 250), (250, 0, 0))]
    assert decode_colors(save_image(frames[0], format_, save_all=True, append_images=frames[1:], duration=50)) == ("blue",)


def test_cmyk_and_a_turned_picture() -> None:
    assert decode_colors(save_image(draw_disc(RED, WHITE).convert("CMYK"), "JPEG", quality=95))[0] == "red"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_colors(save_image(draw_disc(RED, WHITE), "JPEG", exif=exif)) == decode_colors(
        save_image(draw_disc(RED, WHITE).rotate(-90, expand=True), "JPEG")
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_square_of_a_model_has_no_part_in_it(spec: ImageSpec) -> None:
    """The larger the square, the more of a JPEG is decoded: shares may differ by hundredths, names of clear pictures don't."""
    large = draw_disc(RED, WHITE, size=(3000, 1500))
    for format_ in ("JPEG", "PNG"):
        assert decode_colors(save_image(large, format_), spec) == name_colors(draw_disc(RED, WHITE))
    assert decode_colors((PHOTOS / "half-a-fig.jpg").read_bytes(), spec)[0] == "red"


def test_a_large_picture_is_sampled_to_the_same_shares() -> None:
    photo = Image.open(PHOTOS / "kingfisher.jpg").convert("RGB")
    large = photo.resize((photo.width * 4, photo.height * 4), Image.Resampling.BICUBIC)
    one, other = measure_colors(photo), measure_colors(large)
    assert all(abs(one[name] - other[name]) < 0.03 for name in COLOR_NAMES)


def test_the_same_in_every_thread_from_the_first_call_on() -> None:
    """The tables are computed by whoever comes first, perhaps by several at once."""
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))[:12]]
    alone = [decode_colors(data) for data in photos]
    colors._build_tables.cache_clear()
    together = threading.Barrier(4)

    def decode_shuffled(seed: int) -> list[tuple[str, ...]]:
        order = random.Random(seed).sample(range(len(photos)), len(photos))
        together.wait()
        names = {place: decode_colors(photos[place]) for place in order}
        return [names[place] for place in range(len(photos))]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(decode_shuffled, range(4))) == [alone] * 4


@pytest.mark.parametrize(
    ("photo", "wanted"),
    [
        ("half-a-fig", {"red"}),
        ("orange-dahlia", {"orange"}),
        ("scarlet-macaw", {"red"}),
        ("kitten-with-yarn", {"pink"}),
        ("paint-brushes", {"blue", "yellow"}),
        ("kingfisher", {"orange", "blue"}),
        ("rocket-on-the-pad", {"blue"}),
        ("photographer", {"black", "gray"}),
        ("woolly-sheep", {"green"}),
        ("tabby-cat", {"brown"}),
        ("fairytale-castle", {"blue", "green"}),
        ("wall-clock", {"gray", "yellow"}),
    ],
)
def test_photographs_have_visible_colors(photo: str, wanted: set[str]) -> None:
    assert wanted <= set(decode_colors((PHOTOS / f"{photo}.jpg").read_bytes()))
