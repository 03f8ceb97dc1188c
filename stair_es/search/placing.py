"""Where one document is in the ranking for a question: asked of the cluster, told by `near`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stair_es.errors import QueryError
from stair_es.search.explain import why
from stair_es.search.hits import only
from stair_es.search.how import How
from stair_es.search.near import NearMiss, failing_words, parts
from stair_es.search.prune import pruned
from stair_es.search.question import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.search.explain import Reason
    from stair_es.search.hits import Hit
    from stair_es.search.searcher import Searcher

_NAMED = 8


def near_miss(searcher: Searcher, question: Question, reference: str, *, k: int = 10, how: How | None = None) -> NearMiss:
    """What there is to say of the document `reference`, an `_id` or a URI.

    Args:
        searcher: Of the index.
        question: What was looked for.
        reference: The document.
        k: Among how many hits it was expected.
        how: How it was asked.

    Raises:
        QueryError: There is no such document, ranks are to be fused, or as for `Searcher.search`.
        ClusterError: As for `Searcher.search`.
    """
    how = how or How()
    if how.fusion == "rrf":
        raise QueryError("a rank that is fused of two has no reasons of its own", "Explain it with sum, or without the caption.")
    split = pruned(question.vector, how.mass)
    how = replace(how, mass=None)
    exact = replace(how, approximate=False, shape=None if how.shape == "seismic" else how.shape)
    question = searcher.asked_of(replace(question, vector=split.kept))
    found = searcher.document(reference)
    if found is None:
        raise QueryError(
            f"there is no document with the id or URI {reference!r} in the index", "`stair-es search --json` prints both."
        )
    tokens = found.source.get("tokens") or {}
    hits = searcher.search(replace(question, filters=[*question.filters, only(found)], min_score=None), 1, how=exact).hits
    asked = searcher.search(question, k, how=how)
    best = asked.hits
    score = hits[0].score if hits else None
    failing = failing_words(question, tokens)
    for clause in question.filters:
        if not searcher.matches(found, clause):
            failing.append(f"it doesn't match the filter {json.dumps(clause, ensure_ascii=False)}")
    if score is not None and question.min_score is not None and score < np.float32(question.min_score):
        failing.append(f"its score {score:.5g} is below the least score {question.min_score:g}")
        score = None
    common, lacking, beside = parts(question, tokens)
    if score is None and not failing:
        failing.append(_unfound(bool(common), why(split.dropped, tokens)))
    rank = None if score is None else 1 + searcher.count(replace(question, min_score=_above(score)), how=exact)
    if asked.shape == "seismic" and score is not None and _is_missed(found, score, best, k):
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


def _is_missed(found: Hit, score: float, best: Sequence[Hit], k: int) -> bool:
    """Whether a document should be among the best by its score, and isn't."""
    return (len(best) < k or score > best[-1].score) and found.id not in {hit.id for hit in best}


def _unfound(common: bool, dropped: Sequence[Reason]) -> str:
    """Why a document that fails no condition isn't found."""
    if common:
        return "no word in common is among those that find: two-phase, `impacts` or the clause limit leave some out"
    if dropped:
        words = ", ".join(reason.feature for reason in dropped[:_NAMED])
        return f"of the words that were sent it has none, only of those that pruning left out: {words}"
    return "it has no word in common with the query"


def _above(score: float) -> float:
    """The next float32, which is what the engine compares."""
    return float(np.nextafter(np.float32(score), np.float32(np.inf)))
