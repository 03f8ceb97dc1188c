"""Reciprocal rank fusion of two rankings. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stair_es.errors import QueryError
from stair_es.search.results import Hit, SearchResult

if TYPE_CHECKING:
    from stair_es.search.dsl.pagination import Cursor
    from stair_es.search.query import SearchQuery

RRF_RANK_CONSTANT = 60


def check_fusion(query: SearchQuery, after: Cursor | None) -> None:
    """Check that a query has two rankings that can be fused.

    Raises:
        QueryError: If a ranking is missing, or the query uses an option that fused rankings don't support.
    """
    if not len(query.vector) or not query.caption.strip():
        raise QueryError("rank fusion requires words or an image, and a text for the caption", "Pass both, or omit rrf.")
    if after is not None or query.min_score is not None:
        raise QueryError("rank fusion supports neither pagination nor min_score", "Use a larger k instead.")
    if query.caption_weight == 0:
        raise QueryError("rank fusion with a caption weight of 0 is a search by tokens alone", "Omit rrf.")


def fuse_rankings(by_tokens: SearchResult, by_caption: SearchResult, caption_weight: float, k: int) -> SearchResult:
    """Fuse two rankings to the `k` best hits, with the scores and ranks of the fusion.

    Args:
        by_tokens: The ranking by tokens; its contributions, truncated and pruned tokens are kept.
        by_caption: The ranking by caption.
        caption_weight: The weight of the caption's ranks; that of the tokens is 1.
        k: Number of hits.
    """
    rankings = [[_build_key(hit) for hit in result.hits] for result in (by_tokens, by_caption)]
    ranks = [{key: rank for rank, key in enumerate(ranking, start=1)} for ranking in rankings]
    by_key: dict[str, Hit] = {_build_key(hit): hit for hit in (*by_caption.hits, *by_tokens.hits)}
    hits = []
    for key, score in fuse_reciprocal_ranks(rankings, [1.0, caption_weight])[:k]:
        ranks_of_hit = {name: of[key] for name, of in zip(("tokens", "caption"), ranks, strict=True) if key in of}
        hits.append(replace(by_key[key], score=score, weak=False, ranks=ranks_of_hit, cursor=None))
    took_ms = by_tokens.took_ms + by_caption.took_ms
    return replace(by_tokens, hits=tuple(hits), took_ms=took_ms, after=None, weak_below=None)  # scores are of ranks


def fuse_reciprocal_ranks(rankings: Sequence[Sequence[str]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Return ids with the sum of `weight / (RRF_RANK_CONSTANT + rank)` over the rankings that have them, best first (ties by id).

    Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009; ranks count from 1.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] += weight / (RRF_RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _build_key(hit: Hit) -> str:
    """Return a key that is unique where an alias points to several indices with the same ids."""
    return f"{hit.id} {hit.index}"
