"""Cached state of the index: the indices that its name resolves to, their loaded model and token policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.cluster.client.connection import get_cluster_info
from stair_es.cluster.index.aliases import get_mappings_by_index
from stair_es.cluster.metadata.index_metadata import has_colours, has_thumbnails
from stair_es.errors import IndexMismatch, IndexNotFound, QueryError, StairError
from stair_es.search.dsl.select import select_query_type
from stair_es.search.index_info import fetch_index_info
from stair_es.web.query import QueryPlan, TokenNormalizer

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.connection import ClusterInfo
    from stair_es.model.base import Encoder
    from stair_es.search.index_info import IndexInfo

STATE_MAX_AGE_S = 5.0
"""Maximum age of the state, in seconds; a response from an unknown index refreshes it immediately."""


@dataclass(frozen=True, kw_only=True)
class IndexState:
    """The state of an index."""

    info: IndexInfo
    plan: QueryPlan
    encoder: Encoder
    has_thumbnails: bool
    """Whether its documents contain thumbnails."""
    has_colours: bool
    """Whether its documents have the field `colours` for facets."""

    @property
    def normalizer(self) -> TokenNormalizer:
        """The token normalizer of the index."""
        return TokenNormalizer(encoder=self.encoder, policy=self.info.policy)


class IndexStateCache:
    """Cache of the state of an index. Refreshed by one thread at a time; others use the last state, or wait for the new one."""

    def __init__(self, cluster: Cluster, index: str, load_encoder: Callable[[IndexInfo], Encoder]) -> None:
        """Create an empty cache.

        Args:
            cluster: The cluster.
            index: An alias or index.
            load_encoder: Loads the encoder for an index, given its info.
        """
        self._cluster, self._index, self._load = cluster, index, load_encoder
        self._lock = threading.Lock()
        self._target: ClusterInfo | None = None
        self._state: IndexState | None = None
        self._checked_s = 0.0
        self._failed: tuple[float, StairError] | None = None

    def get(self) -> IndexState:
        """Get the state, at most about `STATE_MAX_AGE_S` old.

        Raises:
            IndexNotFound: If the index doesn't exist.
            IndexMismatch: If it was not written by stair-es, or by another model than the requested one.
            ModelError: If its model can't be loaded here.
            ClusterError: If the request fails.
        """
        view = self._state
        if view is not None and time.monotonic() - self._checked_s <= STATE_MAX_AGE_S:
            return view
        return self._refresh_locked(view, wait=view is None)

    def refresh(self, stale: IndexState) -> IndexState:
        """Refresh the state; return `stale` if nothing has changed.

        Args:
            stale: The state that may be stale.

        Raises:
            StairError: As for `get`.
        """
        return self._refresh_locked(stale, wait=True)

    def _refresh_locked(self, stale: IndexState | None, *, wait: bool) -> IndexState:
        came_s = time.monotonic()
        if not self._lock.acquire(blocking=wait) and stale is not None:
            return stale
        try:
            if self._state is not None and (self._state is not stale or self._checked_s > came_s):
                return self._state  # refreshed by another thread
            if self._failed is not None and self._failed[0] > came_s:
                raise self._failed[1]
            return self._fetch_state()
        except StairError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()

    def _fetch_state(self) -> IndexState:
        if self._target is None:
            self._target = get_cluster_info(self._cluster)
        try:
            info = fetch_index_info(self._cluster, self._index)
        except QueryError as error:
            raise IndexNotFound(error.message, error.remedy) from None
        if self._state is None or self._state.info != info:
            self._state = self._build_state(info, self._target, self._state)
        self._checked_s = time.monotonic()
        return self._state

    def _build_state(self, info: IndexInfo, target: ClusterInfo, previous: IndexState | None) -> IndexState:
        same = previous is not None and previous.info.model == info.model
        encoder = previous.encoder if previous is not None and same else self._load(info)
        try:
            info.check_model(encoder.model_id)
        except QueryError as error:
            raise IndexMismatch(error.message, error.remedy) from None
        mappings = get_mappings_by_index(self._cluster, self._index)
        return IndexState(
            info=info,
            plan=QueryPlan(
                query_type=select_query_type(target, info.common_fields, frozenset),
                max_clauses=target.max_clauses,
                sortable=info.sortable,
            ),
            encoder=encoder,
            has_thumbnails=any(map(has_thumbnails, mappings.values())),
            has_colours=all(map(has_colours, mappings.values())),
        )
