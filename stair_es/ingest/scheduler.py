"""The loop of both schedulers: take listed images, hold back those that have to wait, start tasks, and wait for the first result.

`stage_scheduler` runs the stages on the threads of one process; `portion_scheduler` sends portions of images to workers that do
so. Images come in as a stream and leave as batches of outcomes. At any moment a bounded number of images is in flight, for
streams of any length.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import HeldImages
from stair_es.ingest.queues import PrefetchQueue, SizedQueue
from stair_es.ingest.state import Batch, Deferred, ImageState, Pending, estimate_pending_bytes
from stair_es.sources.base import ListingFailure, SourceItem

ListedItems: TypeAlias = PrefetchQueue[SourceItem | ListingFailure]

TAKEN_IMAGES = 256
"""How many listed images are taken at once."""
MAX_TAKES = 4
"""How often listed images are taken before the running tasks are checked."""
BACKLOG_BYTES = 128 * 1024 * 1024
"""Maximum listed size (`estimate_listed_bytes`) of the images that wait for a worker, and of those that are in flight. It is held
until the images have their outcome.
"""
_POLL_S = 0.05
"""Interval of looking for newly listed images while tasks are running."""
_PROGRESS_S = 1.0
"""Interval of progress reports while the run only waits for hosts."""


@dataclass
class EncoderUtilization:
    """Utilization of the encoders from the first finished batch to the last; before the first one the models are being loaded."""

    encoders: int
    busy_s: float = 0.0
    _first: float | None = None
    _last: float = 0.0

    def record_finished(self, seconds: float) -> None:
        """Record an encode that took `seconds` and has just finished."""
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
        else:
            self.busy_s += seconds

    @property
    def idle_share(self) -> float | None:
        """Share of idle time, 0..1; None if too little was encoded."""
        span = self._last - self._first if self._first is not None else 0.0
        return max(0.0, 1.0 - self.busy_s / (span * self.encoders)) if span > 0 and self.busy_s > 0 else None


@dataclass(frozen=True)
class Intake:
    """Where the images of a scheduler come from, besides their stream, and where they are counted."""

    accept_listed: Callable[[Sequence[SourceItem | ListingFailure]], list[SourceItem]]
    """Records listed images; returns those that don't have their outcome yet."""
    deferred: HeldImages
    bulk_stats: BulkStats


class ImageScheduler(ABC):
    """Schedules the images of one run. `run` may be called once."""

    encoder_utilization: EncoderUtilization

    def __init__(self, intake: Intake, max_queued_images: int) -> None:
        """Start without images. More than `max_queued_images` don't wait for a task."""
        self._intake = intake
        self._deferred = intake.deferred
        self._queued = SizedQueue[Pending](estimate_pending_bytes, max_queued_images, BACKLOG_BYTES)
        """Images that wait for a task."""
        self._passed = list[ImageState]()
        """Images that skip the tasks."""

    def run(self, items: ListedItems) -> Iterator[Batch]:
        """Yield batches of outcomes as they become available, and empty batches while only hosts are waited for.

        Raises:
            StairError: If the run failed as a whole. Tasks in flight are left to the executor.
        """
        while True:
            more = self._take_listed(items)
            if not self._queued.is_full:
                for image in self._deferred.take_due(TAKEN_IMAGES):
                    self._queued.append(image)
            self._start_tasks(last=items.is_exhausted)
            if self._passed:
                yield Batch(list(self._passed))
                self._passed.clear()
            if self._is_busy():
                yield from self._wait_for_tasks(0.0 if more else self._compute_wait_s(items))
            elif items.is_exhausted and not (self._queued or self._deferred):
                items.raise_error()
                return
            else:
                yield from self._wait_idle(items)

    @abstractmethod
    def _start_tasks(self, *, last: bool) -> None:
        """Start tasks for the images that wait; `last` is true if no more will be listed."""

    @abstractmethod
    def _is_busy(self) -> bool:
        """Return whether there are tasks to wait for."""

    @abstractmethod
    def _wait_for_tasks(self, timeout_s: float | None) -> Iterator[Batch]:
        """Wait until a task is done or `timeout_s` has passed, and yield what has its outcome."""

    def _accept_items(self, items: Sequence[SourceItem]) -> None:
        """Take over items that were just listed."""
        self._route_images(Pending(item) for item in items)

    def _is_full(self) -> bool:
        return self._deferred.is_full or self._queued.is_full

    def _can_take(self) -> bool:
        return not self._is_full()

    def _wait_idle(self, items: ListedItems) -> Iterator[Batch]:
        """Wait for listed images or for hosts, while no task is running."""
        due_s = self._deferred.due_in_s
        if due_s is not None:
            yield Batch([])
        if due_s is not None and (items.is_exhausted or self._is_full()):
            time.sleep(min(_PROGRESS_S, due_s))
        else:
            self._accept_items(self._intake.accept_listed(items.take(TAKEN_IMAGES, wait_s=_POLL_S)))

    def _compute_wait_s(self, items: ListedItems) -> float | None:
        """Return how long to wait for tasks before there may be new ones to start."""
        due_s = self._deferred.due_in_s
        if self._can_take() and not items.is_exhausted:
            return _POLL_S
        return None if due_s is None else max(_POLL_S, due_s)

    def _take_listed(self, items: ListedItems) -> bool:
        """Take listed images; return whether there may be more to take immediately.

        Images without work (duplicates, images of a host that was given up) fill no queue: they are taken in small portions, so
        that the others continue.
        """
        for _ in range(MAX_TAKES):
            if len(self._passed) >= TAKEN_IMAGES:
                break
            if not self._can_take():
                return False
            listed = items.take(TAKEN_IMAGES)
            if not listed:
                return False
            self._accept_items(self._intake.accept_listed(listed))
        return True

    def _route_images(self, images: Iterable[Pending]) -> None:
        for image in images:
            admitted = self._deferred.route_image(image)
            if isinstance(admitted, Pending):
                self._queued.append(admitted)
            elif admitted is not None:
                self._passed.append(admitted)

    def _settle_batch(self, images: Sequence[Pending], batch: Batch) -> Batch:
        """Return the batch of these images with the outcomes only: those to be fetched later are deferred."""
        finished = self._deferred.observe_results(images, batch.images)
        if batch.select_state(Deferred):  # queued images of the same host have to wait, too
            self._route_images(self._queued.take(len(self._queued)))
        return replace(batch, images=finished)
