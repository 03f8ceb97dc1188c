"""How far labels from elsewhere can be trusted: by the words of the model, by the pictures themselves, and by marks of people.

- **Agreement**: the images with a label are ranked by the text of the label among all others. It is the probability that one with
  it comes before one without (the area under the ROC curve; ties count half): 0.5 is chance. If wrongly labeled images rank like
  those without the label, at least 2 x area - 1 of the labeled ones are right.
- **Coherence**: the same, ranked by the mean vector of the other images with the label. It needs no word of the model.
- **Precision**: the share of marked images that are right.

Shape suffixes: N images.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import parse_labels, parse_token_vector
from stair_es.cluster.index.labels import scan_labels
from stair_es.errors import DatasetError, UsageError
from stair_es.eval.metrics import Doubles, InvertedIndex
from stair_es.feature_names import normalize_label
from stair_es.labels.importer import list_reference_keys
from stair_es.labels.rows import find_references, open_label_source
from stair_es.search.dsl.select import TOKENS_FIELD
from stair_es.sources.base import ListingFailure
from stair_es.types import ProgressCallback, SparseVector

MIN_IMAGES, MIN_MARKS, MIN_FLOOR_IMAGES = 5, 5, 10
"""With fewer images, marks, or images or marks above a floor, nothing is said."""
_FLOORS = (0.0, *(percent / 100 for percent in range(50, 100, 5)))
"""Confidences below which a label may be rejected."""
_CHANCE, _REJECTED_AREA, _Z95 = 0.5, 0.65, 1.96
_YES, _NO = ("true", "yes", "1", "right", "correct"), ("false", "no", "0", "wrong", "incorrect")
LabelVerdict: TypeAlias = Literal["keep", "keep from", "reject", "unclear"]
LabelMark: TypeAlias = tuple[tuple[str, ...], str, bool]
"""References to an image, a label, and whether the label is right."""


@dataclass(frozen=True, kw_only=True)
class LabelTargets:
    """What a label must reach to be kept."""

    area: float = 0.85
    """Agreement, or coherence for a label whose words the model doesn't know."""
    precision: float = 0.9


@dataclass(kw_only=True)
class LabeledCorpus:
    """The images of an index that have labels."""

    keys: list[tuple[tuple[str, str], ...]] = field(default_factory=list)
    """What may name each image, as `list_reference_keys` returns it."""
    vectors: list[SparseVector] = field(default_factory=list)
    labels: list[SparseVector] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """The evidence for one label, and what follows from it."""

    label: str
    images: int
    mean_weight: float
    agreement: float | None
    """None if the model knows none of its words, or too few images have it."""
    coherence: float | None
    marks: int
    precision: float | None
    """None without marks."""
    verdict: LabelVerdict
    floor: float | None = None
    """Confidence from which it can be kept, for `keep from`."""
    basis: Literal["marks", "agreement", "coherence", "none"] = "none"
    """What the verdict follows from."""


def collect_labeled_images(
    cluster: Cluster, index: str, progress: ProgressCallback = lambda done, total: None, limit: int | None = None
) -> LabeledCorpus:
    """Collect the images of an index that have labels, which count as they were imported, without the effects of a policy.

    Raises:
        DatasetError: If there are none.
        ClusterError: If the cluster fails.
    """
    corpus = LabeledCorpus()
    for sources in scan_labels(cluster, index, ["name", TOKENS_FIELD]):
        for id_, source in islice(sources.items(), None if limit is None else limit - len(corpus.keys)):
            named = (("_id", id_), ("uri", str(source.get("uri", ""))), ("name", str(source.get("name", ""))))
            corpus.keys.append(named)
            corpus.vectors.append(parse_token_vector(source.get(TOKENS_FIELD)))
            corpus.labels.append(parse_labels(source))
        progress(len(corpus.keys), limit or 0)
        if limit is not None and len(corpus.keys) >= limit:
            break
    if not corpus.keys:
        raise DatasetError(
            f"no image of {index!r} has labels", f"Import some: stair-es ingest-labels FILE --index {index}", code="no-labels"
        )
    return corpus


