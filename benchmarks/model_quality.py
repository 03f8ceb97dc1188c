"""Quality of stair-mini beside the former default model and dense ConSE: retrieval, and whether people accept its words.

    python benchmarks/model_quality.py                 # fetches the Debian package (apt-get download, dpkg-deb -x)
    python benchmarks/model_quality.py --stamps DIR    # DIR/usr/share/tuxpaint/stamps/... of an unpacked package
    python benchmarks/model_quality.py --sets SETS     # also on the drawings of what small_sets/build.py made

Text -> image: each distinct English description of the package is a query, the photographs of `data/tuxpaint_photos.txt` are the
gallery. Image -> text: the other way round. What has the same description (in the sets: the same concept) counts as right; ties
count against us. The models have not learned from these pictures. The former model's ranks were recorded in
`data/stair-mini-1.json`. Readability: which of the heaviest words of the 40 example photographs are in `data/accept.json`, a list
that a person made before the words were seen. Exit status 1 if a goal is missed.
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
from result import ReportTable as Lines
from small_sets.fetch import PACKAGES, unpacked

from stair_es.eval.dense import ConseEncoder
from stair_es.eval.metrics import RECALL_CUTS, compute_ranks
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Pixels, SparseVector

PACKAGE = PACKAGES["tuxpaint"]
LIST = Path(__file__).parent / "data" / "tuxpaint_photos.txt"
ACCEPTED, FORMER = (Path(__file__).parent / "data" / name for name in ("accept.json", "stair-mini-1.json"))
EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"
AT_LEAST = (36.0, 58.0, 65.0)
"""R@1/5/10 on the photographs."""
SETS = ("test_drawings", "test_clipart", "test_style", "test_concepts")
MOST_BELOW_FORMER = 2.0
"""Points of R@1 that a set of drawings may lose."""
READABLE = {"5 heaviest accepted": 75.0, "10 heaviest accepted": 62.0, "heaviest accepted": 82.0}
OURS, OLD, DENSE = "stair-mini full", "stair-mini-1 full", "dense ConSE"
WAYS = ("text -> image", "image -> text")
PHOTOS = "photographs"

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
    return Gallery(name=PHOTOS, pixels_BHWC=_pixels(paths), texts=texts, concepts=texts)


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
    return np.stack([decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC for path in paths])


def sparse_scores(texts: Sequence[SparseVector], images: Sequence[SparseVector]) -> Scores:
    """The exact dot products [queries, gallery] of the vectors that the product stores and asks with."""
    places: dict[str, int] = {}
    for vector in (*texts, *images):
        for word in vector.tokens:
            places.setdefault(word, len(places))
    left, right = (np.zeros((len(vectors), len(places))) for vectors in (texts, images))
    for rows, vectors in ((left, texts), (right, images)):
        for row, vector in zip(rows, vectors, strict=True):
            row[[places[word] for word in vector.tokens]] = vector.weights
    return np.round(left @ right.T, 10)  # weights have 5 decimals: exact again, ties are ties


def conse_scores(encoder: StairMiniEncoder, gallery: Gallery) -> Scores:
    """Cosines of dense ConSE: the same networks without words."""
    dense = ConseEncoder(encoder)
    texts = dense.encode_texts_dense(list(gallery.queries))
    return (texts @ dense.encode_images_dense(gallery.pixels_BHWC).T).astype(np.float64)


def best_ranks(scores: Scores, gallery: Gallery) -> tuple[Ranks, Ranks]:
    """The rank of the best right image of each query, and of the best right text of each image."""
    concepts, asked = np.array(gallery.concepts), np.array(list(gallery.queries.values()))
    to_image = [
        compute_ranks(row, np.flatnonzero(concepts == concept).tolist())[0] for row, concept in zip(scores, asked, strict=True)
    ]
    to_text = [
        compute_ranks(row, np.flatnonzero(asked == concept).tolist())[0] for row, concept in zip(scores.T, concepts, strict=True)
    ]
    return np.array(to_image), np.array(to_text)


def recalls(found: Ranks) -> tuple[float, ...]:
    """R@1/5/10 in percent."""
    return tuple(round(100 * float((found <= cut).mean()), 1) for cut in RECALL_CUTS)


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
    """Of stair-mini over its former self: way and cut -> points, interval."""
    words: Mapping[str, tuple[float, float]]
    """Mean number of words of an image and of a text."""


def read_former(name: str) -> dict[str, tuple[Ranks, Ranks]]:
    """Return the former model's ranks on a gallery, both ways, by tower."""
    told = json.loads(FORMER.read_text(encoding="utf-8"))["ranks"][name]
    return {
        f"stair-mini-1 {tower}": (np.array(told[tower]["to_image"]), np.array(told[tower]["to_text"]))
        for tower in ("full", "table")
    }


