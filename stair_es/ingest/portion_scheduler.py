"""The scheduler of portions: it sends images to workers that run all stages on them, and survives what happens to these.

A portion takes a worker about four seconds, so that there are few messages, and each worker has two at a time. The images of
a worker that died go elsewhere: first together, then in ever smaller parts, each of which has its worker for itself. So an
image that kills its worker takes no other image with it. A portion without an answer is sent again to an idle worker. Both are
safe, because a document that is written twice is stored once.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stair_es._itertools import batched
from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.ingest.executors.base import PortionOutcome, PortionResult, StageTask, WorkerDied, WorkerPool
from stair_es.ingest.scheduler import BACKLOG_BYTES, EncoderUtilization, ImageScheduler, Intake
from stair_es.ingest.state import Batch, Deferred, ImageState, Outcome, Pending, estimate_pending_bytes, mark_failed

logger = logging.getLogger(__name__)

MAX_PORTION_IMAGES = 1024
_PORTION_S = 4.0
"""How long the answer to a portion should take."""
_PORTIONS_PER_WORKER = 2
"""While one portion begins or ends, the other one keeps the cores of the worker busy."""
_MAX_DEATHS_ALONE = 3
"""How many workers may die with an image that they have for themselves, before it has failed: machines die, too."""
_SUSPECT_PARTS = 8
"""Into how many parts the images of a dead worker are split: fewer workers die than with halves."""
_STALL_S = 60.0
"""A portion may be sent again after this time, or after `_STALL_MEDIANS` times what others took, if that is longer."""
_STALL_MEDIANS = 20
_MAX_COPIES = 3
"""How many workers may have a portion at the same time."""
_SILENCE_S = 1800.0
"""Workers that haven't answered for this time count as dead: longer than all waiting for hosts and for the cluster."""
_PORTION_BYTES = 8 * 1024 * 1024
"""Images that have their bytes with them: a portion ends after this size."""


@dataclass(eq=False)
class _Portion:
    """Images that are sent to a worker together."""

    images: list[Pending]
    size_bytes: int
    is_suspect: bool = False
    """Whether a worker died with them: then a worker gets nothing else meanwhile."""
    deaths: int = 0
    sent_s: float = 0.0
    copies: int = 0
    """To how many workers it was sent."""
    is_done: bool = False


@dataclass(eq=False)
class _Assignment:
    """What a worker has."""

    portions: dict[StageTask, _Portion] = field(default_factory=dict)
    is_stalled: bool = False
    """Whether one of its portions was sent elsewhere, since it didn't answer."""

    @property
    def has_room(self) -> bool:
        is_exclusive = any(portion.is_suspect for portion in self.portions.values())
        return not (self.is_stalled or is_exclusive) and len(self.portions) < _PORTIONS_PER_WORKER

    @property
    def is_idle(self) -> bool:
        return not (self.is_stalled or self.portions)


