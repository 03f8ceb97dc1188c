"""Retrieval by `starter` and by `stair-mini`: the photographs among the tuxpaint stamps, and drawings of the small sets.

    python benchmarks/starter_quality.py                 # fetches the Debian package (apt-get download, dpkg-deb -x)
    python benchmarks/starter_quality.py --stamps DIR    # DIR/usr/share/tuxpaint/stamps/... of an unpacked package
    python benchmarks/starter_quality.py --sets SETS     # also on the drawings of what small_sets/build.py made

Text -> image: each distinct English description of the package is a query, the photographs of `data/tuxpaint_photos.txt` are the
gallery. Image -> text: the other way round. What has the same description (in the sets: the same concept) counts as right; ties
count against us. Neither model has learned from these pictures. Exit status 1 if the starter is below R@1/5/10 of 31/52/58.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from common import interval, options, publish
from numpy.typing import NDArray
from result import Ratio, Result
from result import Table as Lines
from small_sets.fetch import PACKAGES, unpacked

from stair_es.eval.dense import StarterDense
from stair_es.eval.metrics import CUTS, ranks
from stair_es.model.encoder import ModelSpec
from stair_es.model.stair_mini import StairMini
from stair_es.model.starter import IMAGE_SPEC, NoExpansion, Starter
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import Pixels, SparseVector

PACKAGE = PACKAGES["tuxpaint"]
LIST = Path(__file__).parent / "data" / "tuxpaint_photos.txt"
AT_LEAST = (31.0, 52.0, 58.0)
SETS = ("test_drawings", "test_clipart", "test_style", "test_concepts")
FLOOR, WAYS = "starter full", ("text -> image", "image -> text")
OURS = "R@1, text -> image, unseen photographs,"

Scores = NDArray[np.float64]
Ranks = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures, each with a text."""

    name: str
    pixels_BHWC: Pixels
    texts: tuple[str, ...]
    """Of each picture."""
    concepts: tuple[str, ...]
    """Of each picture; those of the same are right for each other's texts."""

    @property
    def queries(self) -> dict[str, str]:
        """Each distinct text, and its concept."""
        return dict(zip(self.texts, self.concepts, strict=True))


def read_photos(stamps: Path) -> Gallery:
    """The listed photographs and their English descriptions, both from the package.

    Raises:
        SystemExit: A listed file isn't in the folder.
    """
    paths = [stamps / line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    missing = [path for path in paths if not (path.is_file() and path.with_suffix(".txt").is_file())]
    if missing:
        raise SystemExit(f"{len(missing)} of {len(paths)} photographs aren't in {stamps}, the first: {missing[0]}")
    texts = tuple(path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip() for path in paths)
    return Gallery(name=f"photographs of {PACKAGE.name}", pixels_BHWC=_pixels(paths), texts=texts, concepts=texts)


def read_set(sets: Path, name: str) -> Gallery:
    """One of the small sets.

    Raises:
        SystemExit: It isn't there.
    """
    path = sets / f"{name}.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path} isn't there: run benchmarks/small_sets/build.py --out {sets}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Gallery(
        name=name,
        pixels_BHWC=_pixels([sets / row["image"] for row in rows]),
        texts=tuple(row["captions"][0] for row in rows),
        concepts=tuple(row["concept"] for row in rows),
    )


def _pixels(paths: Sequence[Path]) -> Pixels:
    return np.stack([decode(path.read_bytes(), IMAGE_SPEC, DecodeLimits()).pixels_HWC for path in paths])


def sparse_scores(texts: Sequence[SparseVector], images: Sequence[SparseVector]) -> Scores:
    """The exact dot products [queries, gallery] of the vectors that the product stores and asks with."""
    places: dict[str, int] = {}
    for vector in (*texts, *images):
        for word in vector.features:
            places.setdefault(word, len(places))
    left, right = (np.zeros((len(vectors), len(places))) for vectors in (texts, images))
    for rows, vectors in ((left, texts), (right, images)):
        for row, vector in zip(rows, vectors, strict=True):
            row[[places[word] for word in vector.features]] = vector.weights
    return np.round(left @ right.T, 10)  # weights have 5 decimals: exact again, ties are ties


def conse_scores(encoder: Starter, gallery: Gallery) -> Scores:
    """Cosines of dense ConSE: the same networks without words."""
    dense = StarterDense(encoder)
    texts = dense.encode_texts_dense(list(gallery.queries))
    return (texts @ dense.encode_images_dense(gallery.pixels_BHWC).T).astype(np.float64)


def best_ranks(scores: Scores, gallery: Gallery) -> tuple[Ranks, Ranks]:
    """The rank of the best right image of each query, and of the best right text of each image."""
    concepts, asked = np.array(gallery.concepts), np.array(list(gallery.queries.values()))
    to_image = [ranks(row, np.flatnonzero(concepts == concept).tolist())[0] for row, concept in zip(scores, asked, strict=True)]
    to_text = [ranks(row, np.flatnonzero(asked == concept).tolist())[0] for row, concept in zip(scores.T, concepts, strict=True)]
    return np.array(to_image), np.array(to_text)