def read_label_marks(argument: str) -> list[LabelMark]:
    """Read marks of people: rows with an image, a `label`, and `right` (true or false).

    Raises:
        DatasetError: If a row is something else; names the row.
        UsageError: If there is no such file, or its name shows no format.
    """
    marks = []
    for item in open_label_source(argument).list_items():
        if isinstance(item, ListingFailure):
            raise DatasetError(f"{item.uri}: {item.reason}", "Mend the row, or remove it.", code="marks-unreadable")
        label, right = item.fields.get("label"), str(item.fields.get("right", "")).strip().lower()
        references = tuple(find_references(item.fields))
        if not (references and isinstance(label, str) and label.strip()) or right not in (*_YES, *_NO):
            raise DatasetError(
                f"{item.uri}: a mark needs an image, a `label`, and `right` (true or false)",
                'Write it like {"uri": "photos/cat.jpg", "label": "cat", "right": true}.',
                code="not-a-label-mark",
            )
        marks.append((references, normalize_label(label), right in _YES))
    return marks


def assess_labels(
    corpus: LabeledCorpus,
    encode_label: Callable[[str], SparseVector],
    marks: Sequence[LabelMark] = (),
    targets: LabelTargets = LabelTargets(),
    progress: ProgressCallback = lambda done, total: None,
) -> Iterator[LabelRow]:
    """Yield the evidence for each label, the most frequent one first. `encode_label` returns an empty vector if it can't."""
    index = InvertedIndex(corpus.vectors)
    places, weights = _group_by_label(corpus.labels)
    marked = _match_marks(corpus, marks)
    order = sorted(places, key=lambda label: (-len(places[label]), label))
    for done, label in enumerate(order, 1):
        yield _assess_label(label, _Evidence(corpus, index, places[label], weights[label], marked[label]), encode_label, targets)
        progress(done, len(order))


@dataclass(frozen=True)
class _Evidence:
    corpus: LabeledCorpus
    index: InvertedIndex
    places_N: Sequence[int]
    """The images with the label."""
    weights_N: Sequence[float]
    marks: Mapping[int, bool]
    """Place in the corpus -> whether the label is right."""

    @property
    def has_both(self) -> bool:
        """Whether there are images with the label, and without it."""
        return min(len(self.places_N), len(self.corpus.vectors) - len(self.places_N)) >= MIN_IMAGES

    def compute_coherence_scores(self) -> Doubles:
        """Compute the scores of all images by the mean of the images with the label, each without itself."""
        sums: Counter[str] = Counter()
        for place in self.places_N:
            sums.update(self.corpus.vectors[place].to_dict())
        count = len(self.places_N)
        scores_N = self.index.compute_scores(SparseVector.from_pairs(sums.items())) / count
        for place in self.places_N:
            square = math.fsum(weight * weight for _, weight in self.corpus.vectors[place])
            scores_N[place] = (scores_N[place] * count - square) / (count - 1)
        return scores_N

    def select_places(self, floor: float) -> list[int]:
        """Return the images with at least this confidence."""
        return [place for place, weight in zip(self.places_N, self.weights_N, strict=True) if weight >= floor]


class _Separation:
    """How well scores tell the images with a label from those without it."""

    def __init__(self, scores_N: Doubles, evidence: _Evidence) -> None:
        without = np.ones(len(scores_N), dtype=bool)
        without[list(evidence.places_N)] = False
        self._evidence, self._scores_N, self._others = evidence, scores_N, np.sort(scores_N[without])
        self.area = self._compute_area(evidence.places_N)

    def _compute_area(self, places: Sequence[int]) -> float:
        """Compute the area under the ROC curve of some of the labeled images."""
        own = self._scores_N[list(places)]
        below = np.searchsorted(self._others, own, side="left") + np.searchsorted(self._others, own, side="right")
        return float(below.mean() / 2 / len(self._others))

    def find_floor(self, target: float) -> float | None:
        """Find the lowest confidence from which the area reaches a target, by more than chance."""
        for floor in _FLOORS:
            chosen = self._evidence.select_places(floor)
            if floor and len(chosen) < MIN_FLOOR_IMAGES:
                return None
            area = self._compute_area(chosen)
            if area >= target and area - _Z95 * _compute_standard_error(area, len(chosen), len(self._others)) > _CHANCE:
                return floor
        return None

    @property
    def is_low(self) -> bool:
        """Whether the area is certainly low."""
        error = _compute_standard_error(self.area, len(self._evidence.places_N), len(self._others))
        return self.area + _Z95 * error < _REJECTED_AREA


