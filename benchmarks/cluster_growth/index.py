"""The index of `growth.py`, measured load by load."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import uuid4

from harness.bulk import write_throttled
from harness.http import Http
from harness.photos import make_thumbnails
from search.indices import FRESH_STATS

from cluster_growth.corpus import Loads
from cluster_growth.measure import (
    Bodies,
    Heap,
    Stored,
    compute_percentiles_ms,
    read_stored,
    search_idle,
    search_meanwhile,
    wait_for_merges,
    watch_heap,
)
from stair_es import resources
from stair_es.cluster.bulk.throttle import AdaptiveThrottle, BulkPolicy
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.mappings import merge_bodies
from stair_es.cluster.metadata.names import make_write_alias

Percentiles = dict[str, tuple[float, float]]
"""p50 and p99 in ms by the kind of query."""
FIRST_DOCUMENT_BYTES = 1500.0
"""Assumed bytes per document in a request, until some have been sent."""
_SETTINGS = {
    "refresh_interval": "30s",  # as in a load of an index that is being searched
    **FRESH_STATS,
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """The cluster after one load, or after the merge at the end."""

    name: str
    stored: Stored
    idle_ms: Percentiles
    docs_per_s: float | None = None
    """Documents/s of the half without searches."""
    docs_per_s_searched: float | None = None
    searched_ms: Percentiles
    searches: int
    """Queries during the load."""
    heap_min_mb: float
    heap_max_mb: float
    collecting_share: float
    """Share of a node's time in garbage collection during the load."""
    settle_s: float
    """Seconds until merging ended."""


class GrowingIndex:
    """An index on running nodes."""

    def __init__(self, urls: list[str], bodies: Bodies, args: argparse.Namespace) -> None:
        """Create the index."""
        self.urls, self.bodies, self.args = urls, bodies, args
        self.index = f"growth-{uuid4().hex[:8]}"
        self.http = Http(urls[0])
        self.pictures = make_thumbnails() if args.thumbnails else [None]
        self.throttle = AdaptiveThrottle(BulkPolicy())
        connection = Connection(url=",".join(urls), timeout_s=120)
        self.writer = BulkWriter(cluster=Cluster(connection), index=self.index)
        self.sent, self.document_bytes = 0, FIRST_DOCUMENT_BYTES
        shape = {"number_of_shards": args.shards, "number_of_replicas": args.replicas, "auto_expand_replicas": "false"}
        settings = {"index": {**shape, **_SETTINGS}}
        body = merge_bodies(resources.load_json_resource("mappings", "image"), {"settings": settings})
        self.http.request_json("PUT", f"/{self.index}", {**body, "aliases": {make_write_alias(self.index): {}}})

    def load(self, number: int, loads: Loads) -> Step:
        """Write one load, and search.

        Raises:
            SystemExit: If documents were rejected, or are missing.
            ClusterError: If writing to the cluster fails.
        """
        documents = loads.build_documents(number, self.pictures)
        half, began_s = loads.size // 2, time.perf_counter()
        with watch_heap(self.urls[0]) as heap:
            quiet = self._write(documents, half)
            with search_meanwhile(self.urls, self.index, self.bodies, self.args.searches_per_s) as times:
                searched = self._write(documents, loads.size - half)
        seconds = time.perf_counter() - began_s
        return self._make_step(
            f"{self.sent:,}",
            heap,
            seconds,
            docs_per_s=quiet,
            docs_per_s_searched=searched,
            searched_ms=compute_percentiles_ms(times),
            searches=sum(map(len, times.values())),
        )

    def merge(self) -> Step:
        """Merge each shard to one segment, and search."""
        began_s = time.perf_counter()
        with watch_heap(self.urls[0]) as heap:
            self.http.request_json("POST", f"/{self.index}/_forcemerge?max_num_segments=1")
        return self._make_step("merged", heap, time.perf_counter() - began_s, searched_ms={}, searches=0)

    def _make_step(self, name: str, heap: Heap, seconds: float, **more: Any) -> Step:  # noqa: ANN401  the rest of a Step
        settle_s = wait_for_merges(self.http, self.index)
        stored = read_stored(self.http, self.index)
        if stored.documents != self.sent:
            raise SystemExit(f"{self.sent:,} documents were sent, but the index has {stored.documents:,}")
        return Step(
            name=name,
            stored=stored,
            idle_ms=compute_percentiles_ms(search_idle(self.urls, self.index, self.bodies, self.args.rounds)),
            heap_min_mb=heap.min_mb,
            heap_max_mb=heap.max_mb,
            collecting_share=heap.collecting_s / seconds / len(heap.used_mb),
            settle_s=settle_s,
            **more,
        )

    def _write(self, documents: Iterable[tuple[str, dict[str, Any]]], count: int) -> float:
        """Send documents, check that all are written, and return documents/s."""
        began_s = time.perf_counter()
        with ThreadPoolExecutor(self.writer.policy.choose_concurrency()) as pool:
            requests = write_throttled(self.writer, islice(documents, count), pool, self.throttle, self.document_bytes)
        seconds = time.perf_counter() - began_s
        self.sent += count  # not the sum over the requests, because a busy cluster receives some documents twice
        self.document_bytes = sum(each.size_bytes for each in requests) / sum(each.documents for each in requests)
        return count / seconds
