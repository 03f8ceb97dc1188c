"""The workers of a Ray cluster: as many actors as fit, one for each GPU, or for the cores of a machine without GPUs.

Each worker runs all stages on the portions that it gets (`ray_worker`): pictures stay on its machine, and this process sees only
what was listed, and outcomes. Workers of nodes that join later are added, and those of lost nodes wait for another one.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from stair_es.errors import IngestError, StairError, UsageError
from stair_es.ingest.executors.base import PortionResult, StageTask, WorkerDied
from stair_es.ingest.executors.ray_worker import RayWorker, WorkerOptions
from stair_es.ingest.executors.threads import CALLS_PER_DEVICE, CPU_BATCH, GPU_BATCH
from stair_es.ingest.stages import WorkerConfig
from stair_es.sources.base import SourceItem
from stair_es.system import ray_session

logger = logging.getLogger(__name__)
_MAX_CORES = 8
"""Cores of a worker without GPU: more than these one process can't keep busy, since Python runs on one at a time."""
_NODES_POLL_S = 10.0
"""Interval of looking for nodes that joined."""
_WAITING_S = 20.0
"""After this time without enough workers, and then every minute, the run says that it waits."""
_REPEATED_S = 60.0
_MAX_LOAD_DEATHS = 3
"""How often in a row the process of a worker may die while it loads the model."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How to use Ray."""

    address: str | None = None
    """Address of a running cluster; None starts one on this machine for the duration of the run."""
    gpus_per_encoder: float = 1.0
    """A fraction lets several encoders share a GPU; 0 runs them on CPUs."""
    encoders: int = 0
    """Maximum number of encoders, one per worker; 0 for as many as fit at any time."""
    min_encoders: int = 0
    """Number of encoders that the run waits for before it begins. If it is given, not all of them have to fit at the start."""


def parse_encoders(text: str) -> tuple[int, int]:
    """Parse `N` or `MIN..MAX`, and return `min_encoders` and `encoders` of `RayOptions`.

    Raises:
        UsageError: If it is neither, or the range is empty.
    """
    minimum, separator, maximum = text.partition("..")
    numbers = [minimum, maximum] if separator else ["0", minimum]
    if all(number.isascii() and number.isdigit() for number in numbers):
        least, most = map(int, numbers)
        if not separator or 1 <= least <= most:
            return least, most
    raise UsageError(f"not a number of encoders: {text!r}", "Give a number, or a range such as 2..16.", code="invalid-encoders")


