"""The scheduler of the stages: it keeps the encoders supplied with batches, and bounds the images before and after them.

It decides what starts when; the `StageExecutor` decides on which thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.ingest.executors.base import StageExecutor, StageTask, WorkerDied
from stair_es.ingest.scheduler import BACKLOG_BYTES, TAKEN_IMAGES, EncoderUtilization, ImageScheduler, Intake
from stair_es.ingest.state import Batch, Pending, estimate_pending_bytes, mark_failed
from stair_es.sources.base import SourceItem
from stair_es.store import BulkRequestStats

_MAX_CHECKS = 2
_BATCHES_PER_ENCODER = 2
"""One batch in progress and one waiting."""
_BACKLOG_IMAGES = 4096
"""Maximum number of encoded images that wait for a slow cluster, a few kilobytes each."""
_INITIAL_DOCUMENT_BYTES = 4096


@dataclass
class _WorkUnit:
    """The images of a batch in flight. If its worker dies, each image is sent again alone."""

    images: list[Pending]
    alone: bool = False
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_bytes = sum(map(estimate_pending_bytes, self.images))


class StageScheduler(ImageScheduler):
    """Schedules the stages of one run, or of one portion."""

    def __init__(self, executor: StageExecutor, throttle: AdaptiveThrottle, intake: Intake, *, is_empty: bool) -> None:
        """Start without images. `is_empty` leaves out the check which images are stored."""
        super().__init__(intake, TAKEN_IMAGES + executor.batch_images)
        self.encoder_utilization = EncoderUtilization(executor.encoders)
        self._executor = executor
        self._throttle = throttle
        self._is_empty = is_empty
        self._checking = dict[StageTask, Batch]()
        self._suspects = deque[Pending]()
        self._preparing = dict[StageTask, _WorkUnit]()
        self._prepared = deque[tuple[StageTask, _WorkUnit]]()
        self._encoding = dict[StageTask, tuple[int, _WorkUnit]]()
        self._encoded = deque[tuple[StageTask, _WorkUnit]]()
        self._writing = dict[StageTask, list[_WorkUnit]]()
        self._document_bytes = float(_INITIAL_DOCUMENT_BYTES)

    def _can_take(self) -> bool:
        return super()._can_take() and len(self._checking) < _MAX_CHECKS

    def _accept_items(self, items: Sequence[SourceItem]) -> None:
        if self._is_empty:
            super()._accept_items(items)
        elif items:
            batch = Batch(list(items))
            self._checking[self._executor.submit("check", batch)] = batch

    def _is_busy(self) -> bool:
        return bool(self._checking or self._preparing or self._encoding or self._writing)

    def _wait_for_tasks(self, timeout_s: float | None) -> Iterator[Batch]:
        tasks = [*self._checking, *self._preparing, *self._encoding, *self._writing]
        for task in self._executor.wait_any(tasks, timeout_s):
            yield from self._handle_finished(task)

    def _start_tasks(self, *, last: bool) -> None:
        self._start_preparing(last=last and not self._checking)
        self._start_encoding()
        self._start_writing(last=not (self._queued or self._preparing or self._prepared or self._encoding))

    def _start_preparing(self, *, last: bool) -> None:
        slots = self._executor.workers + _BATCHES_PER_ENCODER * self._executor.encoders
        idle = not (self._preparing or self._prepared or self._encoding)
        batch_images = self._executor.batch_images
        for _ in range(slots - len(self._preparing) - len(self._prepared)):
            if self._suspects:
                unit = _WorkUnit([self._suspects.popleft()], alone=True)
            elif self._queued and (last or idle or self._is_full() or len(self._queued) >= batch_images):
                unit = _WorkUnit(self._queued.take(batch_images))
            else:
                return
            self._preparing[self._executor.submit("prepare", Batch(list(unit.images)))] = unit

    def _start_encoding(self) -> None:
        load = [0] * self._executor.encoders
        for encoder, _ in self._encoding.values():
            load[encoder] += 1
        while self._prepared and min(load) < _BATCHES_PER_ENCODER and not self._is_backlog_full():
            encoder = load.index(min(load))
            load[encoder] += 1
            task, unit = self._prepared.popleft()
            self._encoding[self._executor.submit("encode", task, encoder=encoder)] = (encoder, unit)

    def _is_backlog_full(self) -> bool:
        backlog_bytes = sum(unit.size_bytes for _, unit in self._encoded)
        return backlog_bytes >= BACKLOG_BYTES or self._count_images(self._encoded) >= _BACKLOG_IMAGES

    def _start_writing(self, *, last: bool) -> None:
        """Start a request as soon as none is running; more in parallel only if they have full size."""
        while self._encoded and len(self._writing) < self._throttle.concurrency:
            max_images = max(1, int(self._throttle.chunk_bytes / self._document_bytes))
            if self._writing and not last and self._count_images(self._encoded) < max_images:
                return
            tasks, units, images = list[StageTask](), list[_WorkUnit](), 0
            while self._encoded and images < max_images and not (units and (units[0].alone or self._encoded[0][1].alone)):
                task, unit = self._encoded.popleft()
                tasks.append(task)
                units.append(unit)
                images += len(unit.images)
            self._writing[self._executor.submit("write", self._throttle.chunk_bytes, *tasks)] = units

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
        batch: Batch = self._executor.get_result(task)
        self._route_images(batch.select_state(Pending))
        yield replace(batch, images=list(batch.get_outcomes()))

    def _handle_written(self, task: StageTask) -> Iterator[Batch]:
        units = self._writing.pop(task)
        try:
            result: tuple[list[Batch], list[BulkRequestStats]] = self._executor.get_result(task)
        except WorkerDied as error:
            yield from self._handle_worker_death(units, error)
            return
        batches, requests = result
        self._record_requests(requests)
        for unit, batch in zip(units, batches, strict=True):
            if "encode" in batch.seconds:
                self.encoder_utilization.record_finished(batch.seconds["encode"])
            yield self._settle_batch(unit.images, batch)

    def _handle_worker_death(self, units: list[_WorkUnit], error: WorkerDied) -> Iterator[Batch]:
        """Retry each image alone, since the cause is unknown. An image that kills its worker again has failed."""
        if len(units) == 1 and units[0].alone:
            yield mark_failed(Batch(list(units[0].images)), "decode", f"the worker that processed only this image died: {error}")
        else:
            self._suspects.extend(chain.from_iterable(unit.images for unit in units))

    def _record_requests(self, requests: list[BulkRequestStats]) -> None:
        for request in requests:
            self._intake.bulk_stats.record_request(request)
            self._throttle.record_request(request)
        documents = sum(request.documents for request in requests)
        if documents:
            self._document_bytes = max(1.0, sum(request.size_bytes for request in requests) / documents)
