"""Compare stair-mini with the former default model and dense ConSE: retrieval, and whether people accept its tokens.

    python benchmarks/model_quality.py                 # fetches the Debian package (apt-get download, dpkg-deb -x)
    python benchmarks/model_quality.py --tuxpaint DIR    # uses DIR/usr/share/tuxpaint/stamps/... of an unpacked package
    python benchmarks/model_quality.py --sets SETS     # also on the drawings of small_sets/build.py

Text -> image: each distinct English description of the package is a query, and the photographs of `data/tuxpaint_photos.txt` are
the gallery. Image -> text is the reverse. An item is right if it has the same description (in the sets: the same concept). Ties
count against stair-es. The models were not trained on these pictures. The ranks of the former model were recorded in
`data/stair-mini-1.json`. Accepted tokens: the share of a photograph's heaviest tokens in a list that a person wrote before
seeing the tokens: for `data/unseen`, by which nothing was chosen, and for the example photographs, by which values were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
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

from stair_es.eval.datasets.captions import WordLists, read_word_lists
from stair_es.eval.metrics import RECALL_CUTS
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import ImageOutputs, StairMiniEncoder

DATA = Path(__file__).parent / "data"
FORMER = DATA / "stair-mini-1.json"
AT_LEAST = (36.0, 59.9, 68.0)
"""R@1/5/10 on the photographs."""
MOST_BELOW_FORMER = 2.0
"""Allowed loss of R@1 on a set of drawings, in points."""
READABLE = {
    "unseen photographs": ("accepted_unseen.jsonl", {5: 72.0, 1: 88.0}),
    "example photographs": ("accepted_examples.jsonl", {5: 84.5, 1: 92.5}),
}
"""Lists of accepted tokens, and the least percent of the 5 heaviest and of the heaviest that shall be accepted."""
ACCEPTED_OF = (5, 10, 1)
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
    drawn: float
    """Share of images taken for drawings, in percent."""


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
    outputs = model.run_image_network(gallery.pixels_BHWC)
    images = model.encode_image_outputs(outputs)
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
        drawn=compute_drawn_share(model, outputs),
    )


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What stair-mini reads in a set of photographs."""

    tokens: Mapping[str, tuple[str, ...]]
    """The ten heaviest tokens of each photograph."""
    accepted: Mapping[int, float]
    """Share of accepted ones among the 5, 10 and 1 heaviest, in percent."""
    drawn: float
    """Share of photographs taken for drawings, in percent."""


def compute_drawn_share(model: StairMiniEncoder, outputs: ImageOutputs) -> float:
    """Compute the share of images that the model takes for drawings, at least partly, in percent."""
    pairs = zip(outputs.small_BHWC, outputs.classifier_output.features_BD, strict=True)
    return round(100 * float(np.mean([model.compute_head_share(*pair) > 0 for pair in pairs])), 1)


def measure_readings(lists: WordLists) -> Readings:
    """Measure how many of the heaviest tokens of photographs are accepted. A token that isn't there doesn't count."""
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    accepted = {Path(image.name).stem: image.accepted for image in lists.images}
    outputs = model.run_image_network(read_pixels([DATA / image.name for image in lists.images]))
    tokens = {name: vector.tokens[:10] for name, vector in zip(accepted, model.encode_image_outputs(outputs), strict=True)}
    shares = {
        most: float(np.mean([token in accepted[name] for name, heaviest in tokens.items() for token in heaviest[:most]]))
        for most in ACCEPTED_OF
    }
    return Readings(
        tokens=tokens,
        accepted={most: round(100 * share, 1) for most, share in shares.items()},
        drawn=compute_drawn_share(model, outputs),
    )


def measure_sets() -> dict[str, Readings]:
    """Measure both sets of photographs."""
    return {name: measure_readings(read_word_lists(DATA / file)) for name, (file, _) in READABLE.items()}


def build_result(tables: Sequence[Table], readings: Mapping[str, Readings], backend: str) -> Result:
    """Return the tables and the ratios with a goal."""
    photos = tables[0].rows
    ratios = [
        Ratio(
            what="R@1 of stair-mini, text -> image, described photographs",
            against="dense ConSE of the same networks",
            value=photos[OURS][0][0] / photos[DENSE][0][0],
        ),
        *(
            Ratio(what=f"R@{cut} of stair-mini on described photographs, in percent", against="", value=value, goal=goal)
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
        *(
            Ratio(
                what=f"accepted of the {most} heaviest, {name}, in percent",
                against="",
                value=readings[name].accepted[most],
                goal=goal,
            )
            for name, (_, goals) in READABLE.items()
            for most, goal in goals.items()
        ),
    ]
    readable = Lines(
        heading="Accepted tokens and photographs taken for drawings, in percent",
        head=("", *(f"accepted of the {most} heaviest" for most in ACCEPTED_OF), "drawings"),
        rows=tuple(
            (f"{name} ({len(each.tokens)})", *map(str, each.accepted.values()), str(each.drawn))
            for name, each in readings.items()
        ),
    )
    return Result(
        about=f"R@1/5/10 in percent; networks on {backend}",
        tables=(readable, *map(_build_lines, tables)),
        ratios=tuple(ratios),
        remarks=tuple(
            f"stair-mini - stair-mini-1, {table.name}, {name}: {gain:+.1f} [{low:+.1f}, {high:+.1f}]"
            for table in tables
            for name, (gain, low, high) in table.gains.items()
        ),
        figures={
            "tables": [asdict(table) for table in tables],
            "readings": {name: asdict(each) for name, each in readings.items()},
        },
    )


def _build_lines(table: Table) -> Lines:
    rows = (
        (name, *(" / ".join(f"{value:.1f}" for value in row) for row in both), " / ".join(map(str, table.words.get(name, ()))))
        for name, both in table.rows.items()
    )
    return Lines(
        heading=f"{table.name}: {table.queries} texts, {table.gallery} images, {table.drawn} % taken for drawings",
        head=("", *DIRECTIONS, "tokens image / text"),
        rows=tuple(rows),
    )


def main() -> None:
    """Measure, and print and keep the result."""
    parser = build_parser(__doc__)
    add_gallery_options(parser)
    args = parser.parse_args()
    tables = [measure(gallery) for gallery in read_galleries(args)]
    found = build_result(tables, measure_sets(), StairMiniEncoder(ModelSpec(name="stair-mini")).image_network.backend)
    publish_result(found, args.json)


if __name__ == "__main__":
    main()