def recalls(found: Ranks) -> tuple[float, ...]:
    """R@1/5/10 in percent."""
    return tuple(round(100 * float((found <= cut).mean()), 1) for cut in CUTS)


def apart(ours: Ranks, theirs: Ranks, cut: int) -> tuple[float, float, float]:
    """How many points of R@cut ours is ahead, and the 95 % interval."""
    return tuple(round(value, 1) for value in interval([ours <= cut], [theirs <= cut]))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was measured on one gallery."""

    name: str
    queries: int
    gallery: int
    rows: Mapping[str, tuple[tuple[float, ...], ...]]
    """For each tower R@1/5/10, both ways."""
    gains: Mapping[str, tuple[float, float, float]]
    """Of stair-mini over the starter, both full: way and cut -> points, interval."""
    words: Mapping[str, tuple[float, float]]
    """Mean number of words of an image and of a text."""


def measure(gallery: Gallery) -> Table:
    """All towers on one gallery."""
    starter, mini = Starter(ModelSpec(name="starter")), StairMini(ModelSpec(name="stair-mini"))
    seen = {each.model_id: each.encode_images(gallery.pixels_BHWC) for each in (starter, mini)}
    towers = {
        FLOOR: starter,
        "stair-mini full": mini,
        "starter table": Starter(ModelSpec(name="starter", text_tower="table")),
        "stair-mini table": StairMini(ModelSpec(name="stair-mini", text_tower="table")),
        "starter, own words only": Starter(ModelSpec(name="starter"), expansion=NoExpansion()),
    }
    found, words = {}, {}
    for name, tower in towers.items():
        images, texts = seen[tower.model_id], tower.encode_texts(list(gallery.queries))
        found[name] = best_ranks(sparse_scores(texts, images), gallery)
        words[name] = tuple(round(float(np.mean([len(vector) for vector in side])), 1) for side in (images, texts))
    found["dense ConSE"] = best_ranks(conse_scores(starter, gallery), gallery)
    gains = {
        f"{way} R@{cut}": apart(found["stair-mini full"][side], found[FLOOR][side], cut)
        for side, way in enumerate(WAYS)
        for cut in CUTS[:2]
    }
    return Table(
        name=gallery.name,
        queries=len(gallery.queries),
        gallery=len(gallery.texts),
        rows={name: tuple(recalls(side) for side in both) for name, both in found.items()},
        gains=gains,
        words={name: (means[0], means[1]) for name, means in words.items()},
    )


def result(tables: Sequence[Table], backend: str) -> Result:
    """Tables, and the two ratios that count: on the photographs, which come first."""
    photos = tables[0].rows
    best, floor, dense = (photos[name][0][0] for name in ("stair-mini full", FLOOR, "dense ConSE"))
    return Result(
        about=f"R@1/5/10 in percent; networks on {backend}",
        tables=tuple(map(_lines, tables)),
        ratios=(
            Ratio(what=f"{OURS} of stair-mini", against="dense ConSE of the same networks", value=best / dense),
            Ratio(what=f"{OURS} of stair-mini", against="`starter`, which learned nothing", value=best / floor),
            Ratio(what=f"{OURS} of `starter`, in percent", against="", value=floor, goal=AT_LEAST[0]),
        ),
        remarks=tuple(
            f"stair-mini - starter, {table.name}, {name}: {gain:+.1f} [{low:+.1f}, {high:+.1f}]"
            for table in tables
            for name, (gain, low, high) in table.gains.items()
        ),
        figures={"tables": [asdict(table) for table in tables]},
    )


def _lines(table: Table) -> Lines:
    rows = (
        (name, *(" / ".join(f"{value:.1f}" for value in row) for row in both), " / ".join(map(str, table.words.get(name, ()))))
        for name, both in table.rows.items()
    )
    return Lines(
        heading=f"{table.name}: {table.queries} texts, {table.gallery} images",
        head=("", *WAYS, "words image / text"),
        rows=tuple(rows),
    )


def add_galleries(parser: argparse.ArgumentParser) -> None:
    """What is measured on."""
    parser.add_argument("--stamps", type=Path, help=f"where the Debian package {PACKAGE.name} is unpacked")
    parser.add_argument("--sets", type=Path, help="what benchmarks/small_sets/build.py made: its drawings are measured too")


def galleries(given: argparse.Namespace) -> list[Gallery]:
    """The photographs, and the drawings that were asked for."""
    drawings = [read_set(given.sets, name) for name in SETS] if given.sets else []
    with tempfile.TemporaryDirectory() as temporary:
        stamps = given.stamps or unpacked(PACKAGE, Path(temporary), Path(temporary))
        return [read_photos(stamps), *drawings]


def main() -> int:
    """The exit status: 1 if the full starter is below the floor."""
    parser = options(__doc__)
    add_galleries(parser)
    given = parser.parse_args()
    tables = [measure(gallery) for gallery in galleries(given)]
    publish(result(tables, Starter(ModelSpec(name="starter")).image_network.backend), given.json)
    return int(any(have < want for have, want in zip(tables[0].rows[FLOOR][0], AT_LEAST, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
