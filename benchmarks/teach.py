"""Measure how well marked pictures teach the model a word that it lacks.

    python benchmarks/teach.py                                    # fetches the pictures from GitHub, 280 MB
    python benchmarks/teach.py --pictures DIR --vectors FILE.npz  # keeps them, and the vectors, for the next run

`data/teach.tsv` lists the pictures: of each folder the first by a hash of their names, and the concept that they show. All of
them are one gallery. In each draw some pictures of a concept are marked at random, and the others are ranked. A word is fitted to
the marks and to a sample of the other pictures; that some of those show the concept isn't told.

Words of which the text finds little (average precision below 0.5) are in two groups, split by a hash: the fit was tuned on one,
and the goal is for the other. A third group are the other words, which need no teaching.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TypeAlias

import numpy as np
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from numpy.typing import NDArray
from retrieval.galleries import read_pixels
from retrieval.ranks import Scores
from small_sets.concepts import SOURCES, fetch_sources, read_folders

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import UsageError
from stair_es.eval.metrics import InvertedIndex, compute_ranks
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.optional import import_optional
from stair_es.taught_words import MATCH_WEIGHT
from stair_es.teaching.fit import fit_word
from stair_es.types import Floats, SparseVector

BATCH = 16
MARKS = (3, 5, 10)
HEADLINE = 5
SAMPLE = 1000
GOAL = 3.0
GROUPS = {"report": "not tuned on", "tune": "tuned on", "known": "known words"}
TEXT, WORD, TOKEN, BOTH = "text", "word", "token", "text + token"
CENTROID, LOGISTIC = "dense centroid", "dense logistic"
MATCH_COLUMNS = ("precision", "recall", "share with the token", "estimate: correlation", "estimate - real", "worse", "no word")
ARMS = (TEXT, WORD, TOKEN, BOTH, CENTROID, LOGISTIC, f"{CENTROID}, int8", f"{LOGISTIC}, int8")


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures, encoded."""

    concepts: tuple[str, ...]
    vectors: tuple[SparseVector, ...]
    features_ND: Floats
    """Features of the classifier."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one draw of marks found."""

    marks: int
    precisions: Mapping[str, float]
    """Arm -> average precision over the pictures that aren't marked."""
    estimate: float | None
    """The estimate of the fit; None if no word could be fitted."""
    matches: int
    right_matches: int
    right: int
    """Pictures that aren't marked and show the concept."""
    share: float
    """Share of the pictures that aren't marked and get the token."""


Found: TypeAlias = Mapping[str, Sequence[Draw]]
"""Concept -> its draws."""


def read_gallery(encoder: StairMiniEncoder, args: argparse.Namespace) -> Gallery:
    """Read the vectors of an earlier run, or encode the pictures."""
    if args.vectors and args.vectors.is_file():
        with np.load(args.vectors) as values:
            vectors = tuple(map(SparseVector.from_mapping, json.loads(str(values["vectors"]))))
            return Gallery(concepts=tuple(values["concepts"].tolist()), vectors=vectors, features_ND=values["features"])
    with tempfile.TemporaryDirectory() as temporary:
        gallery = encode_pictures(encoder, args.pictures or Path(temporary))
    if args.vectors:
        values = {"concepts": np.array(gallery.concepts), "features": gallery.features_ND}
        np.savez(args.vectors, vectors=json.dumps([vector.to_dict() for vector in gallery.vectors]), **values)
    return gallery


def encode_pictures(encoder: StairMiniEncoder, to: Path) -> Gallery:
    """Encode all pictures, fetching those that aren't in the folder."""
    folders = read_folders()
    sources = fetch_sources(folders, to)
    pictures = [(file, each.concept) for each in folders for file in each.list_files(sources)]
    vectors, features = [], []
    for start in range(0, len(pictures), BATCH):
        outputs = encoder.run_image_network(read_pixels([file for file, _ in pictures[start : start + BATCH]]))
        vectors += encoder.encode_image_outputs(outputs)
        features.append(outputs.classifier_output.features_BD)
    concepts = tuple(concept for _, concept in pictures)
    return Gallery(concepts=concepts, vectors=tuple(vectors), features_ND=np.concatenate(features))


def scale_rows(rows_ND: Floats) -> Floats:
    """Return the rows with length 1."""
    return np.asarray(rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True), dtype=np.float32)


def quantize_rows(rows_ND: Floats) -> Floats:
    """Return the rows as one byte per feature tells them."""
    scales_N1 = np.abs(rows_ND).max(axis=1, keepdims=True) / 127
    return scale_rows(np.round(rows_ND / scales_N1).astype(np.int8).astype(np.float32))


def rank_by_centroid(features_ND: Floats, marked: Sequence[int], sample: Sequence[int]) -> Scores:
    """Return the dot products with the mean of the marked pictures."""
    return np.asarray(features_ND @ features_ND[list(marked)].mean(axis=0), dtype=np.float64)


