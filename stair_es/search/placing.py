"""Explain the rank of a document, and why a search finds nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.errors import QueryError
from stair_es.search.body import kept
from stair_es.search.hits import Reason, only, why
from stair_es.search.prune import How, pruned
from stair_es.search.question import Question
from stair_es.types import SparseVector
from stair_es.vocab import unescape

if TYPE_CHECKING:
    from stair_es.search.hits import Hit
    from stair_es.search.question import Spelling
    from stair_es.search.searcher import Searcher

_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class NearMiss:
    """The explanation of the rank of one document for one query."""

    id: str
    uri: str
    score: float | None
    """The score of the engine; None if it doesn't find the document."""
    rank: int | None
    """1 + the number of documents with a higher score."""
    wanted: float | None
    """The score of the last requested hit; None if there are fewer hits."""
    why: tuple[Reason, ...]
    """The matching tokens."""
    lacking: SparseVector
    """The tokens of the query that the document lacks."""
    beside: SparseVector
    """The tokens of the document that the query lacks."""
    failing: tuple[str, ...]
    """The conditions that the document fails, as text."""


def near_miss(searcher: Searcher, question: Question, reference: str, *, k: int = 10, how: How | None = None) -> NearMiss:
    """Explain the rank of a document, or why it is not found.

    Args:
        searcher: The searcher of the index.
        question: The search query.
        reference: The `_id` or URI of the document.
        k: Number of hits among which the document is expected.
        how: The search options.

    Raises:
        QueryError: If there is no such document, if ranks are fused, or as for `Searcher.search`.
        ClusterError: As for `Searcher.search`.
    """
    how = how or How()
    if how.fusion == "rrf":
        raise QueryError("explain does not support --hybrid rrf", "Use --hybrid sum, or omit the caption.")
    pruned_vector = pruned(question.vector, how.mass)
    how = replace(how, mass=None)
    exact = replace(how, approximate=False, shape=None if how.shape == "seismic" else how.shape)
    question = searcher.asked_of(replace(question, vector=pruned_vector.kept))
    found = searcher.document(reference)
    if found is None:
        raise QueryError(f"the index has no document with the id or URI {reference!r}", "`stair-es search --json` prints both.")
    tokens = found.source.get("tokens") or {}
    hits = searcher.search(replace(question, filters=[*question.filters, only(found)], min_score=None), 1, how=exact).hits
    result = searcher.search(question, k, how=how)
    best = result.hits
    score = hits[0].score if hits else None
    failing = failing_words(question, tokens)
    for clause in question.filters:
        if not searcher.matches(found, clause):
            failing.append(f"it doesn't match the filter {json.dumps(clause, ensure_ascii=False)}")
    if score is not None and question.min_score is not None and score < np.float32(question.min_score):
        failing.append(f"its score {score:.5g} is below the minimum score {question.min_score:g}")
        score = None
    common, lacking, beside = parts(question, tokens)
    if score is None and not failing:
        failing.append(_unfound(bool(common), why(pruned_vector.dropped, tokens)))
    rank = None if score is None else 1 + searcher.count(replace(question, min_score=_above(score)), how=exact)
    if result.shape == "seismic" and score is not None and _is_missed(found, score, best, k):
        failing.append("SEISMIC, which is approximate, doesn't find it; --shape rank_features does")
    return NearMiss(
        id=found.id,
        uri=found.uri,
        score=score,
        rank=rank,
        wanted=best[-1].score if len(best) == k else None,
        why=common,
        lacking=lacking,
        beside=beside,
        failing=tuple(failing),
    )


def explain_required(searcher: Searcher, question: Question, how: How) -> str:
    """Explain an empty result by the required words; empty if they are not the reason.

    Args:
        searcher: The searcher of the index.
        question: The search query.
        how: The search options.

    Raises:
        ClusterError: As for `Searcher.search`.
    """
    bare = replace(question, excluded=(), filters=(), min_score=None)
    if not question.required or searcher.count(bare, how=how):
        return ""
    counts = {spelling: searcher.count(replace(bare, required=[spelling]), how=how) for spelling in question.required}
    missing = [_typed(spelling) for spelling, count in counts.items() if not count]
    if missing:
        return f"no image has {' or '.join(missing)}"
    return "no image has all of " + ", ".join(f"{_typed(spelling)} ({count:,})" for spelling, count in counts.items())


def _is_missed(found: Hit, score: float, best: Sequence[Hit], k: int) -> bool:
    """Check whether a document is missing among the best although its score is high enough."""
    return (len(best) < k or score > best[-1].score) and found.id not in {hit.id for hit in best}


def _unfound(common: bool, dropped: Sequence[Reason]) -> str:
    """Explain why a document that fails no condition is not found."""
    if common:
        return "its matching tokens were not used to find documents: two-phase, `impacts` or the clause limit leave some out"
    if dropped:
        words = ", ".join(reason.feature for reason in dropped[:_NAMED])
        return f"it has none of the tokens that were sent, only tokens that pruning left out: {words}"
    return "it has no token of the query"


def _above(score: float) -> float:
    """Return the next float32, the type that the engine compares."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))


def parts(question: Question, tokens: Mapping[str, float]) -> tuple[tuple[Reason, ...], SparseVector, SparseVector]:
    """Compare a query with the stored `tokens` of a document.

    Returns:
        The matching tokens, the tokens that the document lacks, and the tokens that the query lacks.
    """
    has = SparseVector.from_pairs((unescape(feature), float(weight)) for feature, weight in tokens.items())
    wanted = question.vector
    lacking = SparseVector.from_pairs(pair for pair in wanted if pair[0] not in set(has.features))
    beside = SparseVector.from_pairs(pair for pair in has if pair[0] not in set(wanted.features))
    return why(wanted, tokens), lacking, beside


def failing_words(question: Question, tokens: Mapping[str, float]) -> list[str]:
    """List the required tokens that a document lacks, and the excluded tokens that it has."""
    weights = {unescape(feature): float(weight) for feature, weight in tokens.items()}
    threshold = question.least
    at_least = f" of {threshold:g} or more" if threshold else ""

    def has(spelling: Sequence[str]) -> bool:
        return all(feature in weights and kept(weights[feature]) >= kept(threshold) for feature in spelling)

    missing = [word for word in question.required if not has(word)]
    present = [word for word in question.excluded if has(word)]
    return [
        *(f"it lacks the required word {_name(word)}{at_least} (weight {_weight(word, weights):g})" for word in missing),
        *(f"it has the excluded word {_name(word)} (weight {_weight(word, weights):g})" for word in present),
    ]


def _name(spelling: Sequence[str]) -> str:
    return "".join(piece.removeprefix("##") for piece in spelling)


def _weight(spelling: Sequence[str], weights: Mapping[str, Any]) -> float:
    return min((float(weights.get(feature, 0.0)) for feature in spelling), default=0.0)


def _typed(spelling: Spelling) -> str:
    return "+" + "".join(feature.removeprefix("##") for feature in spelling)
