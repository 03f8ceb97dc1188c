"""Real vectors for tests: what stair-mini says of many views of the bundled photos, kept in one small file.

::

    python tests/support/corpora/photo_vectors.py   # writes tests/data/photo-vectors.npz anew; some minutes

Encoding all the views takes minutes, too long for each test run; a test encodes some of them again and finds the same.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Pixels, SparseVector

_ROOT = Path(__file__).resolve().parents[3]
PHOTOS = _ROOT / "examples" / "photos"
FILE = _ROOT / "tests" / "data" / "photo-vectors.npz"
VIEWS = 75
"""Of each photo: 40 photos make 3,000 vectors."""
STEPS = 100_000
"""The model rounds to 5 decimals, so that a weight is a whole number of these."""


def stack_photos(names: Iterable[str], side_px: int) -> Pixels:
    """Return bundled photos, each stretched to a square (`pixels_BHWC`)."""
    return np.stack([np.asarray(Image.open(PHOTOS / name).convert("RGB").resize((side_px, side_px))) for name in names])


def crop_view(path: Path, number: int) -> Image.Image:
    """Return a view of a photo, fixed by its number. The first is the whole photo."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    if number == 0:
        return photo
    rng = random.Random(f"{path.stem}-{number}")
    width, height = photo.size
    side = rng.uniform(0.3, 1.0)
    left, top = (int(rng.uniform(0, 1 - side) * length) for length in (width, height))
    part = photo.crop((left, top, left + int(side * width), top + int(side * height)))
    if rng.random() < 0.5:
        part = ImageOps.mirror(part)
    change = rng.randrange(7)
    if change < 3:
        enhancer = (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast)[change]
        return enhancer(part).enhance(rng.uniform(0.3, 1.8))
    if change == 3:
        return part.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4)))
    if change == 4:
        return part.rotate(rng.uniform(-30, 30), expand=True)
    return ImageOps.posterize(part, rng.randrange(2, 6)) if change == 5 else part


def encode_view(encoder: Encoder, image: Image.Image) -> SparseVector:
    """Encode an image as ingest does."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    pixels_HWC = decode_image(buffer.getvalue(), encoder.image_spec, DecodeLimits()).pixels_HWC
    return encoder.encode_images(pixels_HWC[None])[0]


def load_vectors(file: Path = FILE) -> dict[str, SparseVector]:
    """Map names to vectors."""
    with np.load(file) as archive:
        words, names = archive["words"].tolist(), archive["names"].tolist()
        features = [words[number] for number in archive["features"].tolist()]
        weights = (archive["weights"] / STEPS).tolist()
        ends = np.cumsum(archive["sizes"]).tolist()
    pairs = list(zip(features, weights, strict=True))
    return {name: SparseVector.from_pairs(pairs[start:end]) for name, start, end in zip(names, [0, *ends], ends, strict=False)}


def save_vectors(vectors: dict[str, SparseVector], file: Path) -> None:
    """Write the vectors.

    Raises:
        ValueError: A weight has more than 5 decimals.
    """
    words = sorted({word for vector in vectors.values() for word, _ in vector})
    numbers = {word: number for number, word in enumerate(words)}
    weights = np.array([weight for vector in vectors.values() for _, weight in vector])
    steps = np.rint(weights * STEPS)
    if np.abs(weights * STEPS - steps).max() > 1e-6:
        raise ValueError("the model doesn't round to 5 decimals any more")
    np.savez_compressed(
        file,
        words=np.array(words),
        names=np.array(list(vectors)),
        sizes=np.array([len(vector) for vector in vectors.values()], np.uint16),
        features=np.array([numbers[word] for vector in vectors.values() for word, _ in vector], np.uint16),
        weights=steps.astype(np.uint32),
    )


def main() -> None:
    """Encode all views and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    out: Path = parser.parse_args().out
    encoder = registry.load_encoder(ModelSpec(name="stair-mini"))
    vectors = {}
    for path in sorted(PHOTOS.glob("*.jpg")):
        for number in range(VIEWS):
            vectors[f"{path.stem}-{number:02}"] = encode_view(encoder, crop_view(path, number))
        print(path.stem, len(vectors))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_vectors(vectors, out)
    print(f"{len(vectors):,} vectors, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
