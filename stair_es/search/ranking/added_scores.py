"""Scores without what a cluster adds to them. Thread safe.

OpenSearch's document-level security adds 1 to the score of a document for each role of the user that permits it. This changes
weak matches, `min_score` and, since the sums differ between documents, the order of hits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stair_es.cluster.documents.document import IMPACT_SCALE

if TYPE_CHECKING:
    from stair_es.search.query import SearchQuery
    from stair_es.search.results import Hit, SearchResult

_ROUNDING = 1e-5
"""Relative error of a sum in float32, with a margin. Stored weights are truncated, which only makes a score smaller."""
_REPLACED = 2.0**-48
"""A smaller share of a score is left only if a search pipeline of the index replaces scores, which ignores the scale."""


class AddedScores:
    """What is known of the scores that the cluster adds for one index and user."""

    def __init__(self) -> None:
        """Begin without knowledge."""
        self._found: bool | None = None
        """Whether the same hits had higher scores without amplification; None if they were never compared."""
        self._looks_plain = False
        """Whether a search by tokens had the expected scores."""

    def exclude(self, query: SearchQuery) -> SearchQuery:
        """Return the query so that added scores don't count, if there are any, or if it isn't known and `min_score` needs it."""
        is_unknown = self._found is None and not self._looks_plain
        return query.amplify() if self._found or (is_unknown and query.min_score is not None) else query

    def search(
        self, query: SearchQuery, send: Callable[[SearchQuery], SearchResult], *, by_tokens: bool, is_first: bool
    ) -> SearchResult:
        """Search, and search again with amplified scores if the cluster seems to add to them.

        Args:
            query: The search query.
            send: Sends a query.
            by_tokens: Whether scores are dot products of tokens alone.
            is_first: Whether it is the first page. After a cursor, raised scores can also leave no hits.
        """
        found = self._found  # read once: another thread may find out in between
        result = send(query.amplify() if found else query)
        if found is not None or (self._looks_plain and not by_tokens):
            return result
        if not self._is_suspicious(result, by_tokens=by_tokens, is_first=is_first):
            self._looks_plain |= bool(result.hits) and by_tokens
            return result
        return self._compare(result, send(query.amplify()))

    def _is_suspicious(self, result: SearchResult, *, by_tokens: bool, is_first: bool) -> bool:
        if not result.hits:
            return not is_first and not self._looks_plain
        raised = [_is_raised(hit) for hit in result.hits]
        return any(raised) if by_tokens else all(raised)

    def _compare(self, result: SearchResult, exact: SearchResult) -> SearchResult:
        """Return the result whose scores count."""
        scores = {(hit.index, hit.id): hit.score for hit in result.hits}
        common = [(scores[key], hit.score) for hit in exact.hits if (key := (hit.index, hit.id)) in scores]
        if any(score < raised * _REPLACED for raised, score in common):
            self._found = False
            return result
        if common:
            self._found = any(raised > score * (1 + _ROUNDING) for raised, score in common)
        elif exact.hits and not scores:
            self._found = True
        return exact


def _is_raised(hit: Hit) -> bool:
    """Check whether a score is above the dot product; that of `impacts` may be, by a thousandth of each weight of the query."""
    slack = sum(each.query_weight for each in hit.contributions) / IMPACT_SCALE
    return hit.text_score > _ROUNDING * hit.score + slack
