"""Managed products whose rules differ from those of a cluster of one's own, and how their writes become searchable."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

logger = logging.getLogger(__name__)

ManagedProduct: TypeAlias = Literal["", "opensearch-service", "opensearch-serverless", "elasticsearch-serverless"]
SERVERLESS: frozenset[ManagedProduct] = frozenset({"opensearch-serverless", "elasticsearch-serverless"})
AWS_PRODUCTS: Mapping[str | None, ManagedProduct] = {"es": "opensearch-service", "aoss": "opensearch-serverless"}
"""The product by the AWS service that requests are signed for."""
_MAX_AWAITED = 100
"""Writes that are waited for: enough that nearly every shard has one of them."""
_UNKNOWN = sys.maxsize
"""The sequence number of a hit that doesn't report one: the document counts as visible."""
_VISIBLE_WITHIN_S, _POLL_S = 90.0, 1.0
"""AWS documents a refresh interval of 10 to 60 seconds."""


def get_read_method(product: ManagedProduct | None) -> str:
    """Return the method for `_mget` and `_msearch`: of these OpenSearch Serverless documents GET only."""
    return "GET" if product == "opensearch-serverless" else "POST"


class RecentWrites:
    """The last writes of this process by index, to wait for where an index can't be refreshed. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without writes."""
        self._clock = clock
        self._lock = threading.Lock()
        self._awaited: dict[str, dict[str, int | None]] = {}

    def add(self, index: str, id_: str, seq_no: int | None) -> None:
        """Add the write of a document with its sequence number; None for a deletion."""
        with self._lock:
            awaited = self._awaited.setdefault(index, {})
            awaited.pop(id_, None)
            awaited[id_] = seq_no
            if len(awaited) > _MAX_AWAITED:
                del awaited[next(iter(awaited))]

    def wait_until_visible(
        self, index: str, search: Callable[[Mapping[str, Any]], Mapping[str, Any]], sleep: Callable[[float], None]
    ) -> None:
        """Wait until a search of the index finds the last writes and no deletion, at most 90 seconds, then warn.

        If a search fails, its error is raised, and the next call waits for the same writes.
        """
        with self._lock:
            awaited = waited = dict(self._awaited.get(index, {}))
        end_s = self._clock() + _VISIBLE_WITHIN_S
        while awaited:
            query = {"ids": {"values": list(awaited)}}
            body = {"size": len(awaited), "query": query, "_source": False, "seq_no_primary_term": True}
            found = {hit["_id"]: int(hit.get("_seq_no", _UNKNOWN)) for hit in search(body)["hits"]["hits"]}
            awaited = {id_: seq_no for id_, seq_no in awaited.items() if not _is_visible(found.get(id_), seq_no)}
            if awaited and self._clock() >= end_s:
                logger.warning("%s: searches don't find the last writes after %.0f seconds", index, _VISIBLE_WITHIN_S)
                break
            if awaited:
                sleep(_POLL_S)
        with self._lock:
            now = self._awaited.get(index, {})
            self._awaited[index] = {id_: seq_no for id_, seq_no in now.items() if (id_, seq_no) not in waited.items()}


def _is_visible(found: int | None, seq_no: int | None) -> bool:
    """Return whether a search that finds a document in the version `found`, or doesn't find it (None), saw its last write."""
    return found is None if seq_no is None else found is not None and found >= seq_no