@dataclass(frozen=True, kw_only=True)
class WorkerShape:
    """What each worker reserves, and how many fit on the nodes of a cluster."""

    slots: int
    cpus: float
    gpus: float

    @property
    def resources(self) -> dict[str, float]:
        """The options of the actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


@contextmanager
def open_ray_workers(options: RayOptions) -> Iterator[RayWorkers]:
    """Open the workers in a Ray session that ends with the block, unless there was one before.

    Raises:
        IngestError: If Ray can't be started, or reached at the address.
        UsageError: If the cluster doesn't have the requested GPUs.
    """
    with ray_session.open_ray_session("ray", options.address, error_type=IngestError, alternative="Use --runner local") as ray:
        workers = RayWorkers(ray, options)
        try:
            yield workers
        finally:
            workers.close()


@dataclass(eq=False)
class _Worker:
    actor: Any
    name: str = "a worker"
    is_loading: bool = False
    is_ready: bool = False
    load_deaths: int = 0


class RayWorkers:
    """The `WorkerPool` of a Ray session. Its processes start at once; call `start` before the other methods."""

    def __init__(self, ray: Any, options: RayOptions) -> None:  # noqa: ANN401  a module
        """Count what fits on the cluster.

        Raises:
            UsageError: If the requested encoders don't fit.
        """
        self._ray, self._options = ray, options
        shape = choose_worker_shape(list(self._list_nodes().values()), options)
        if shape.gpus and options.encoders > shape.slots and not options.min_encoders:
            raise UsageError(
                f"{options.encoders} encoders of {shape.gpus:g} GPU each don't fit: there is room for {shape.slots}",
                "Use fewer --encoders, a range such as 1..8 if nodes will join, or a smaller --gpus-per-encoder.",
                code="gpus-too-few",
            )
        self._shape = shape
        self.encoders = CALLS_PER_DEVICE * max(1, int(shape.gpus)) if shape.gpus else max(1, int(shape.cpus))
        self.batch_images = GPU_BATCH if shape.gpus else CPU_BATCH
        self._config: WorkerConfig | None = None
        self._workers = dict[int, _Worker]()
        self._refused = list[Any]()
        self._created = 0
        self._starts = dict[StageTask, int]()
        self._tasks = dict[StageTask, int]()
        self._nodes = set[str]()
        self._polled_s = time.monotonic()
        self._report_s = self._polled_s + _WAITING_S
        self._last_refusal: IngestError | None = None
        self._has_begun = False
        self._add_workers(shape.slots)

    def _list_nodes(self) -> dict[str, dict[str, float]]:
        """Return the resources of each node that is alive."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def start(self, config: WorkerConfig, batch_images: int = 0) -> None:
        """Let the workers load the model, without waiting for them. `batch_images` of 0 selects the number for the device."""
        model = config.model if self._shape.gpus else replace(config.model, device="cpu")
        if not ray_session.is_local_address(self._options.address):  # workers of a cluster have their own environment
            model = replace(model, settings=None)
        config = replace(config, model=model)
        self._config = config
        self.batch_images = batch_images or self.batch_images

    def _add_workers(self, slots: int) -> None:
        """Add workers up to the number of slots. A range is requested as a whole, so that an autoscaler adds nodes."""
        wanted = self._options.encoders or slots
        # With retries, a call waits for a process that is being restarted, or for a node with room. Others have none.
        options = {**self._shape.resources, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 3}
        actor_class = self._ray.remote(**options)(RayWorker)
        while len(self._workers) + len(self._refused) < wanted:
            number, self._created = self._created, self._created + 1
            self._workers[number] = _Worker(actor_class.remote())
            self._start_worker(number)

    def _start_worker(self, number: int) -> None:
        """Wait for the process of a worker, which then loads the model: if it dies meanwhile, that is the reason."""
        worker = self._workers[number]
        worker.is_ready = worker.is_loading = False
        self._starts[worker.actor.wake.remote()] = number

    def close(self) -> None:
        """Kill the workers."""
        self._kill_refused()
        for worker in self._workers.values():
            with suppress(Exception):  # the cluster is gone
                self._ray.kill(worker.actor)

    def _kill_refused(self) -> None:
        while self._refused:
            with suppress(Exception):
                self._ray.kill(self._refused.pop())

    def list_ready(self) -> Sequence[int]:
        """Return the workers that can take portions; none before the requested number of them is ready."""
        now_s = time.monotonic()
        if now_s - self._polled_s >= _NODES_POLL_S:
            self._polled_s = now_s
            self._look_for_nodes()
        ready = [number for number, worker in self._workers.items() if worker.is_ready]
        needed = 1 if self._has_begun else max(1, self._options.min_encoders)
        if len(ready) >= needed or not self._starts:
            self._has_begun, self._report_s = True, now_s + _WAITING_S
        elif now_s >= self._report_s:
            self._report_s = now_s + _REPEATED_S
            refused = f", {len(self._refused)} can't" if self._refused else ""
            logger.warning("%d of %d encoders have started%s: waiting for others (see `ray status`)", len(ready), needed, refused)
        return ready if self._has_begun else []

    def _look_for_nodes(self) -> None:
        nodes = self._list_nodes()
        if self._nodes and nodes.keys() != self._nodes:  # the places of refused workers may be on other nodes now
            self._kill_refused()
        self._nodes = set(nodes)
        if not self._options.encoders:
            self._add_workers(count_slots(list(nodes.values()), self._shape))

    def describe_worker(self, worker: int) -> str:
        """Return the machine and process of a worker."""
        return self._workers[worker].name if worker in self._workers else "a worker that is gone"

    def submit(self, worker: int, items: Sequence[SourceItem], writers: int) -> StageTask:
        """Submit a portion to a worker."""
        task: StageTask = self._workers[worker].actor.process.options(max_task_retries=0).remote(_pickle_items(items), writers)
        self._tasks[task] = worker
        return task

    def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
        """Wait until a portion is done or a worker is ready; see `WorkerPool`."""
        refs = [*self._starts, *self._tasks]
        if not self._workers:
            raise self._last_refusal or IngestError("no worker is left on Ray", code="no-worker-left")
        # waking now and then lets a Ctrl-C through, and finds new nodes
        pause_s = 1.0 if timeout_s is None else min(1.0, timeout_s)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=pause_s, fetch_local=False)
        if ready:  # and whatever else is done
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        for task in ready:
            if task in self._starts:
                self._finish_start(task)
        return [task for task in ready if task in self._tasks]

    def _finish_start(self, task: StageTask) -> None:
        number = self._starts.pop(task)
        worker = self._workers[number]
        try:
            worker.name = self._get(task)
        except WorkerDied as error:
            worker.load_deaths += 1
            if worker.load_deaths < _MAX_LOAD_DEATHS:
                self._start_worker(number)
            else:
                self._refuse_worker(number, IngestError(str(error), code="encoder-not-started"))
        except StairError as error:
            self._refuse_worker(number, error)
        else:
            if worker.is_loading:
                worker.is_ready, worker.load_deaths = True, 0
            else:
                worker.is_loading = True
                self._starts[self._load_model(worker)] = number

    def _load_model(self, worker: _Worker) -> StageTask:
        options = WorkerOptions(
            cores=max(1, int(self._shape.cpus)), batch_images=self.batch_images, decodes_in_processes=bool(self._shape.gpus)
        )
        task: StageTask = worker.actor.start.options(max_task_retries=0).remote(self._config, options)
        return task

    def _refuse_worker(self, number: int, error: StairError) -> None:
        """Go on without a worker that can't start. It keeps its place: the next one there couldn't start either."""
        self._refused.append(self._workers.pop(number).actor)
        self._last_refusal = IngestError(
            f"an encoder can't start on Ray: {error.message}",
            error.remedy or "The model must load on each node: the same stair-es, extras and model files as here.",
            code=error.code,
        )
        if self._workers:
            logger.warning("%s; the run goes on without it", self._last_refusal.message)

    def get_result(self, task: StageTask) -> PortionResult:
        """Return the result of a portion; see `WorkerPool`."""
        number = self._tasks.pop(task)
        try:
            result: PortionResult = self._get(task)
        except WorkerDied:
            if number in self._workers and self._workers[number].is_ready:
                self._start_worker(number)
            raise
        return result

    def _get(self, task: StageTask) -> Any:  # noqa: ANN401  that of the method
        exceptions = self._ray.exceptions
        # An actor, its machine, or a result that was stored there is gone: nothing of it says anything about the others.
        lost = (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
            exceptions.OutOfMemoryError,
        )
        try:
            return self._ray.get(task)
        except exceptions.RayError as error:
            cause: BaseException | None = error
            while isinstance(cause, exceptions.RayTaskError):
                cause = cause.cause
            if isinstance(cause, (StairError, WorkerDied)):
                raise cause from None
            if isinstance(cause, lost):
                raise WorkerDied(str(cause).partition("\n")[0]) from error
            raise IngestError(
                f"Ray failed: {cause or error}", "Run it again: it resumes from there.", code="ray-failed"
            ) from error


