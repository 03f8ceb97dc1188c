"""Cache index metadata, and repeat a search if the alias has moved. Thread safe."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.errors import ClusterError, ClusterUnreachable, IndexMismatch, IndexNotFound, QueryError, StairError
from stair_es.model.taught_encoder import teach_encoder
from stair_es.search.dsl.select import select_query_type
from stair_es.search.index_info import IndexInfo, fetch_index_info
from stair_es.search.request import QueryPlan

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import ClusterInfo
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.types import QueryType


@dataclass(frozen=True, kw_only=True)
class SearchTarget:
    """The cluster, and the indices that the name of an index resolves to."""

    cluster_info: ClusterInfo
    info: IndexInfo

    def plan_query(self, requested: QueryType | None = None, list_plugins: Callable[[], frozenset[str]] = frozenset) -> QueryPlan:
        """Choose the query type, `requested` if it is possible, and tell the limits."""
        return QueryPlan(
            query_type=select_query_type(self.cluster_info, self.info.common_fields, list_plugins, requested),
            max_clauses=self.cluster_info.max_clauses,
            sortable=self.info.sortable,
        )


@dataclass(frozen=True, kw_only=True)
class IndexState(SearchTarget):
    """The target of a search, with the encoder of its model."""

    encoder: Encoder


STATE_MAX_AGE_S = 5.0
"""Maximum age of an `IndexState`, in seconds; a response from an unknown index refreshes it immediately."""
TargetT = TypeVar("TargetT", bound=SearchTarget)
_ResultT = TypeVar("_ResultT")


def fetch_search_target(cluster: Cluster, index: str, previous: SearchTarget | None) -> SearchTarget:
    """Fetch the target of a search, but the cluster info only once."""
    cluster_info = previous.cluster_info if previous else get_cluster_info(cluster)
    return SearchTarget(cluster_info=cluster_info, info=fetch_index_info(cluster, index))


def create_state_cache(cluster: Cluster, index: str, load_encoder: Callable[[IndexInfo], Encoder]) -> IndexCache[IndexState]:
    """Create an empty cache of the state of an index.

    `get` and `refresh` raise IndexNotFound if the index doesn't exist, IndexMismatch if it was not written by stair-es, or by
    another model than the requested one, and ModelError if its model can't be loaded here.
    """

    def fetch_state(previous: IndexState | None) -> IndexState:
        try:
            target = fetch_search_target(cluster, index, previous)
        except QueryError as error:
            raise IndexNotFound(error.message, error.remedy, code=error.code) from None
        if previous is not None and previous.info == target.info:
            return previous
        has_same_model = previous is not None and previous.info.model == target.info.model
        encoder = previous.encoder if previous is not None and has_same_model else load_encoder(target.info)
        encoder = teach_encoder(encoder, target.info.taught_words)
        try:
            target.info.check_model(encoder.model_id)
        except QueryError as error:
            raise IndexMismatch(error.message, error.remedy, code=error.code) from None
        state = IndexState(cluster_info=target.cluster_info, info=target.info, encoder=encoder)
        state.plan_query()  # an index that can't be searched isn't a state
        return state

    return IndexCache(fetch_state, STATE_MAX_AGE_S)


class IndexCache(Generic[TargetT]):
    """Cache of a search target. Refreshed by one thread at a time; others use the last target, or wait for the new one."""

    def __init__(self, fetch: Callable[[TargetT | None], TargetT], max_age_s: float = math.inf) -> None:
        """Create an empty cache. `fetch` gets the previous target, and returns it if nothing has changed."""
        self._fetch, self._max_age_s = fetch, max_age_s
        self._lock = threading.Lock()
        self._target: TargetT | None = None
        self._checked_s = 0.0
        self._failed: tuple[float, StairError] | None = None

    def get(self) -> TargetT:
        """Get the target, at most about `max_age_s` old."""
        target = self._target
        if target is not None and time.monotonic() - self._checked_s <= self._max_age_s:
            return target
        return self._refresh_locked(target, wait=target is None)

    def refresh(self, stale: TargetT) -> TargetT:
        """Refresh the target; return `stale` if nothing has changed."""
        return self._refresh_locked(stale, wait=True)

    def search_with_refresh(self, search: Callable[[TargetT], tuple[_ResultT, AbstractSet[str] | None]]) -> _ResultT:
        """Run a search; run it again if the alias points to another index now, or its token policy has changed.

        `search` returns the result and the indices of its hits, or None if they are unknown. Without hits, the tokens may be
        those of another model.
        """
        target = self.get()
        try:
            result, indices = search(target)
        except ClusterUnreachable:
            raise
        except (QueryError, ClusterError):  # such as a `rank_feature` clause on a `sparse_vector` field
            current = self.refresh(target)
            if current is target:
                raise
        else:
            if indices is None or (indices and indices <= target.info.fields.keys()):
                return result
            current = self.refresh(target)
            if current is target:
                return result
        return search(current)[0]

    def _refresh_locked(self, stale: TargetT | None, *, wait: bool) -> TargetT:
        started_s = time.monotonic()
        if not self._lock.acquire(blocking=wait) and stale is not None:
            return stale
        try:
            if self._target is not None and (self._target is not stale or self._checked_s > started_s):
                return self._target  # refreshed by another thread
            if self._failed is not None and self._failed[0] > started_s:
                raise self._failed[1]
            self._target = self._fetch(self._target)
            self._checked_s = time.monotonic()
            return self._target
        except StairError as error:
            self._failed = (time.monotonic(), error)
            raise
        finally:
            self._lock.release()
