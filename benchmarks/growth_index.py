"""The index that `growth.py` loads: what becomes of it load by load."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import uuid4

from common import thumbnails
from growth_corpus import Loads
from growth_measure import Bodies, Heap, Stored, ask_idle, asking, percentiles_ms, read_stored, settle, watched_heap
from pacing import paced
from query_load import FRESH_STATS, Http

from stair_es import resources
from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.cluster.bulk.writer import BulkPolicy, BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.mappings import merge_bodies
from stair_es.cluster.metadata.index_metadata import make_write_alias

Percentiles = dict[str, tuple[float, float]]
"""p50 and p99 in ms by the kind of question."""
FIRST_DOCUMENT_BYTES = 1500.0
"""What a document takes in a request, until some were sent."""
_SETTINGS = {
    "refresh_interval": "30s",  # as during a load of an index that is searched
    **FRESH_STATS,
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """The cluster after one load, or after the merge at the end."""

    name: str
    stored: Stored
    idle_ms: Percentiles
    docs_per_s: float | None = None
    """Of the half that nobody asked in."""
    docs_per_s_asked: float | None = None
    asked_ms: Percentiles
    asked: int
    """Questions during the load."""
    heap_least_mb: float
    heap_most_mb: float
    collecting_share: float
    """Of a node's time, in garbage collection, during the load."""
    settle_s: float
    """Until merges had ended."""


class GrowingIndex:
    """One index on nodes that answer."""

    def __init__(self, urls: list[str], bodies: Bodies, given: argparse.Namespace) -> None:
        """Create the index."""
        self.urls, self.bodies, self.given = urls, bodies, given
        self.index = f"growth-{uuid4().hex[:8]}"
        self.http = Http(urls[0])
        self.pictures = thumbnails() if given.thumbnails else [None]
        self.pace = AdaptiveThrottle(BulkPolicy())
        connection = Connection(url=",".join(urls), timeout_s=120)
        self.writer = BulkWriter(cluster=Cluster(connection), index=self.index)
        self.sent, self.document_bytes = 0, FIRST_DOCUMENT_BYTES
        shape = {"number_of_shards": given.shards, "number_of_replicas": given.replicas, "auto_expand_replicas": "false"}
        settings = {"index": {**shape, **_SETTINGS}}
        body = merge_bodies(resources.load_json_resource("mappings", "image"), {"settings": settings})
        self.http.ask("PUT", f"/{self.index}", {**body, "aliases": {make_write_alias(self.index): {}}})

    def load(self, number: int, loads: Loads) -> Step:
        """Take one load in, and ask.

        Raises:
            SystemExit: Documents were refused, or are missing.
            ClusterError: The cluster can't be written to.
        """
        documents = loads.documents(number, self.pictures)
        half, began_s = loads.size // 2, time.perf_counter()
        with watched_heap(self.urls[0]) as heap:
            quiet = self._write(documents, half)
            with asking(self.urls, self.index, self.bodies, self.given.asked_per_s) as times:
                asked = self._write(documents, loads.size - half)
        seconds = time.perf_counter() - began_s
        return self._step(
            f"{self.sent:,}",
            heap,
            seconds,
            docs_per_s=quiet,
            docs_per_s_asked=asked,
            asked_ms=percentiles_ms(times),
            asked=sum(map(len, times.values())),
        )

    def merge(self) -> Step:
        """Merge each shard to one segment, and ask."""
        began_s = time.perf_counter()
        with watched_heap(self.urls[0]) as heap:
            self.http.ask("POST", f"/{self.index}/_forcemerge?max_num_segments=1")
        return self._step("merged", heap, time.perf_counter() - began_s, asked_ms={}, asked=0)

    def _step(self, name: str, heap: Heap, seconds: float, **more: Any) -> Step:  # noqa: ANN401  the rest of a Step
        settle_s = settle(self.http, self.index)
        stored = read_stored(self.http, self.index)
        if stored.documents != self.sent:
            raise SystemExit(f"{self.sent:,} documents were sent, the index has {stored.documents:,}")
        return Step(
            name=name,
            stored=stored,
            idle_ms=percentiles_ms(ask_idle(self.urls, self.index, self.bodies, self.given.rounds)),
            heap_least_mb=heap.least_mb,
            heap_most_mb=heap.most_mb,
            collecting_share=heap.collecting_s / seconds / len(heap.used_mb),
            settle_s=settle_s,
            **more,
        )

    def _write(self, documents: Iterable[tuple[str, dict[str, Any]]], count: int) -> float:
        """Send so many documents, all of which are taken; return documents/s."""
        began_s = time.perf_counter()
        with ThreadPoolExecutor(self.writer.policy.max_concurrency) as pool:
            requests = paced(self.writer, islice(documents, count), pool, self.pace, self.document_bytes)
        seconds = time.perf_counter() - began_s
        self.sent += count  # and not the sum over the requests: a busy cluster gets some documents twice
        self.document_bytes = sum(each.bytes for each in requests) / sum(each.documents for each in requests)
        return count / seconds