def _pickle_items(items: Sequence[SourceItem]) -> bytes | Sequence[SourceItem]:
    """Pickle items whose locators are of this package: Ray, which can send the classes of a script, takes three times as long."""
    modules = {type(item.locator).__module__ for item in items}
    is_own = all(module.startswith("stair_es.") for module in modules)
    return pickle.dumps(items, pickle.HIGHEST_PROTOCOL) if is_own else items


def choose_worker_shape(nodes: Sequence[dict[str, float]], options: RayOptions) -> WorkerShape:
    """Choose what each worker reserves on nodes with these resources.

    A worker with a GPU gets its share of the cores of its node, since it decodes the images for it. Workers without one share the
    cores: not more than `_MAX_CORES` each, and not more than the smallest node has.

    Raises:
        UsageError: If an encoder needs more than one GPU, but not a whole number.
    """
    gpus = options.gpus_per_encoder
    if gpus > 1 and gpus != int(gpus):
        raise UsageError(
            f"an encoder can't have {gpus:g} GPUs", "Give a fraction of one, or a whole number.", code="invalid-gpus-per-encoder"
        )
    on_gpu = [(node.get("CPU", 0.0), slots) for node in nodes if (slots := _count_gpu_slots(node.get("GPU", 0.0), gpus))]
    if on_gpu:
        share = min((int(cpus / slots) for cpus, slots in on_gpu if cpus >= slots), default=0)
        return WorkerShape(slots=sum(slots for _, slots in on_gpu), cpus=share, gpus=gpus)
    with_cpus = [node["CPU"] for node in nodes if node.get("CPU", 0.0) >= 1] or [1.0]
    cpus: float = int(min(count / math.ceil(count / _MAX_CORES) for count in with_cpus))
    if encoders := options.min_encoders or options.encoders:
        each = sum(with_cpus) / encoders
        cpus = min(cpus, int(each) if each >= 1 else each)
    shape = WorkerShape(slots=0, cpus=cpus, gpus=0.0)
    return replace(shape, slots=max(1, count_slots(nodes, shape)))


def count_slots(nodes: Sequence[dict[str, float]], shape: WorkerShape) -> int:
    """Return how many workers fit on nodes with these resources."""
    if shape.gpus:
        return sum(_count_gpu_slots(node.get("GPU", 0.0), shape.gpus) for node in nodes)
    return sum(int(node.get("CPU", 0.0) / shape.cpus + 1e-9) for node in nodes)


def _count_gpu_slots(node_gpus: float, gpus_per_encoder: float) -> int:
    """Return how many encoders fit on a node. Ray places a fraction on one GPU, so fractions are counted per GPU."""
    if gpus_per_encoder <= 0:
        return 0
    if gpus_per_encoder > 1:
        return int(node_gpus) // int(gpus_per_encoder)
    return int(node_gpus) * int(1 / gpus_per_encoder + 1e-9)
