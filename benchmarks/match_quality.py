"""Measure cuts for weak matches: the hits that they keep and lose, on the bundled photographs and on those of a Debian package.

    python benchmarks/match_quality.py                   # fetches the Debian package, as model_quality.py does
    python benchmarks/match_quality.py --tuxpaint DIR    # uses an unpacked package

The form of the cut and its constants are chosen on the bundled photographs, with three kinds of queries: their captions, the
queries of `data/photo_queries.json` (half of them have no answer there), and the photographs themselves (photographs of the
same kind are answers to each other). The rule is the lowest cut, in steps of 0.05, at which nine of ten queries without an
answer show nothing above it. Photographs as queries show whether the same cut suits them.

The Debian package is used for reporting only. Each description is a query whose answers are the photographs with that
description. Then these photographs and all that share a word with it are left out, so that only relatives remain. The last
queries are those without an answer in the bundled photographs that share no word with a description. The model is stair-mini.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness.photos import PHOTOS, read_captions
from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from numpy.typing import NDArray
from retrieval.galleries import Gallery, add_gallery_options, read_galleries, read_pixels
from retrieval.ranks import Scores, compute_sparse_scores

from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.search.dsl.query_words import list_named_words
from stair_es.search.query import TokenGroup
from stair_es.types import SparseVector

QUERIES = Path(__file__).parent / "data" / "photo_queries.json"
_TINY = 1e-9
"""Stands for the length of an empty query, which has no score either."""
CUTS = np.round(np.arange(0.1, 0.96, 0.05), 2)
SHOWN_CUTS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
QUIET_GOAL = 0.9
NAMED_WEIGHT = 0.25
_WORD = re.compile(r"[a-z]+")
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Labeled:
    """Queries, documents, and the right answers."""

    queries: Sequence[SparseVector]
    documents: Sequence[SparseVector]
    answers_QD: Flags
    candidates_QD: Flags
    """The documents that are considered for a query."""
    words: Sequence[Sequence[TokenGroup]] = ()
    """The words of each query; empty for images."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Hits and queries that a cut keeps and loses, as shares."""

    precision: float
    """Share of right hits above the cut, over queries with an answer."""
    recall: float
    """Share of the answers that are above the cut."""
    answered: float
    """Share of queries with an answer that have one above the cut."""
    quiet: float
    """Share of queries without an answer that have nothing above the cut."""

    def to_cells(self) -> tuple[str, ...]:
        """Return the cells of a row, in percent."""
        return tuple("" if np.isnan(each) else f"{100 * each:.0f}" for each in vars(self).values())


HEAD = ("precision above, %", "answers above, %", "answered queries, %", "no answer: nothing above, %")


def compute_weight_shares(labeled: Labeled) -> Scores:
    """Return the share of the query's weight that is on tokens of the document."""
    ones = [SparseVector.from_pairs((token, 1.0) for token in vector.tokens) for vector in labeled.documents]
    totals = np.array([max(sum(vector.weights), _TINY) for vector in labeled.queries])
    shares: Scores = compute_sparse_scores(labeled.queries, ones) / totals[:, None]
    return shares


def compute_best_shares(labeled: Labeled) -> Scores:
    """Return the score as a share of the query's best."""
    scores = np.where(labeled.candidates_QD, compute_sparse_scores(labeled.queries, labeled.documents), 0)
    shares: Scores = scores / np.maximum(scores.max(axis=1, keepdims=True), _TINY)
    return shares


def compute_cosines(labeled: Labeled) -> Scores:
    """Return the score divided by the length of the query, because vectors of documents have length 1."""
    lengths = np.array([max(np.linalg.norm(vector.weights), _TINY) for vector in labeled.queries])
    cosines: Scores = compute_sparse_scores(labeled.queries, labeled.documents) / lengths[:, None]
    return cosines


def compute_named_weights(labeled: Labeled) -> Scores:
    """Return the smallest weight in the document among the words of the query; 0 for images."""
    weights_QD = np.zeros(labeled.answers_QD.shape)
    for query, words in enumerate(labeled.words):
        tokens = {token for word in words for token in word}
        for number, document in enumerate(map(dict, labeled.documents)):
            weights_QD[query, number] = min((document.get(token, 0.0) for token in tokens), default=0.0)
    return weights_QD


def compute_named_cosines(labeled: Labeled) -> Scores:
    """Return the score divided by the length of the query, or 1 if the document has every word of the query."""
    cosines: Scores = np.where(compute_named_weights(labeled) >= NAMED_WEIGHT, 1.0, compute_cosines(labeled))
    return cosines


FORMS: Mapping[str, Callable[[Labeled], Scores]] = {
    "score over the query's length": compute_cosines,
    "the same, or each word of the query": compute_named_cosines,
    "share of the best score": compute_best_shares,
    "share of the query's weight": compute_weight_shares,
    "geometric mean of the first and the last": lambda labeled: np.sqrt(
        compute_cosines(labeled) * compute_weight_shares(labeled)
    ),
}


def measure_cut(labeled: Labeled, values_QD: Scores, cut: float) -> Figures:
    """Measure the hits that a cut keeps and loses."""
    above_QD = (values_QD >= cut) & labeled.candidates_QD
    answers_QD, has_answer_Q = labeled.answers_QD, labeled.answers_QD.any(axis=1)
    right_QD = above_QD & answers_QD
    with np.errstate(invalid="ignore"):
        return Figures(
            precision=float(right_QD.sum() / np.float64(above_QD[has_answer_Q].sum())),
            recall=float(right_QD.sum() / np.float64(answers_QD.sum())),
            answered=float(np.float64(right_QD.any(axis=1).sum()) / np.float64(has_answer_Q.sum())),
            quiet=float(np.float64((~above_QD[~has_answer_Q].any(axis=1)).sum()) / np.float64((~has_answer_Q).sum())),
        )