def measure(gallery: Gallery) -> Table:
    """Return all towers on one gallery."""
    model, light = (StairMiniEncoder(ModelSpec(name="stair-mini", text_tower=tower)) for tower in ("full", "table"))
    images = model.encode_images(gallery.pixels_BHWC)
    found, words = {}, {}
    for name, tower in ((OURS, model), ("stair-mini table", light)):
        texts = tower.encode_texts(list(gallery.queries))
        found[name] = best_ranks(sparse_scores(texts, images), gallery)
        words[name] = tuple(round(float(np.mean([len(vector) for vector in side])), 1) for side in (images, texts))
    found |= read_former(gallery.name)
    found[DENSE] = best_ranks(conse_scores(model, gallery), gallery)
    gains = {
        f"{way} R@{cut}": apart(found[OURS][side], found[OLD][side], cut)
        for side, way in enumerate(WAYS)
        for cut in RECALL_CUTS[:2]
    }
    return Table(
        name=gallery.name,
        queries=len(gallery.queries),
        gallery=len(gallery.texts),
        rows={name: tuple(recalls(side) for side in both) for name, both in found.items()},
        gains=gains,
        words={name: (means[0], means[1]) for name, means in words.items()},
    )


def measure_readability(words: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the shares, in percent, of accepted words among the heaviest of the example photographs.

    Args:
        words: Of each photograph, heaviest first.
    """
    accepted = {name: set(good) for name, good in json.loads(ACCEPTED.read_text(encoding="utf-8")).items()}
    shares = []
    for most in (5, 10, 1):
        hits = [word in accepted[name] for name, heaviest in words.items() for word in heaviest[:most]]
        shares.append(round(100 * float(np.mean(hits)), 1))
    return dict(zip(READABLE, shares, strict=True))


def read_example_words() -> dict[str, tuple[str, ...]]:
    """Return the ten heaviest words of each example photograph."""
    names = sorted(path.stem for path in EXAMPLES.glob("*.jpg"))
    vectors = StairMiniEncoder(ModelSpec(name="stair-mini")).encode_images(_pixels([EXAMPLES / f"{name}.jpg" for name in names]))
    return {name: vector.tokens[:10] for name, vector in zip(names, vectors, strict=True)}


def result(tables: Sequence[Table], words: Mapping[str, Sequence[str]], backend: str) -> Result:
    """Return tables, and what has a goal."""
    photos = tables[0].rows
    now, before = measure_readability(words), measure_readability(json.loads(FORMER.read_text(encoding="utf-8"))["tokens"])
    ratios = [
        Ratio(
            what="R@1, text -> image, unseen photographs, of stair-mini",
            against="dense ConSE of the same networks",
            value=photos[OURS][0][0] / photos[DENSE][0][0],
        ),
        *(
            Ratio(what=f"R@{cut} of stair-mini on unseen photographs, in percent", against="", value=value, goal=goal)
            for cut, value, goal in zip(RECALL_CUTS, photos[OURS][0], AT_LEAST, strict=True)
        ),
        *(
            Ratio(
                what=f"R@1 of stair-mini on {each.name}, points ahead",
                against="stair-mini-1",
                value=gain,
                goal=-MOST_BELOW_FORMER,
            )
            for each in tables[1:]
            for gain in (round(each.rows[OURS][0][0] - each.rows[OLD][0][0], 1),)
        ),
        *(Ratio(what=f"{what}, in percent", against="", value=now[what], goal=goal) for what, goal in READABLE.items()),
        Ratio(
            what="word pieces among the ten heaviest of the examples",
            against="",
            value=sum(word.startswith("##") for heaviest in words.values() for word in heaviest),
            goal=0,
            at_most=True,
        ),
    ]
    readable = Lines(
        heading="Words of the 40 example photographs, in percent",
        head=("", *READABLE),
        rows=(("stair-mini", *map(str, now.values())), ("stair-mini-1", *map(str, before.values()))),
    )
    return Result(
        about=f"R@1/5/10 in percent; networks on {backend}",
        tables=(*map(_lines, tables), readable),
        ratios=tuple(ratios),
        remarks=tuple(
            f"stair-mini - stair-mini-1, {table.name}, {name}: {gain:+.1f} [{low:+.1f}, {high:+.1f}]"
            for table in tables
            for name, (gain, low, high) in table.gains.items()
        ),
        figures={"tables": [asdict(table) for table in tables], "readability": {"now": now, "before": before}, "words": words},
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
    """Return the exit status: 1 if a goal is missed."""
    parser = options(__doc__)
    add_galleries(parser)
    given = parser.parse_args()
    tables = [measure(gallery) for gallery in galleries(given)]
    found = result(tables, read_example_words(), StairMiniEncoder(ModelSpec(name="stair-mini")).image_network.backend)
    publish(found, given.json)
    return int(not all(ratio.met for ratio in found.ratios))


if __name__ == "__main__":
    sys.exit(main())
