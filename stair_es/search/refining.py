"""Adapt a query to what the documents of an index have: words that none carries, colors that no match has. Thread safe."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from stair_es.search.query import SearchQuery, TokenGroup
from stair_es.search.request import SearchRequest, build_match_clause, build_token_clause, has_clauses
from stair_es.taught_words import is_taught_token
from stair_es.types import QueryType

_MAX_AGE_S = 60.0
_MAX_ANSWERS = 512
_SCALE = 2.0**20
"""Factor of scores, so that what document-level security adds to them, 1 for each role, is less than a ten thousandth."""

_OFFER = "; it can be taught from pictures that show it: stair-es teach"


class QueryRefiner:
    """Asks the cluster what a query can't know, and remembers the answers for a minute."""

    def __init__(self, send: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        """Create the empty cache; `send` sends the body of a `_search` request."""
        self._send, self._lock = send, threading.Lock()
        self._answers: dict[str, tuple[float, float]] = {}
        """Clause -> when it was asked, and the score of the best document."""

    def refine_query(self, query: SearchQuery, build_request: Callable[[SearchQuery], SearchRequest]) -> SearchQuery:
        """Return the query as it can be answered honestly.

        If no document carries the rarest word, only a caption can tell it. Colors are left out if no match has them.
        """
        if query.is_refined:
            return query
        query = replace(query, is_refined=True)
        word, tokens = query.rarest_word or ("", ())
        if tokens and query.match_thresholds is not None:
            weight = self.find_largest_weight(tokens, build_request(query).query_type)
            if weight is not None and weight < query.match_thresholds.carried_weight:
                is_taught = all(map(is_taught_token, tokens))
                known = "was taught" if is_taught else "is a word of this model"
                remark = f"{word!r} {known}, but no image here has more than {weight:.2f} of it" + ("" if is_taught else _OFFER)
                written = [each.text for each in query.searched_words if each.tokens and {*each.tokens} <= {*tokens}]
                query = replace(query, needed_words=(*query.needed_words, *(written or [word])), remarks=(*query.remarks, remark))
        colors = [condition for condition in query.conditions if condition.is_color]
        if not colors or self._has_match(query, build_request(query)):
            return query
        query = replace(query, conditions=[condition for condition in query.conditions if not condition.is_color])
        if not self._has_match(query, build_request(query)):
            return query
        remark = f"no match is {' and '.join(each.text for each in colors)}: searched without"
        return replace(query, remarks=(*query.remarks, remark))

    def find_largest_weight(self, tokens: TokenGroup, query_type: QueryType) -> float | None:
        """Find the largest weight that a document has of one of the tokens, 0 if none has any; None if it can't be asked."""
        if not has_clauses(tokens, query_type):
            return None
        clauses = [build_token_clause((token,), query_type) for token in tokens]
        return self._find_best_score({"dis_max": {"queries": clauses}})

    def forget_answers(self) -> None:
        """Forget the answers of the cluster, after a change of the documents."""
        with self._lock:
            self._answers.clear()

    def has_field(self, name: str) -> bool:
        """Return whether a document has a field."""
        return self._find_best_score({"constant_score": {"filter": {"exists": {"field": name}}}}) > 0

    def _has_match(self, query: SearchQuery, request: SearchRequest) -> bool:
        is_match = build_match_clause(request, query)
        clauses = [request.body["query"], *([] if is_match is None else [is_match])]
        return self._find_best_score({"constant_score": {"filter": {"bool": {"filter": clauses}}}}) > 0

    def _find_best_score(self, clause: Mapping[str, Any]) -> float:
        """Return the score of the best document for a clause, 0 if there is none."""
        key, now_s = json.dumps(clause), time.monotonic()
        with self._lock:
            asked_s, score = self._answers.get(key, (-math.inf, 0.0))
        if now_s - asked_s <= _MAX_AGE_S:
            return score
        amplified = {"function_score": {"query": clause, "weight": _SCALE}}
        hits = self._send({"size": 1, "query": amplified, "_source": False, "track_total_hits": False})["hits"]["hits"]
        score = float(hits[0]["_score"]) / _SCALE if hits else 0.0
        with self._lock:
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[key] = now_s, score
        return score
