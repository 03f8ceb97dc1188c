"""Compare stair-mini with the former default model and dense ConSE: retrieval, and whether people accept its tokens.

    python benchmarks/model_quality.py                 # fetches the Debian package (apt-get download, dpkg-deb -x)
    python benchmarks/model_quality.py --tuxpaint DIR    # uses DIR/usr/share/tuxpaint/stamps/... of an unpacked package
    python benchmarks/model_quality.py --sets SETS     # also on the drawings of small_sets/build.py

Text -> image: each distinct English description of the package is a query, and the photographs of `data/tuxpaint_photos.txt` are
the gallery. Image -> text is the reverse. An item is right if it has the same description (in the sets: the same concept). Ties
count against stair-es. The models were not trained on these pictures. The ranks of the former model were recorded in
`data/stair-mini-1.json`. Readability: the share of the heaviest tokens of the 40 example photographs that are in
`data/accept.json`, a list that a person wrote before seeing the tokens. The exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from harness.photos import list_photos
from harness.program import build_parser, publish_result
from harness.result import Ratio, Result
from harness.result import ReportTable as Lines
from retrieval.galleries import Gallery, add_gallery_options, read_galleries, read_pixels
from retrieval.ranks import (
    Ranks,
    compare_recalls,
    compute_best_ranks,
    compute_conse_scores,
    compute_recalls,
    compute_sparse_scores,
)

from stair_es.eval.metrics import RECALL_CUTS
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder

ACCEPTED, FORMER = (Path(__file__).parent / "data" / name for name in ("accept.json", "stair-mini-1.json"))
AT_LEAST = (36.0, 58.0, 65.0)
"""R@1/5/10 on the photographs."""
MOST_BELOW_FORMER = 2.0
"""Allowed loss of R@1 on a set of drawings, in points."""
READABLE = {"accepted of the 5 heaviest": 75.0, "accepted of the 10 heaviest": 62.0, "accepted of the heaviest": 82.0}
OURS, OLD, DENSE = "stair-mini full", "stair-mini-1 full", "dense ConSE"
DIRECTIONS = ("text -> image", "image -> text")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The measurements on one gallery."""

    name: str
    queries: int
    gallery: int
    rows: Mapping[str, tuple[tuple[float, ...], ...]]
    """R@1/5/10 of each tower, in both directions."""
    gains: Mapping[str, tuple[float, float, float]]
    """Gain of stair-mini over the former model: direction and cut -> points, interval."""
    words: Mapping[str, tuple[float, float]]
    """Mean number of tokens of an image and of a text."""


def read_former(name: str) -> dict[str, tuple[Ranks, Ranks]]:
    """Return the former model's ranks on a gallery, in both directions, by tower."""
    former = json.loads(FORMER.read_text(encoding="utf-8"))["ranks"][name]
    return {
        f"stair-mini-1 {tower}": (np.array(former[tower]["to_image"]), np.array(former[tower]["to_text"]))
        for tower in ("full", "table")
    }


def measure(gallery: Gallery) -> Table:
    """Measure all towers on one gallery."""
    model, light = (StairMiniEncoder(ModelSpec(name="stair-mini", text_tower=tower)) for tower in ("full", "table"))
    images = model.encode_images(gallery.pixels_BHWC)
    found, words = {}, {}
    for name, tower in ((OURS, model), ("stair-mini table", light)):
        texts = tower.encode_texts(list(gallery.queries))
        found[name] = compute_best_ranks(compute_sparse_scores(texts, images), gallery)
        words[name] = tuple(round(float(np.mean([len(vector) for vector in side])), 1) for side in (images, texts))
    found |= read_former(gallery.name)
    found[DENSE] = compute_best_ranks(compute_conse_scores(model, gallery), gallery)
    gains = {
        f"{direction} R@{cut}": compare_recalls(found[OURS][side], found[OLD][side], cut)
        for side, direction in enumerate(DIRECTIONS)
        for cut in RECALL_CUTS[:2]
    }
    return Table(
        name=gallery.name,
        queries=len(gallery.queries),
        gallery=len(gallery.texts),
        rows={name: tuple(compute_recalls(side) for side in both) for name, both in found.items()},
        gains=gains,
        words={name: (means[0], means[1]) for name, means in words.items()},
    )


def measure_readability(words: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the shares, in percent, of accepted words among the heaviest of the example photographs.

    Args:
        words: Tokens of each photograph, heaviest first.
    """
    accepted = {name: set(good) for name, good in json.loads(ACCEPTED.read_text(encoding="utf-8")).items()}
    shares = []
    for most in (5, 10, 1):
        hits = [word in accepted[name] for name, heaviest in words.items() for word in heaviest[:most]]
        shares.append(round(100 * float(np.mean(hits)), 1))
    return dict(zip(READABLE, shares, strict=True))


def read_example_words() -> dict[str, tuple[str, ...]]:
    """Return the ten heaviest words of each example photograph."""
    photos = list_photos()
    vectors = StairMiniEncoder(ModelSpec(name="stair-mini")).encode_images(read_pixels(photos))
    return {photo.stem: vector.tokens[:10] for photo, vector in zip(photos, vectors, strict=True)}


def build_result(tables: Sequence[Table], words: Mapping[str, Sequence[str]], backend: str) -> Result:
    """Return the tables and the ratios with a goal."""
    photos = tables[0].rows
    now, before = measure_readability(words), measure_readability(json.loads(FORMER.read_text(encoding="utf-8"))["tokens"])
    ratios = [
        Ratio(
            what="R@1 of stair-mini, text -> image, unseen photographs",
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
            what="word pieces among the ten heaviest tokens of the examples",
            against="",
            value=sum(word.startswith("##") for heaviest in words.values() for word in heaviest),
            goal=0,
            at_most=True,
        ),
    ]
    readable = Lines(
        heading="Accepted tokens of the 40 example photographs, in percent",
        head=("", *READABLE),
        rows=(("stair-mini", *map(str, now.values())), ("stair-mini-1", *map(str, before.values()))),
    )
    return Result(
        about=f"R@1/5/10 in percent; networks on {backend}",
        tables=(*map(_build_lines, tables), readable),
        ratios=tuple(ratios),
        remarks=tuple(
            f"stair-mini - stair-mini-1, {table.name}, {name}: {gain:+.1f} [{low:+.1f}, {high:+.1f}]"
            for table in tables
            for name, (gain, low, high) in table.gains.items()
        ),
        figures={"tables": [asdict(table) for table in tables], "readability": {"now": now, "before": before}, "words": words},
    )


def _build_lines(table: Table) -> Lines:
    rows = (
        (name, *(" / ".join(f"{value:.1f}" for value in row) for row in both), " / ".join(map(str, table.words.get(name, ()))))
        for name, both in table.rows.items()
    )
    return Lines(
        heading=f"{table.name}: {table.queries} texts, {table.gallery} images",
        head=("", *DIRECTIONS, "tokens image / text"),
        rows=tuple(rows),
    )


def main() -> int:
    """Return the exit status: 1 if a goal is missed."""
    parser = build_parser(__doc__)
    add_gallery_options(parser)
    args = parser.parse_args()
    tables = [measure(gallery) for gallery in read_galleries(args)]
    found = build_result(tables, read_example_words(), StairMiniEncoder(ModelSpec(name="stair-mini")).image_network.backend)
    publish_result(found, args.json)
    return int(not all(ratio.is_met for ratio in found.ratios))


if __name__ == "__main__":
    sys.exit(main())
