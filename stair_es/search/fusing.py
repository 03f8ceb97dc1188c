"""Two rankings of hits -> one, by ranks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stair_es.errors import QueryError
from stair_es.search.hits import Hit, Result

if TYPE_CHECKING:
    from stair_es.search.cursor import After
    from stair_es.search.question import Question

RANK_CONSTANT = 60


def check_fusable(question: Question, after: After | None) -> None:
    """Nothing, if a question makes two rankings that can be fused.

    Raises:
        QueryError: It doesn't, or wants what fused ranks don't have.
    """
    if not len(question.vector) or not question.caption.strip():
        raise QueryError("fusing ranks needs words or an image, and a text for the caption", "Give both, or leave rrf out.")
    if after is not None or question.min_score is not None:
        raise QueryError("fusing ranks goes neither with further pages nor with min_score", "Ask for a larger k instead.")
    if question.caption_weight == 0:
        raise QueryError("fusing ranks with a caption weight of 0 is a search by the words alone", "Leave rrf out.")


def fused(words: Result, caption: Result, caption_weight: float, k: int) -> Result:
    """The `k` best of both: what is told of the words is kept, scores and ranks are those of the fusion."""
    rankings = [[_key(hit) for hit in result.hits] for result in (words, caption)]
    ranks = [{key: rank for rank, key in enumerate(ranking, start=1)} for ranking in rankings]
    known: dict[str, Hit] = {_key(hit): hit for hit in (*caption.hits, *words.hits)}
    hits = []
    for key, score in reciprocal_ranks(rankings, [1.0, caption_weight])[:k]:
        places = {name: of[key] for name, of in zip(("words", "caption"), ranks, strict=True) if key in of}
        hits.append(replace(known[key], score=score, ranks=places))
    return replace(words, hits=tuple(hits), took_ms=words.took_ms + caption.took_ms, after=None)


def reciprocal_ranks(rankings: Sequence[Sequence[str]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Ids with the sum of `weight / (RANK_CONSTANT + rank)` over the rankings that have them, best first (ties by id).

    Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009; ranks count from 1.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] += weight / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _key(hit: Hit) -> str:
    """A document, where a name stands for several indices that have the same id."""
    return f"{hit.id} {hit.index}"
