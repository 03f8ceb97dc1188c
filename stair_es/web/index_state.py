"""Cached state of the index: the indices that its name resolves to, their loaded model and token policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.errors import IndexMismatch, IndexNotFound, QueryError
from stair_es.search.dsl.select import select_query_type
from stair_es.search.index_cache import IndexCache, SearchTarget, fetch_search_target
from stair_es.web.search.query import QueryPlan, TokenNormalizer

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.search.index_info import IndexInfo

STATE_MAX_AGE_S = 5.0
"""Maximum age of the state, in seconds; a response from an unknown index refreshes it immediately."""


@dataclass(frozen=True, kw_only=True)
class IndexState(SearchTarget):
    """The target of a search, with the encoder of its model."""

    plan: QueryPlan
    encoder: Encoder

    @property
    def normalizer(self) -> TokenNormalizer:
        """The token normalizer of the index."""
        return TokenNormalizer(encoder=self.encoder, policy=self.info.policy)


def create_state_cache(cluster: Cluster, index: str, load_encoder: Callable[[IndexInfo], Encoder]) -> IndexCache[IndexState]:
    """Create an empty cache of the state of an index.

    `get` and `refresh` raise IndexNotFound if the index doesn't exist, IndexMismatch if it was not written by stair-es, or by
    another model than the requested one, and ModelError if its model can't be loaded here.
    """

    def fetch_state(previous: IndexState | None) -> IndexState:
        try:
            target = fetch_search_target(cluster, index, previous)
        except QueryError as error:
            raise IndexNotFound(error.message, error.remedy) from None
        if previous is not None and previous.info == target.info:
            return previous
        same = previous is not None and previous.info.model == target.info.model
        encoder = previous.encoder if previous is not None and same else load_encoder(target.info)
        try:
            target.info.check_model(encoder.model_id)
        except QueryError as error:
            raise IndexMismatch(error.message, error.remedy) from None
        return IndexState(
            cluster_info=target.cluster_info,
            info=target.info,
            plan=QueryPlan(
                query_type=select_query_type(target.cluster_info, target.info.common_fields, frozenset),
                max_clauses=target.cluster_info.max_clauses,
                sortable=target.info.sortable,
            ),
            encoder=encoder,
        )

    return IndexCache(fetch_state, STATE_MAX_AGE_S)
