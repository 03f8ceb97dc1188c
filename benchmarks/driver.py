"""Measure what the driver of a run spends on each image: listing, queue, accounting, messages to the workers. Without encoders.

    python benchmarks/driver.py [--images 2000000] [--portion 512] [--workers 64]

A thread lists the images. The main thread runs the scheduler of portions with workers that do nothing: portions and outcomes are
pickled as for Ray, whose own share per portion (75 us for a task, some for waiting) isn't in here. At the end the counts must add
up. The rows are the CPU time of the two threads, and their sum is that of the process: other work on the machine matters little.
The items are generated; a source that has to parse a table takes longer (`benchmarks/listing.py`).
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.documents.document import make_document_id
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.deferred import DeferredImages
from stair_es.ingest.executors.base import PortionOutcome, PortionResult, StageTask
from stair_es.ingest.portion_scheduler import PortionScheduler
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import Intake
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.state import estimate_listed_bytes
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.system.garbage import collect_garbage_rarely

GOAL_US = 14.0
"""Of CPU per image: 64 GPUs with 1,100 images/s each."""
ALONE = "nothing: the goal is 70,000 images/s"
Listed: TypeAlias = SourceItem | ListingFailure
_QUEUED_IMAGES, _QUEUED_BYTES = 20_000, 1 << 28


@dataclass
class GeneratedSource:
    """A source of URLs with captions."""

    images: int
    uri: str = "file:///generated.jsonl"
    ignored: Mapping[str, int] = field(default_factory=dict)

    def list_items(self) -> Iterator[SourceItem]:
        """Yield the images."""
        for number in range(self.images):
            url = f"https://images.example.com/folder/{number:09}.jpg"
            yield SourceItem(url, self.uri, UrlLocator(url), None, {"caption": f"picture {number}"})


class StepTimer:
    """The CPU seconds of the calling thread, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.thread_time()

    def record_step(self, name: str) -> None:
        """Add the time since the last step to the step that has just ended."""
        now = time.thread_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--portion", type=int, default=512, help="images in a portion (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=64, help="(default: %(default)s, with two portions each)")
    parser.add_argument("--ids", choices=["uri", "content-hash"], default="uri", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds = [
        measure_driver(args.images, args.portion, args.workers, by_content=args.ids == "content-hash") for _ in range(args.rounds)
    ]
    about = f"{args.images:,} images in portions of {args.portion}, ids by {args.ids}, median of {args.rounds} rounds"
    publish_result(build_result(about, rounds), args.json)


def measure_driver(images: int, portion: int, workers: int, *, by_content: bool) -> dict[str, float]:
    """Run the driver's part of an ingest, and return step -> microseconds of CPU per image.

    Raises:
        SystemExit: If the counts are wrong.
    """
    start = time.process_time()
    deque(GeneratedSource(images).list_items(), maxlen=0)
    generating_s = time.process_time() - start
    with (
        collect_garbage_rarely(),
        tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder,
        Manifest(Path(folder), by_content=by_content) as manifest,
    ):
        accounting, timer = RunAccounting(manifest, DeadLetters(Path(folder) / "failed.jsonl", "driver")), StepTimer()
        start = time.process_time()
        run_driver(accounting, images, portion, workers, timer)
        totals = accounting.get_totals()
        timer.record_step("close: check, count documents")
        whole_s = time.process_time() - start - timer.seconds.pop("worker")
    if not totals.seen == totals.written == totals.documents == images or totals.failed:
        raise SystemExit(f"the counts are wrong: {totals}")
    listing_s = whole_s - sum(timer.seconds.values())
    seconds = {
        "items of the source": generating_s,
        "listing and queue": listing_s - generating_s,
        **timer.seconds,
        "whole": whole_s,
    }
    return {name: 1e6 * value / images for name, value in seconds.items()}


class PickledPool:
    """Workers that write every image at once: what they are sent, and what they answer, is pickled as on a cluster."""

    encoders = 1

    def __init__(self, workers: int, batch_images: int, timer: StepTimer) -> None:
        self.batch_images = batch_images
        self._workers, self._timer = range(workers), timer
        self._results: dict[StageTask, bytes] = {}
        self._sent = 0

    def list_ready(self) -> Sequence[int]:
        """Return all workers."""
        return self._workers

    def submit(self, worker: int, items: Sequence[SourceItem], writers: int) -> StageTask:
        """Pickle a portion and what its worker answers."""
        self._timer.record_step("scheduler: queue, portions")
        pickle.dumps(items, protocol=5)
        self._timer.record_step("send: pickle")
        states = [PortionOutcome("written", "write", "", make_document_id(item.uri)) for item in items]
        self._sent += 1
        self._results[self._sent] = pickle.dumps(PortionResult(states, {"encode": 0.5}, {}, []), protocol=5)
        self._timer.record_step("worker")
        return self._sent

    def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
        """Return the oldest portions: half of all, so that each worker has one more."""
        return list(self._results)[: max(1, len(self._results) // 2)]

    def get_result(self, task: StageTask) -> PortionResult:
        """Unpickle an answer."""
        self._timer.record_step("scheduler: queue, portions")
        result: PortionResult = pickle.loads(self._results.pop(task))
        self._timer.record_step("receive: unpickle")
        return result

    def describe_worker(self, worker: int) -> str:
        """Return its number."""
        return f"worker {worker}"


def run_driver(accounting: RunAccounting, images: int, portion: int, workers: int, timer: StepTimer) -> None:
    """List generated images, schedule and account for them, and record the steps of this thread."""

    def accept_listed(listed: Sequence[Listed]) -> list[SourceItem]:
        timer.record_step("scheduler: queue, portions")
        items = accounting.accept_listed(listed)
        timer.record_step("accept: manifest")
        return items

    intake = Intake(accept_listed, DeferredImages(), accounting.bulk_stats)
    scheduler = PortionScheduler(PickledPool(workers, portion, timer), intake, BulkPolicy())
    with PrefetchQueue(SourceStream([GeneratedSource(images)]), _QUEUED_IMAGES, estimate_listed_bytes, _QUEUED_BYTES) as queue:
        for batch in scheduler.run(queue):
            timer.record_step("scheduler: queue, portions")
            accounting.record_batch(batch)
            timer.record_step("record: manifest, counters")
    timer.record_step("scheduler: queue, portions")
    accounting.close()


def build_result(about: str, rounds: Sequence[Mapping[str, float]]) -> Result:
    """Return a row for each step."""
    medians = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    rows = [(name, f"{microseconds:.2f}") for name, microseconds in medians.items()]
    whole_us = medians["whole"]
    return Result(
        about=about,
        tables=(ReportTable(head=("step", "us of CPU per image"), rows=tuple(rows)),),
        ratios=(Ratio(what="CPU of the driver per image, us", against=ALONE, value=whole_us, goal=GOAL_US, at_most=True),),
        remarks=(f"one core accounts for {1e6 / whole_us:,.0f} images/s",),
        figures={"microseconds": medians, "rounds": rounds},
    )


if __name__ == "__main__":
    main()
