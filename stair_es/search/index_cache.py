"""Cache of what a search must know of its index, and the repetition of a search after the alias has moved. Thread safe."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError, StairError
from stair_es.search.index_info import IndexInfo, fetch_index_info

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import ClusterInfo
    from stair_es.cluster.client.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class SearchTarget:
    """The cluster, and the indices that the name of an index resolves to."""

    cluster_info: ClusterInfo
    info: IndexInfo


TargetT = TypeVar("TargetT", bound=SearchTarget)
_ResultT = TypeVar("_ResultT")


def fetch_search_target(cluster: Cluster, index: str, previous: SearchTarget | None) -> SearchTarget:
    """Fetch the target of a search, but the cluster info only once.

    Raises:
        QueryError: If the index doesn't exist.
        IndexMismatch: If it was not written by stair-es, or the name resolves to indices of several models.
        ClusterError: If the request fails.
    """
    cluster_info = previous.cluster_info if previous else get_cluster_info(cluster)
    return SearchTarget(cluster_info=cluster_info, info=fetch_index_info(cluster, index))


class IndexCache(Generic[TargetT]):
    """Cache of a search target. Refreshed by one thread at a time; others use the last target, or wait for the new one."""

    def __init__(self, fetch: Callable[[TargetT | None], TargetT], max_age_s: float = math.inf) -> None:
        """Create an empty cache.

        Args:
            fetch: Fetches the target, given the previous one; returns that one if nothing has changed.
            max_age_s: Maximum age of the target, in seconds.
        """
        self._fetch, self._max_age_s = fetch, max_age_s
        self._lock = threading.Lock()
        self._target: TargetT | None = None
        self._checked_s = 0.0
        self._failed: tuple[float, StairError] | None = None

    def get(self) -> TargetT:
        """Get the target, at most about `max_age_s` old.

        Raises:
            StairError: If it can't be fetched.
        """
        target = self._target
        if target is not None and time.monotonic() - self._checked_s <= self._max_age_s:
            return target
        return self._refresh_locked(target, wait=target is None)

    def refresh(self, stale: TargetT) -> TargetT:
        """Refresh the target; return `stale` if nothing has changed.

        Raises:
            StairError: If it can't be fetched.
        """
        return self._refresh_locked(stale, wait=True)

    def search_with_refresh(self, search: Callable[[TargetT], tuple[_ResultT, AbstractSet[str] | None]]) -> _ResultT:
        """Run a search; run it again if the alias points to another index now, or its token policy has changed.

        Args:
            search: Searches a target. Returns the result and the indices of its hits, or None if they are unknown. Without
                hits, the tokens may be those of another model.

        Raises:
            StairError: If the search fails on the current target, or that can't be fetched.
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
