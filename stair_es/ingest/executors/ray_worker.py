"""The worker of a Ray cluster: an actor that loads the model once, and runs the stages of its portions on its own threads."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from stair_es import plugins
from stair_es.cluster.bulk.throttle import AdaptiveThrottle
from stair_es.config.settings import resolve_settings
from stair_es.errors import DeviceLost, DeviceOutOfMemory, ModelError
from stair_es.ingest.accounting.run_accounting import BulkStats
from stair_es.ingest.deferred import ReturnedImages
from stair_es.ingest.executors.base import PortionDeferral, PortionOutcome, PortionResult, WorkerDied
from stair_es.ingest.executors.threads import ThreadExecutor
from stair_es.ingest.queues import PrefetchQueue
from stair_es.ingest.scheduler import Intake
from stair_es.ingest.stage_scheduler import StageScheduler
from stair_es.ingest.stages import WorkerConfig
from stair_es.ingest.state import Batch, Deferred, Outcome
from stair_es.model import hub
from stair_es.model.registry import resolve_model
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.store import BulkRequestStats
from stair_es.system.decoder_logs import disable_decoder_logs
from stair_es.system.ray_session import pickle_by_value


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker has of its machine."""

    cores: int
    batch_images: int
    decodes_in_processes: bool
    """Whether images are decoded in child processes: a model on a GPU must outlive an image that kills its decoder."""


class RayWorker:
    """The actor. Its methods run in several threads: two portions at a time, so that one is decoded while another is encoded."""

    def __init__(self) -> None:
        """Start without a model: the process starts while the driver lists images and opens its sink."""
        self._lock = Lock()
        self._config: WorkerConfig | None = None
        self._executor: ThreadExecutor | None = None
        self._throttles = list[AdaptiveThrottle]()

    def wake(self) -> str:
        """Return the name of this worker, once its process runs."""
        return f"{socket.gethostname()}, process {os.getpid()}"

    def start(self, config: WorkerConfig, options: WorkerOptions) -> str:
        """Load the model, unless it is loaded, and return the name of this worker.

        Raises:
            ModelError: If this machine has another model, or other packages, than the driver.
        """
        with self._lock:
            if self._executor is None:
                disable_decoder_logs()
                self._executor = _load_executor(config, options)
                self._config = config
        return self.wake()

    def process(self, portion: bytes | Sequence[SourceItem], writers: int) -> PortionResult:
        """Run all stages on the images of a portion.

        Args:
            portion: The images, pickled or not.
            writers: Maximum number of parallel bulk requests.

        Raises:
            StairError: If a stage failed as a whole.
            WorkerDied: If this process isn't the one that was started.
        """
        config = self._config
        if self._executor is None or config is None:
            raise WorkerDied("it was restarted since it was last used")  # the driver starts it, or goes on without it
        items: Sequence[SourceItem] = pickle.loads(portion) if isinstance(portion, bytes) else portion
        with self._lock:
            throttle = self._throttles.pop() if self._throttles else AdaptiveThrottle(config.bulk)
        throttle.set_max_concurrency(writers)
        requests = _RequestLog()
        intake = Intake(accept_listed=_accept_items, deferred=ReturnedImages(), bulk_stats=requests)
        scheduler = StageScheduler(self._executor, throttle, intake, is_empty=config.skips_check)
        try:
            with PrefetchQueue[SourceItem | ListingFailure](items, len(items)) as queue:
                return _build_result(items, list(scheduler.run(queue)), requests)
        except (DeviceLost, DeviceOutOfMemory):  # for this process: Ray starts another one, and the portion is sent again
            os._exit(1)
        finally:
            self._throttles.append(throttle)


def _load_executor(config: WorkerConfig, options: WorkerOptions) -> ThreadExecutor:
    check_installation(config.packages, plugins.list_package_versions())
    hub.pin_revisions(config.hub_revisions)
    settings = resolve_settings(config.model.settings)
    trusting = replace(settings, trusted_code=settings.trusted_code | config.trusted_code)
    model = resolve_model(replace(config.model, settings=trusting))
    if model.card.model_id != config.model_id:
        raise ModelError(
            f"{socket.gethostname()} has the model {model.card.model_id}, and this run needs {config.model_id}",
            "Copy the same files to each node, or name a model of the Hugging Face hub.",
            code="worker-with-other-model",
        )
    executor = ThreadExecutor(
        config,
        model,
        options.batch_images,
        config.bulk.choose_concurrency(),
        cores=options.cores,
        dump=pickle_by_value if options.decodes_in_processes else None,
    )
    side_px = config.image_spec.size_px
    for encoder in executor.models:
        encoder.encode_images(np.zeros((1, side_px, side_px, 3), np.uint8))  # loads the network
    return executor


class _RequestLog(BulkStats):
    """The requests themselves: the driver counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.log = list[BulkRequestStats]()

    def record_request(self, request: BulkRequestStats) -> None:
        self.log.append(request)


def check_installation(driver: Mapping[str, str], worker: Mapping[str, str]) -> None:
    """Check that a worker has the packages of the driver, stair-es and those with plugins.

    Raises:
        ModelError: If one has another version, or is missing on one side; the message names all such packages.
    """
    different = [
        f"{name} {worker.get(name, 'missing')} instead of {driver.get(name, 'none')}"
        for name in sorted(driver.keys() | worker.keys())
        if worker.get(name) != driver.get(name)
    ]
    if different:
        raise ModelError(
            f"{socket.gethostname()} has other packages than the driver: {', '.join(different)}",
            "Install the same versions on each node.",
            code="worker-with-other-packages",
        )


def _accept_items(found: Sequence[SourceItem | ListingFailure]) -> list[SourceItem]:
    return [item for item in found if isinstance(item, SourceItem)]


def _build_result(items: Sequence[SourceItem], batches: Sequence[Batch], requests: _RequestLog) -> PortionResult:
    states: dict[str, PortionOutcome | PortionDeferral] = {}
    times = Batch([])
    for batch in batches:
        times.add_times(batch)
        for state in batch.images:
            if isinstance(state, Outcome):
                states[state.item.uri] = PortionOutcome(state.kind, state.stage, state.reason, state.id)
            elif isinstance(state, Deferred):
                states[state.item.uri] = PortionDeferral(state.host, state.wait_s, state.reason, state.was_requested)
    return PortionResult([states[item.uri] for item in items], times.seconds, times.began_ns, requests.log)