def rank_by_logistic(features_ND: Floats, marked: Sequence[int], sample: Sequence[int]) -> Scores:
    """Return the scores of a logistic regression of the marked pictures against the sample; both have the same total weight."""
    model = import_optional("sklearn.linear_model", "eval").LogisticRegression(class_weight="balanced")
    model.fit(features_ND[[*marked, *sample]], np.repeat([1, 0], [len(marked), len(sample)]))
    return np.asarray(model.decision_function(features_ND), dtype=np.float64)


class Bench:
    """The gallery, prepared for many draws."""

    def __init__(self, gallery: Gallery, encoder: StairMiniEncoder) -> None:
        """Prepare the ways to rank."""
        self.gallery = gallery
        self.groups = {each.concept: each.group for each in read_folders() if each.concept}
        """Concept -> group."""
        self._queries = dict(zip(self.groups, encoder.encode_texts([*self.groups]), strict=True))
        features_ND = scale_rows(gallery.features_ND)
        kinds = {"": features_ND, ", int8": quantize_rows(features_ND)}
        ways: Mapping[str, Callable[..., Scores]] = {CENTROID: rank_by_centroid, LOGISTIC: rank_by_logistic}
        self._dense = {f"{name}{kind}": partial(way, rows_ND) for kind, rows_ND in kinds.items() for name, way in ways.items()}
        self._index = InvertedIndex(gallery.vectors)

    def run_draws(self, concept: str, count: int) -> list[Draw]:
        """Draw marks, and rank the other pictures in each way."""
        random = np.random.default_rng([*concept.encode()])
        right = [place for place, other in enumerate(self.gallery.concepts) if other == concept]
        marks = [random.permutation(right)[:most].tolist() for most in MARKS for _ in range(count)]
        return [self._run_draw(concept, marked, random) for marked in marks]

    def _run_draw(self, concept: str, marked: Sequence[int], random: np.random.Generator) -> Draw:
        others = [place for place in range(len(self.gallery.vectors)) if place not in marked]
        sample = random.permutation(others)[:SAMPLE].tolist()
        is_right_N = np.array([self.gallery.concepts[place] == concept for place in others])
        text_N = self._index.compute_scores(self._queries[concept])
        yes, rest = ([self.gallery.vectors[place] for place in places] for places in (marked, sample))
        try:
            word = fit_word(yes, [], rest)
        except UsageError:
            word = None
        scores = {TEXT: text_N, **{name: rank(marked, sample) for name, rank in self._dense.items()}}
        weights_N = np.zeros(len(text_N))
        if word:
            scores[WORD] = self._index.compute_scores(SparseVector.from_mapping(word.tokens))
            weights_N = np.clip((scores[WORD] - word.floor) / (word.full - word.floor), 0, 1)
            scores |= {TOKEN: weights_N, BOTH: text_N + weights_N}
        is_match_N = weights_N[others] >= MATCH_WEIGHT
        return Draw(
            marks=len(marked),
            precisions={arm: compute_precision(scores.get(arm, text_N)[others], is_right_N) for arm in ARMS},
            estimate=word.precision if word else None,
            matches=int(is_match_N.sum()),
            right_matches=int((is_match_N & is_right_N).sum()),
            right=int(is_right_N.sum()),
            share=float((weights_N[others] > 0).mean()),
        )


def compute_precision(scores_N: Scores, is_right_N: NDArray[np.bool_]) -> float:
    """Return the average precision. Ties count against it."""
    ranks = compute_ranks(np.round(scores_N, 10), np.flatnonzero(is_right_N).tolist())
    return fmean(place / rank for place, rank in enumerate(ranks, 1))


def average_precision(draws: Iterable[Draw], arm: str, marks: int = HEADLINE) -> float:
    """Return the mean over the draws with this many marks."""
    return fmean(draw.precisions[arm] for draw in draws if draw.marks == marks)


def compute_median(found: Found, arm: str, marks: int = HEADLINE) -> float:
    """Return the median over the concepts."""
    return median(average_precision(draws, arm, marks) for draws in found.values())


def tabulate_medians(found: Found, heading: str) -> ReportTable:
    """Return the medians of each arm."""
    rows = tuple((arm, *(f"{compute_median(found, arm, marks):.3f}" for marks in MARKS)) for arm in ARMS)
    return ReportTable(heading=heading, head=("ranked by", *(f"{marks} marks" for marks in MARKS)), rows=rows)


def tabulate_matches(found: Found, heading: str) -> ReportTable:
    """Return what matches, and how good the estimate of the fit is."""
    rows = tuple(describe_matches(found, marks) for marks in MARKS)
    return ReportTable(heading=heading, head=("marks", *MATCH_COLUMNS), rows=rows)