def _assess_label(
    label: str, evidence: _Evidence, encode_label: Callable[[str], SparseVector], targets: LabelTargets
) -> LabelRow:
    by_text = by_pictures = None
    if evidence.has_both:
        by_pictures = _Separation(evidence.compute_coherence_scores(), evidence)
        text = encode_label(label)
        by_text = _Separation(evidence.index.compute_scores(text), evidence) if len(text) else None
    row = LabelRow(
        label=label,
        images=len(evidence.places_N),
        mean_weight=math.fsum(evidence.weights_N) / len(evidence.weights_N),
        agreement=None if by_text is None else by_text.area,
        coherence=None if by_pictures is None else by_pictures.area,
        marks=len(evidence.marks),
        precision=sum(evidence.marks.values()) / len(evidence.marks) if evidence.marks else None,
        verdict="unclear",
    )
    if len(evidence.marks) >= MIN_MARKS:
        _, most = _compute_wilson_interval(sum(evidence.marks.values()), len(evidence.marks))
        floor = _find_precise_floor(evidence, targets.precision)
        return _judge(row, "marks", floor, is_rejected=most < targets.precision)
    if by_pictures is None:
        return row
    is_rejected = by_pictures.is_low and (by_text is None or by_text.is_low)
    if by_text is None:
        return _judge(row, "coherence", by_pictures.find_floor(targets.area), is_rejected=is_rejected)
    return _judge(row, "agreement", by_text.find_floor(targets.area), is_rejected=is_rejected)


def _judge(
    row: LabelRow, basis: Literal["marks", "agreement", "coherence"], floor: float | None, *, is_rejected: bool
) -> LabelRow:
    verdict: LabelVerdict = "unclear"
    if floor is None and is_rejected:
        verdict = "reject"
    elif floor is not None:
        verdict = "keep from" if floor else "keep"
    return replace(row, verdict=verdict, floor=floor or None, basis=basis)


def _find_precise_floor(evidence: _Evidence, target: float) -> float | None:
    """Find the lowest confidence from which enough marks are right; above 0 they must be so by more than all of them are."""
    share = sum(evidence.marks.values()) / len(evidence.marks)
    for floor in _FLOORS:
        found = [evidence.marks[place] for place in evidence.select_places(floor) if place in evidence.marks]
        if len(found) < (MIN_FLOOR_IMAGES if floor else MIN_MARKS):
            return None
        least, _ = _compute_wilson_interval(sum(found), len(found))
        if sum(found) >= target * len(found) and (not floor or least > share):
            return floor
    return None


def _compute_wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share: Wilson 1927."""
    share, square = right / count, _Z95 * _Z95
    middle = share + square / (2 * count)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return (middle - half) / (1 + square / count), (middle + half) / (1 + square / count)


def _compute_standard_error(area: float, positives: int, negatives: int) -> float:
    """Compute the standard error of an area: Hanley and McNeil 1982."""
    first, second = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (first - area * area) + (negatives - 1) * (second - area * area)
    return math.sqrt(max(0.0, variance) / (positives * negatives))


def _group_by_label(labels: Iterable[SparseVector]) -> tuple[dict[str, list[int]], dict[str, list[float]]]:
    places, weights = defaultdict[str, list[int]](list), defaultdict[str, list[float]](list)
    for place, vector in enumerate(labels):
        for label, weight in vector:
            places[label].append(place)
            weights[label].append(weight)
    return places, weights


def _match_marks(corpus: LabeledCorpus, marks: Sequence[LabelMark]) -> defaultdict[str, dict[int, bool]]:
    """Return the marks by label and place. The last one of several counts; those by the name of several images don't.

    Raises:
        UsageError: If no mark is about an image with labels.
    """
    named = Counter(key for keys in corpus.keys for key in keys)
    places = {key: place for place, keys in enumerate(corpus.keys) for key in keys if named[key] == 1}
    marked = defaultdict[str, dict[int, bool]](dict)
    for references, label, right in marks:
        found = next((places[key] for key in list_reference_keys(references) if key in places), None)
        if found is not None and label in corpus.labels[found].tokens:
            marked[label][found] = right
    if marks and not marked:
        raise UsageError(
            "no mark is about a label that its image has", "Name the images by their URIs.", code="marks-match-nothing"
        )
    return marked


def summarize_rows(rows: Iterable[LabelRow]) -> dict[str, Any]:
    """Count the labels and their images by verdict."""
    labels, images = Counter[str](), Counter[str]()
    for row in rows:
        labels[row.verdict] += 1
        images[row.verdict] += row.images
    return {"labels": dict(labels), "label_images": dict(images)}
