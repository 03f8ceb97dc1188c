"""The scheduler: it keeps the encoders supplied with batches, and bounds the images in flight before and after them.

It decides what starts when; the `StageExecutor` decides where. Images come in as a stream and leave as batches of outcomes. At
any moment a bounded number of images is in flight, for streams of any length.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.errors import IngestError
from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import DeferredImages, HeldImages
from stair_es.ingest.executors.base import StageExecutor, StageTask, WorkerDied
from stair_es.ingest.queues import PrefetchQueue, SizedQueue
from stair_es.ingest.stages import mark_failed
from stair_es.ingest.state import Batch, Deferred, ImageState, Outcome, Pending, estimate_pending_bytes
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.store import BulkRequestStats

CHECK_IMAGES = 256
MAX_TAKES = 4
"""How many portions of listed images are taken before the running tasks are checked."""
_MAX_CHECKS = 2
_BATCHES_PER_ENCODER = 2
"""One batch in progress and one waiting."""
_BACKLOG_IMAGES = 4096
"""Maximum number of encoded images that wait for a slow cluster, a few kilobytes each."""
_BACKLOG_BYTES = 128 * 1024 * 1024
"""Maximum listed size (`estimate_listed_bytes`) of the images that wait for a slow cluster, and of those that wait for a worker.
It is held until the images have their outcome.
"""
_INITIAL_DOCUMENT_BYTES = 4096
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


@dataclass
class _WorkUnit:
    """The images of a batch in flight. If its worker dies, each image is sent again alone."""

    images: list[Pending]
    alone: bool = False
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = sum(map(estimate_pending_bytes, self.images))


@dataclass
class StageScheduler:
    """Schedules the stages of one run. `run` may be called once."""

    executor: StageExecutor
    throttle: AdaptiveThrottle
    is_empty: bool
    accept_listed: Callable[[Sequence[SourceItem | ListingFailure]], list[SourceItem]]
    """Records listed images; returns those without an outcome."""
    bulk_stats: BulkStats = field(default_factory=BulkStats)
    deferred: HeldImages = field(default_factory=DeferredImages)
    encoder_utilization: EncoderUtilization = field(init=False)
    _checking: dict[StageTask, Batch] = field(default_factory=dict)
    _queued: SizedQueue[Pending] = field(init=False)
    """Images that wait for `prepare`."""
    _outcomes: list[Outcome] = field(default_factory=list)
    """Outcomes of images that skip the stages."""
    _suspects: deque[Pending] = field(default_factory=deque)
    _preparing: dict[StageTask, _WorkUnit] = field(default_factory=dict)
    _prepared: deque[tuple[StageTask, _WorkUnit]] = field(default_factory=deque)
    _encoding: dict[StageTask, tuple[int, _WorkUnit]] = field(default_factory=dict)
    _encoded: deque[tuple[StageTask, _WorkUnit]] = field(default_factory=deque)
    _writing: dict[StageTask, list[_WorkUnit]] = field(default_factory=dict)
    _document_bytes: float = _INITIAL_DOCUMENT_BYTES

    def __post_init__(self) -> None:
        self.encoder_utilization = EncoderUtilization(self.executor.encoders)
        self._queued = SizedQueue(estimate_pending_bytes, CHECK_IMAGES + self.executor.batch_images, _BACKLOG_BYTES)

    def run(self, items: PrefetchQueue[SourceItem | ListingFailure]) -> Iterator[Batch]:
        """Yield batches of outcomes as they become available, and empty batches while only hosts are waited for.

        Raises:
            StairError: If a stage failed as a whole. Tasks in flight are left to the executor.
        """
        while True:
            more = self._take_listed(items)
            self._start_tasks(last=items.is_exhausted and not self._checking)
            if self._outcomes:
                yield Batch(list(self._outcomes))
                self._outcomes.clear()
            tasks = [*self._checking, *self._preparing, *self._encoding, *self._writing]
            if not tasks:
                if items.is_exhausted and not (self._queued or self.deferred):
                    items.raise_error()
                    return
                yield from self._wait_idle(items)
                continue
            for task in self.executor.wait_any(tasks, 0.0 if more else self._compute_wait_s(items)):
                yield from self._handle_finished(task)

    def _wait_idle(self, items: PrefetchQueue[SourceItem | ListingFailure]) -> Iterator[Batch]:
        """Wait for listed images or for hosts, while no task is running."""
        due_s = self.deferred.due_in_s
        if due_s is not None:
            yield Batch([])
        if due_s is not None and (items.is_exhausted or self._is_full()):
            time.sleep(min(_PROGRESS_S, due_s))
        else:
            self._accept_listed(items.take(CHECK_IMAGES, wait_s=_POLL_S))

    def _compute_wait_s(self, items: PrefetchQueue[SourceItem | ListingFailure]) -> float | None:
        """Return how long to wait for tasks before there may be new ones to start."""
        due_s = self.deferred.due_in_s
        if not (self._is_full() or items.is_exhausted):
            return _POLL_S
        return None if due_s is None else max(_POLL_S, due_s)

    def _take_listed(self, items: PrefetchQueue[SourceItem | ListingFailure]) -> bool:
        """Take listed images; return whether there may be more to take immediately.

        Images without work (duplicates, images of a host that was given up) fill no queue: they are taken in small portions, so
        that the others continue.
        """
        for _ in range(MAX_TAKES):
            if len(self._outcomes) >= CHECK_IMAGES:
                break
            if self._is_full() or len(self._checking) >= _MAX_CHECKS:
                return False
            listed = items.take(CHECK_IMAGES)
            if not listed:
                return False
            self._accept_listed(listed)
        return True

    def _start_tasks(self, *, last: bool) -> None:
        if not self._queued.is_full:
            for image in self.deferred.take_due(self.executor.batch_images):
                self._queued.append(image)
        self._start_preparing(last=last)
        self._start_encoding()
        self._start_writing(last=not (self._queued or self._preparing or self._prepared or self._encoding))

    def _is_full(self) -> bool:
        return self.deferred.is_full or self._queued.is_full

    def _route_pending(self, images: Iterable[Pending]) -> None:
        for image in images:
            admitted = self.deferred.route_image(image)
            if isinstance(admitted, Outcome):
                self._outcomes.append(admitted)
            elif admitted is not None:
                self._queued.append(admitted)

    def _accept_listed(self, listed: list[SourceItem | ListingFailure]) -> None:
        items = self.accept_listed(listed)
        if self.is_empty:
            self._route_pending([Pending(item) for item in items])
        elif items:
            batch = Batch(list(items))
            self._checking[self.executor.submit("check", batch)] = batch

    def _start_preparing(self, *, last: bool) -> None:
        slots = self.executor.workers + _BATCHES_PER_ENCODER * self.executor.encoders
        idle = not (self._preparing or self._prepared or self._encoding)
        for _ in range(slots - len(self._preparing) - len(self._prepared)):
            if self._suspects:
                unit = _WorkUnit([self._suspects.popleft()], alone=True)
            elif self._queued and (last or idle or self._is_full() or len(self._queued) >= self.executor.batch_images):
                unit = _WorkUnit(self._queued.take(self.executor.batch_images))
            else:
                return
            self._preparing[self.executor.submit("prepare", Batch(list(unit.images)))] = unit

    def _start_encoding(self) -> None:
        load = [0] * self.executor.encoders
        for encoder, _ in self._encoding.values():
            load[encoder] += 1
        while self._prepared and min(load) < _BATCHES_PER_ENCODER and not self._is_backlog_full():
            encoder = load.index(min(load))
            load[encoder] += 1
            task, unit = self._prepared.popleft()
            self._encoding[self.executor.submit("encode", task, encoder=encoder)] = (encoder, unit)

    def _is_backlog_full(self) -> bool:
        backlog_bytes = sum(unit.size_bytes for _, unit in self._encoded)
        return backlog_bytes >= _BACKLOG_BYTES or self._count_images(self._encoded) >= _BACKLOG_IMAGES

    def _start_writing(self, *, last: bool) -> None:
        """Start a request as soon as none is running; more in parallel only if they have full size."""
        while self._encoded and len(self._writing) < self.throttle.concurrency:
            max_images = max(1, int(self.throttle.chunk_bytes / self._document_bytes))
            if self._writing and not last and self._count_images(self._encoded) < max_images:
                return
            tasks, units, images = list[StageTask](), list[_WorkUnit](), 0
            while self._encoded and images < max_images and not (units and (units[0].alone or self._encoded[0][1].alone)):
                task, unit = self._encoded.popleft()
                tasks.append(task)
                units.append(unit)
                images += len(unit.images)
            self._writing[self.executor.submit("write", self.throttle.chunk_bytes, *tasks)] = units

    @staticmethod
    def _count_images(waiting: deque[tuple[StageTask, _WorkUnit]]) -> int:
        return sum(len(unit.images) for _, unit in waiting)

    def _handle_finished(self, task: StageTask) -> Iterator[Batch]:
        if task in self._checking:
            yield from self._handle_checked(task)
        elif task in self._preparing:
            self._prepared.append((task, self._preparing.pop(task)))
        elif task in self._encoding:
            self._encoded.append((task, self._encoding.pop(task)[1]))
        else:
            yield from self._handle_written(task)

    def _handle_checked(self, task: StageTask) -> Iterator[Batch]:
        del self._checking[task]
        try:
            batch: Batch = self.executor.get_result(task)
        except WorkerDied as error:
            raise IngestError(
                f"a worker died while it checked which images are stored: {error}",
                "Run it again: it resumes from there.",
                code="worker-died-at-startup",
            ) from error
        self._route_pending(batch.select_state(Pending))
        yield replace(batch, images=list(batch.get_outcomes()))

    def _handle_written(self, task: StageTask) -> Iterator[Batch]:
        units = self._writing.pop(task)
        try:
            result: tuple[list[Batch], list[BulkRequestStats]] = self.executor.get_result(task)
        except WorkerDied as error:
            yield from self._handle_worker_death(units, error)
            return
        batches, requests = result
        self._record_requests(requests)
        for unit, batch in zip(units, batches, strict=True):
            if "encode" in batch.seconds:
                self.encoder_utilization.record_finished(batch.seconds["encode"])
            yield self._remove_deferred(unit, batch)

    def _remove_deferred(self, unit: _WorkUnit, batch: Batch) -> Batch:
        """Return the batch without the images that are deferred."""
        finished = list[ImageState]()
        for image, state in zip(unit.images, batch.images, strict=True):
            if not isinstance(state, Deferred):
                finished.append(state)
            finished += self.deferred.observe_result(image, state)
        if batch.select_state(Deferred):  # queued images of the same host have to wait, too
            self._route_pending(self._queued.take(len(self._queued)))
        return replace(batch, images=finished)

    def _handle_worker_death(self, units: list[_WorkUnit], error: WorkerDied) -> Iterator[Batch]:
        """Retry each image alone, since the cause is unknown. An image that kills its worker again has failed."""
        if len(units) == 1 and units[0].alone:
            yield mark_failed(Batch(list(units[0].images)), "decode", f"the worker that processed only this image died: {error}")
        else:
            self._suspects.extend(chain.from_iterable(unit.images for unit in units))

    def _record_requests(self, requests: list[BulkRequestStats]) -> None:
        for request in requests:
            self.bulk_stats.record_request(request)
            self.throttle.record_request(request)
        documents = sum(request.documents for request in requests)
        if documents:
            self._document_bytes = max(1.0, sum(request.size_bytes for request in requests) / documents)