def choose_cut(labeled: Labeled, values_QD: Scores) -> float | None:
    """Return the lowest cut at which few enough queries without an answer show a hit; None if there is none."""
    return next((float(cut) for cut in CUTS if measure_cut(labeled, values_QD, cut).quiet >= QUIET_GOAL), None)


def read_bundled(model: StairMiniEncoder) -> dict[str, Labeled]:
    """Read the bundled photographs with queries, captions and kinds."""
    captions, labels = read_captions(), json.loads(QUERIES.read_text(encoding="utf-8"))
    names = [Path(file).stem for file in captions]
    images = model.encode_images(read_pixels([PHOTOS / file for file in captions]))
    kinds = {name: set(kind) - {name} for kind in labels["kinds"] for name in kind}
    answers = {
        "queries": labels["queries"],
        "captions": {caption: [name] for name, caption in zip(names, captions.values(), strict=True)},
        "images": {name: kinds.get(name, ()) for name in names},
    }
    labeled = {}
    for name, answers_of in answers.items():
        flags_QD = np.array([[document in right for document in names] for right in answers_of.values()])
        is_image = name == "images"
        labeled[name] = Labeled(
            queries=images if is_image else model.encode_texts(list(answers_of)),
            documents=images,
            answers_QD=flags_QD,
            candidates_QD=~np.eye(len(names), dtype=bool) if is_image else np.ones_like(flags_QD),
            words=[] if is_image else [list_named_words(model, [text]) for text in answers_of],
        )
    return labeled


def label_gallery(model: StairMiniEncoder, gallery: Gallery) -> dict[str, Labeled]:
    """Label a gallery by its texts, and again without the pictures that could be answers."""
    stop_words = load_stop_words()
    words = [{word.rstrip("s") for word in _WORD.findall(text.lower()) if word not in stop_words} for text in gallery.texts]
    words_of = dict(zip(gallery.texts, words, strict=True))
    texts, images = list(gallery.queries), model.encode_images(gallery.pixels_BHWC)
    answers_QD = np.array([[text == other for other in gallery.texts] for text in texts])
    related_QD = np.array([[bool(words_of[text] & other) for other in words] for text in texts]) | answers_QD
    queries, named = model.encode_texts(texts), [list_named_words(model, [text]) for text in texts]
    none_QD, all_QD = np.zeros_like(answers_QD), np.ones_like(answers_QD)
    used = set().union(*words)
    absent = [
        query
        for query, answers in json.loads(QUERIES.read_text(encoding="utf-8"))["queries"].items()
        if not answers and not used & {word.rstrip("s") for word in _WORD.findall(query)}
    ]
    shape = (len(absent), len(images))
    return {
        "descriptions": Labeled(queries=queries, documents=images, answers_QD=answers_QD, candidates_QD=all_QD, words=named),
        "answers left out": Labeled(
            queries=queries, documents=images, answers_QD=none_QD, candidates_QD=~related_QD, words=named
        ),
        "queries about other things": Labeled(
            queries=model.encode_texts(absent),
            documents=images,
            answers_QD=np.zeros(shape, bool),
            candidates_QD=np.ones(shape, bool),
            words=[list_named_words(model, [query]) for query in absent],
        ),
    }


def tabulate_forms(labeled: Labeled) -> ReportTable:
    """Compare the forms of a cut, each at the value that the rule chooses."""
    rows = []
    for name, compute in FORMS.items():
        values_QD = compute(labeled)
        cut = choose_cut(labeled, values_QD)
        cells: tuple[str, ...] = (
            ("none",) + ("",) * len(HEAD) if cut is None else (f"{cut:.2f}", *measure_cut(labeled, values_QD, cut).to_cells())
        )
        rows.append((name, *cells))
    return ReportTable(heading="Bundled photographs, queries: the form", head=("form", "cut", *HEAD), rows=tuple(rows))


def tabulate_cuts(name: str, labeled: Labeled) -> ReportTable:
    """Measure cuts of the chosen form."""
    values_QD = compute_named_cosines(labeled)
    rows = tuple((f"{cut:.2f}", *measure_cut(labeled, values_QD, cut).to_cells()) for cut in SHOWN_CUTS)
    count = len(labeled.queries)
    heading = f"{name}: {count} queries, {int((~labeled.answers_QD.any(axis=1)).sum())} of them without an answer"
    return ReportTable(heading=heading, head=("score over the query's length, or each word", *HEAD), rows=rows)


def main() -> None:
    """Print the tables."""
    parser = build_parser(__doc__)
    add_gallery_options(parser)
    args = parser.parse_args()
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    bundled = read_bundled(model)
    tables = [tabulate_forms(bundled["queries"])]
    tables += [tabulate_cuts(f"Bundled photographs, {name}", labeled) for name, labeled in bundled.items()]
    for gallery in read_galleries(args):
        found = label_gallery(model, gallery)
        tables += [tabulate_cuts(f"{gallery.name}, {name}", labeled) for name, labeled in found.items()]
    remark = f"stair-mini: {model.match_thresholds}"
    publish_result(Result(about="stair-mini", tables=tuple(tables), remarks=(remark,)), args.json)


if __name__ == "__main__":
    main()
