"""The interfaces below the schedulers: what runs the stages of a batch in this process, and what processes portions elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from stair_es.ingest.state import IngestStage, OutcomeKind
from stair_es.sources.base import SourceItem
from stair_es.store import BulkRequestStats

Stage: TypeAlias = Literal["check", "prepare", "encode", "write"]
"""The stages as functions: see `ingest.stages`."""
StageTask: TypeAlias = Hashable
"""A submitted task: a future, or a reference to a remote object."""


class WorkerDied(Exception):
    """The process of a task is gone: killed by its input, by the kernel, or with its machine."""


class StageExecutor(Protocol):
    """Runs the stages as tasks.

    A failure propagates to the tasks that depend on it, so that only the last results need to be checked.
    """

    encoders: int
    """Number of encode tasks that can run in parallel."""
    workers: int
    """Number of prepare tasks that can run in parallel."""
    batch_images: int

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        """Submit a stage as a task.

        Args:
            stage: The stage.
            *inputs: Its arguments; a task stands for its result. `check` and `prepare` take a batch, `encode` a prepared batch,
                `write` the bytes of a request and encoded batches.
            encoder: Number of the encoder (0..encoders-1) for `encode`.
        """

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        """Wait until at least one task is done or `timeout_s` has passed; return the tasks that are done."""

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        """Return the result of a task.

        Raises:
            StairError: If a stage failed as a whole.
            WorkerDied: If the process that decoded the batch died.
        """


class PortionOutcome(NamedTuple):
    """The outcome of an image, without the image: a worker returns it in the order of the portion."""

    kind: OutcomeKind
    stage: IngestStage
    reason: str
    id: str


class PortionDeferral(NamedTuple):
    """What the host of an image asks for, without the image; see `Deferred`."""

    host: str
    wait_s: float
    reason: str
    was_requested: bool


@dataclass(frozen=True)
class PortionResult:
    """What a worker returns for a portion."""

    states: Sequence[PortionOutcome | PortionDeferral]
    seconds: Mapping[IngestStage, float]
    began_ns: Mapping[IngestStage, int]
    requests: Sequence[BulkRequestStats]


class WorkerPool(Protocol):
    """Workers that check, read, decode, encode and write portions of images, each as one task.

    Workers come and go. A number stands for a worker, and for the one that replaces it after it died.
    """

    encoders: int
    """Number of encode tasks that a worker can run in parallel."""
    batch_images: int
    """Images per batch of a worker."""

    def list_ready(self) -> Sequence[int]:
        """Return the numbers of the workers that can take portions now."""

    def submit(self, worker: int, items: Sequence[SourceItem], writers: int) -> StageTask:
        """Submit a portion to a worker, which sends at most `writers` bulk requests for it in parallel."""

    def wait_any(self, timeout_s: float | None) -> Sequence[StageTask]:
        """Wait until a task is done, a worker becomes ready, or `timeout_s` has passed; return the tasks that are done.

        Raises:
            StairError: If no worker is left.
        """

    def get_result(self, task: StageTask) -> PortionResult:
        """Return the result of a portion that is done.

        Raises:
            StairError: If a stage failed as a whole.
            WorkerDied: If the worker died, or its machine was lost.
        """

    def describe_worker(self, worker: int) -> str:
        """Return the machine and process of a worker, for messages."""
