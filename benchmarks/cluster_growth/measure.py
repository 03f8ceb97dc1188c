"""The requests and measurements of `growth.py` while a cluster grows: search times, bytes, segments, heap."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Event

import numpy as np
import orjson
from harness.http import Http, read_heaps, read_store_bytes
from search.arms import build_sent_request
from search.corpus import Corpus
from search.queries import QUERY_SIZES, make_queries
from search.tables import describe_size

Bodies = Mapping[str, Sequence[bytes]]
"""Request bodies by the name of a kind of query."""
Times = dict[str, list[float]]
"""ms by the name of a kind of query."""

_HEAP_INTERVAL_S = 0.5
_END_S = 10.0
"""Time for the last query of a load that has failed."""
_SETTLE_S, _SETTLE_POLL_S = 600.0, 0.5


def build_requests(corpus: Corpus, count: int) -> Bodies:
    """Return `count` queries of each kind, as in the product."""
    made = {}
    for queries in make_queries(corpus, QUERY_SIZES, count):
        made[describe_size(queries.size)] = [orjson.dumps(build_sent_request(vector, [])) for vector in queries.vectors]
    return made


def search_idle(urls: Sequence[str], index: str, bodies: Bodies, rounds: int) -> Times:
    """Send all queries sequentially, alternating between kinds and nodes; a first round isn't measured."""
    https, times = _connect(urls), _make_times(bodies)
    for warm in range(1 + rounds):
        for row in zip(*bodies.values(), strict=True):
            for name, body in zip(bodies, row, strict=True):
                spent_ms = _search(next(https), index, body)
                if warm:
                    times[name].append(spent_ms)
    return times


@contextmanager
def search_meanwhile(urls: Sequence[str], index: str, bodies: Bodies, per_s: float) -> Iterator[Times]:
    """Send `per_s` queries per second from another process; the yielded times are complete once it has ended."""
    spawned = multiprocessing.get_context("spawn")
    stop, times = spawned.Event(), _make_times(bodies)
    receiver, sender = spawned.Pipe(duplex=False)
    process = spawned.Process(target=_search_until, args=(list(urls), index, dict(bodies), 1 / per_s, stop, sender), daemon=True)
    process.start()
    sender.close()
    try:
        receiver.recv()  # it has connected
        yield times
        stop.set()
        times.update(receiver.recv())
    except EOFError:
        raise RuntimeError("the process that searches has died") from None
    finally:
        stop.set()
        receiver.close()  # the times aren't read anymore, so the process must not wait for a reader
        process.join(_END_S)
        process.terminate()
        process.join()


def _search_until(urls: list[str], index: str, bodies: Bodies, interval_s: float, stop: Event, answers: Pipe) -> None:
    https, times = _connect(urls), _make_times(bodies)
    queries = cycle([(name, body) for row in zip(*bodies.values(), strict=True) for name, body in zip(bodies, row, strict=True)])
    answers.send("ready")
    while not stop.is_set():
        began_s = time.perf_counter()
        name, body = next(queries)
        times[name].append(_search(next(https), index, body))
        stop.wait(max(0.0, interval_s - (time.perf_counter() - began_s)))
    with suppress(BrokenPipeError):  # the load has failed
        answers.send(times)


def _search(http: Http, index: str, body: bytes) -> float:
    began_s = time.perf_counter()
    http.request_bytes("POST", f"/{index}/_search", body)
    return 1000 * (time.perf_counter() - began_s)


def _connect(urls: Sequence[str]) -> Iterator[Http]:
    return cycle([Http(url) for url in urls])


def _make_times(bodies: Bodies) -> Times:
    return {name: [] for name in bodies}


def compute_percentiles_ms(times: Times) -> dict[str, tuple[float, float]]:
    """Return p50 and p99 of each kind that was searched for."""
    return {name: tuple(map(float, np.percentile(each, (50, 99)))) for name, each in times.items() if each}  # type: ignore[misc]


@dataclass
class Heap:
    """The heaps of the nodes over time."""

    used_mb: dict[str, list[float]] = field(default_factory=dict)
    """Samples per node, every half second."""
    collecting_s: float = 0.0
    """Time of all nodes in garbage collection."""

    @property
    def min_mb(self) -> float:
        """The lowest value of the fullest node, which is about what it needs."""
        return max(min(samples) for samples in self.used_mb.values())

    @property
    def max_mb(self) -> float:
        """The highest value of any node."""
        return max(max(samples) for samples in self.used_mb.values())


@contextmanager
def watch_heap(url: str) -> Iterator[Heap]:
    """Sample the nodes' heaps in a thread."""
    heap, done, http = Heap(), threading.Event(), Http(url)
    before_s = _sample(http, heap)

    def look() -> None:
        own = Http(url)
        while not done.wait(_HEAP_INTERVAL_S):
            _sample(own, heap)
        own.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield heap
    finally:
        done.set()
        thread.join()
    heap.collecting_s = _sample(http, heap) - before_s
    http.close()


def _sample(http: Http, heap: Heap) -> float:
    """Add one sample of each node; return the total seconds of garbage collection so far."""
    nodes = read_heaps(http)
    for each in nodes:
        heap.used_mb.setdefault(each.node, []).append(each.used_mb)
    return sum(each.collecting_s for each in nodes)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The size of an index."""

    documents: int
    primary_bytes: int
    """All files of the primary shards, without the translogs."""
    all_bytes: int
    """Bytes including replicas."""
    segments: int
    """Segments of the primary shards."""


def read_stored(http: Http, index: str) -> Stored:
    """Return the size on disk after a flush."""
    http.request_json("POST", f"/{index}/_flush?force=true&wait_if_ongoing=true")
    http.request_json("POST", f"/{index}/_refresh")
    segments = http.request_json("GET", f"/{index}/_stats/segments")["indices"][index]["primaries"]["segments"]
    return Stored(
        documents=http.request_json("GET", f"/{index}/_count")["count"],
        primary_bytes=read_store_bytes(http, index),
        all_bytes=read_store_bytes(http, index, "total"),
        segments=segments["count"],
    )


def wait_for_merges(http: Http, index: str) -> float:
    """Wait until no segments are being merged; return the seconds that it took."""
    began_s = time.perf_counter()
    while http.request_json("GET", f"/{index}/_stats/merge")["_all"]["total"]["merges"]["current"]:
        if time.perf_counter() - began_s > _SETTLE_S:
            break
        time.sleep(_SETTLE_POLL_S)
    return time.perf_counter() - began_s