def describe_matches(found: Found, marks: int) -> tuple[str, ...]:
    """Return the row of `MATCH_COLUMNS`."""
    of_concepts = [[draw for draw in draws if draw.marks == marks] for draws in found.values()]
    draws = [draw for each in of_concepts for draw in each]
    fitted = [(draw.estimate, draw.precisions[TOKEN]) for draw in draws if draw.estimate is not None]
    estimates, real = np.array(fitted).T
    values = (
        fmean(sum(draw.right_matches for draw in each) / max(sum(draw.matches for draw in each), 1) for each in of_concepts),
        fmean(draw.right_matches / draw.right for draw in draws),
        fmean(draw.share for draw in draws),
        np.corrcoef(estimates, real)[0, 1],
        (estimates - real).mean(),
    )
    worse = sum(average_precision(each, TOKEN, marks) < average_precision(each, TEXT, marks) for each in of_concepts)
    return (str(marks), *(f"{value:.3f}" for value in values), f"{worse} of {len(found)}", str(len(draws) - len(fitted)))


def tabulate_concepts(bench: Bench, found: Found, encoder: StairMiniEncoder) -> ReportTable:
    """Return the average precision of each concept, and where its words are known: to the image networks, or only in texts."""
    rows = []
    for concept, draws in found.items():
        is_seen, is_unknown = {*concept.split()} <= {*encoder.photo_tokens}, encoder.list_unknown_words(concept)
        known = "in images" if is_seen else "no" if is_unknown else "in texts"
        columns = [
            (TEXT, HEADLINE),
            *((TOKEN, marks) for marks in MARKS),
            *((arm, HEADLINE) for arm in (BOTH, CENTROID, LOGISTIC)),
        ]
        values = (f"{average_precision(draws, arm, marks):.2f}" for arm, marks in columns)
        rows.append((concept, GROUPS[bench.groups[concept]], known, str(bench.gallery.concepts.count(concept)), *values))
    head = ("concept", "group", "known", "pictures", TEXT, *(f"{TOKEN}, {marks}" for marks in MARKS), BOTH, CENTROID, LOGISTIC)
    return ReportTable(heading=f"Average precision of each concept, {HEADLINE} marks", head=head, rows=tuple(rows))


def compare_medians(found: Found, against: str) -> Ratio:
    """Return how much better the taught words are than the text."""
    ratio = compute_median(found, TOKEN) / compute_median(found, TEXT)
    what = f"median average precision, {HEADLINE} marks, {len(found)} concepts"
    return Ratio(what=what, against=against, value=ratio, goal=GOAL)


def build_result(bench: Bench, found: Found, encoder: StairMiniEncoder) -> Result:
    """Build the tables and the ratios."""
    groups = {name: {each: found[each] for each in found if bench.groups[each] == name} for name in GROUPS}
    reported = groups["report"]
    known = {each: draws for each, draws in reported.items() if not encoder.list_unknown_words(each)}
    tables: list[ReportTable] = []
    for name, group in groups.items():
        tables.append(tabulate_medians(group, f"Median average precision of {len(group)} concepts, {GROUPS[name]}"))
        tables.append(tabulate_matches(group, f"Matches, {GROUPS[name]}"))
    return Result(
        about=f"{len(bench.gallery.vectors)} pictures; {len(found)} concepts; {sum(map(len, found.values()))} draws",
        tables=(*tables, tabulate_concepts(bench, found, encoder)),
        ratios=(compare_medians(reported, "the word as text"), compare_medians(known, "the same, known in texts")),
        remarks=(
            f"{WORD}: the dot product with the fitted word; {TOKEN}: the weight that is stored; {BOTH}: their sum with the text",
            f"a match has at least the weight {MATCH_WEIGHT:g}; marked pictures are never counted",
            f"dense: the {bench.gallery.features_ND.shape[1]} features of the classifier; int8: stored in a byte each",
            "where no word could be fitted, the text ranks",
            *(f"{package.name}: {package.license}; {package.credit}" for package in SOURCES.values()),
        ),
        figures={"draws": {concept: [asdict(draw) for draw in draws] for concept, draws in found.items()}},
    )


def main() -> None:
    """Measure, and print and keep the result."""
    parser = build_parser(__doc__)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="keep the pictures here, and use those that are there")
    parser.add_argument("--vectors", type=Path, metavar="FILE", help="file for the vectors (.npz): read if there, else written")
    parser.add_argument("--draws", type=int, default=20, help="draws for each concept and number of marks (default: %(default)s)")
    args = parser.parse_args()
    encoder = StairMiniEncoder(ModelSpec(name=DEFAULT_MODEL))
    bench = Bench(read_gallery(encoder, args), encoder)
    found = {concept: bench.run_draws(concept, args.draws) for concept in bench.groups}
    publish_result(build_result(bench, found, encoder), args.json)


if __name__ == "__main__":
    main()