class PortionScheduler(ImageScheduler):
    """Schedules the portions of one run."""

    def __init__(self, pool: WorkerPool, intake: Intake, bulk: BulkPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without images. The workers share the parallel bulk requests of the policy."""
        super().__init__(intake, 2 * MAX_PORTION_IMAGES)
        self.encoder_utilization = EncoderUtilization(pool.encoders)
        self._pool = pool
        self._bulk = bulk
        self._clock = clock
        self._assignments = dict[int, _Assignment]()
        self._suspects = deque[_Portion]()
        self._sizes_bytes = 0
        """Size of the images that the workers have."""
        self._portion_images = pool.batch_images
        self._durations_s = deque[float](maxlen=100)

    def _is_busy(self) -> bool:
        return bool(self._queued or self._suspects or self._list_open_portions())

    def _list_open_portions(self) -> list[_Portion]:
        return [
            portion for assigned in self._assignments.values() for portion in assigned.portions.values() if not portion.is_done
        ]

    def _start_tasks(self, *, last: bool) -> None:
        ready = {worker: self._assignments.setdefault(worker, _Assignment()) for worker in self._pool.list_ready()}
        self.encoder_utilization.encoders = max(self.encoder_utilization.encoders, self._pool.encoders * len(ready))
        self._send_suspects(ready)
        max_bytes = max(BACKLOG_BYTES, _PORTIONS_PER_WORKER * _PORTION_BYTES * len(ready))
        while self._queued and self._sizes_bytes < max_bytes:
            loads = {worker: len(assigned.portions) for worker, assigned in ready.items() if assigned.has_room}
            if self._suspects and loads:  # the next one that is idle is for them
                del loads[min(loads, key=loads.__getitem__)]
            if not loads:
                break
            worker = min(loads, key=loads.__getitem__)
            count = self._choose_portion_size(len(ready), last=last)
            if loads[worker] and not last and not self._is_full() and len(self._queued) < count:
                break
            self._send_portion(self._take_portion(count), worker)
        self._resend_stalled([worker for worker, assigned in ready.items() if assigned.is_idle])

    def _send_suspects(self, ready: Mapping[int, _Assignment]) -> None:
        for worker, assigned in ready.items():
            if self._suspects and assigned.is_idle:
                self._send_portion(self._suspects.popleft(), worker)

    def _choose_portion_size(self, workers: int, *, last: bool) -> int:
        """Return how many images a portion has. The last ones are smaller, so that the workers end together.

        The first ones are a batch, so that the first images are written soon. Others have one for each encoder of a worker.
        """
        if not self._durations_s:
            return self._pool.batch_images
        count = self._portion_images
        if last:
            count = min(count, -(-len(self._queued) // (_PORTIONS_PER_WORKER * workers)))
        return max(count, min(MAX_PORTION_IMAGES, self._pool.encoders * self._pool.batch_images))

    def _take_portion(self, count: int) -> _Portion:
        """Take images from the queue; fewer if they have their bytes with them."""
        size_bytes = self._queued.size
        fitting = _PORTION_BYTES * len(self._queued) // max(1, size_bytes)
        images = self._queued.take(max(1, min(count, fitting)))
        return _Portion(images, size_bytes - self._queued.size)

    def _send_portion(self, portion: _Portion, worker: int) -> None:
        assigned = self._assignments[worker]
        workers = len(self._assignments)
        writers = max(1, self._bulk.choose_concurrency(workers) // (_PORTIONS_PER_WORKER * workers))
        task = self._pool.submit(worker, [image.item for image in portion.images], writers)
        assigned.portions[task] = portion
        portion.sent_s = self._clock()
        portion.copies += 1
        self._sizes_bytes += portion.size_bytes

    def _resend_stalled(self, idle_workers: Sequence[int]) -> None:
        """Send portions that wait for an answer for too long to workers that have nothing else to do."""
        if not idle_workers:
            return
        median_s = statistics.median(self._durations_s) if self._durations_s else 0.0
        now_s, patience_s = self._clock(), max(_STALL_S, _STALL_MEDIANS * median_s)
        resent = dict[_Portion, None]()  # a portion is with several workers
        for worker, assigned in self._assignments.items():
            for portion in assigned.portions.values():
                if portion.is_done or now_s - portion.sent_s < patience_s:
                    continue
                assigned.is_stalled = True
                name = self._pool.describe_worker(worker)
                if now_s - portion.sent_s > _SILENCE_S:
                    self._isolate_images(portion, f"no answer from {name}")
                elif portion.copies < _MAX_COPIES and portion not in resent and len(resent) < len(idle_workers):
                    logger.warning("%s doesn't answer: %d images are sent to another worker, too", name, len(portion.images))
                    resent[portion] = None
        for portion, worker in zip(resent, idle_workers, strict=False):
            self._send_portion(portion, worker)

    def _wait_for_tasks(self, timeout_s: float | None) -> Iterator[Batch]:
        for task in self._pool.wait_any(timeout_s):
            yield from self._handle_finished(task)

    def _handle_finished(self, task: StageTask) -> Iterator[Batch]:
        [assigned] = [assigned for assigned in self._assignments.values() if task in assigned.portions]
        portion = assigned.portions.pop(task)
        assigned.is_stalled = False
        self._sizes_bytes -= portion.size_bytes
        try:
            result = self._pool.get_result(task)
        except WorkerDied as error:
            if not portion.is_done:
                self._isolate_images(portion, f"the worker that processed only this image died: {error}")
            return
        if not portion.is_done:
            portion.is_done = True
            self._record_speed(portion)
            yield self._build_batch(portion, result)

    def _record_speed(self, portion: _Portion) -> None:
        """Change the size of the next portions, halfway each time: the first answers come while the workers warm up."""
        seconds = max(1e-3, self._clock() - portion.sent_s)
        self._durations_s.append(seconds)
        wanted = min(MAX_PORTION_IMAGES, int(len(portion.images) * _PORTION_S / seconds))
        batches = math.ceil((self._portion_images + wanted) / 2 / self._pool.batch_images)
        self._portion_images = max(1, batches) * self._pool.batch_images

    def _build_batch(self, portion: _Portion, result: PortionResult) -> Batch:
        for request in result.requests:
            self._intake.bulk_stats.record_request(request)
        if "encode" in result.seconds:
            self.encoder_utilization.record_finished(result.seconds["encode"])
        states: list[ImageState] = [
            Outcome(image.item, *state) if isinstance(state, PortionOutcome) else Deferred(image.item, *state)
            for image, state in zip(portion.images, result.states, strict=True)
        ]
        return self._settle_batch(portion.images, Batch(states, dict(result.seconds), dict(result.began_ns)))

    def _isolate_images(self, portion: _Portion, reason: str) -> None:
        """Send the images of a dead worker again: alone with a worker, then in smaller parts. A last one fails for `reason`."""
        portion.is_done = True  # an answer of another worker comes too late
        deaths = portion.deaths + 1 if portion.is_suspect else 0
        if portion.is_suspect and len(portion.images) > 1:
            size = -(-len(portion.images) // _SUSPECT_PARTS)
            for part in batched(portion.images, size):
                self._suspects.append(_Portion(part, sum(map(estimate_pending_bytes, part)), is_suspect=True))
        elif deaths < _MAX_DEATHS_ALONE:
            self._suspects.append(_Portion(portion.images, portion.size_bytes, is_suspect=True, deaths=deaths))
        else:
            self._passed += mark_failed(Batch([image.item for image in portion.images]), "decode", reason).images
