"""The executor interface: where the stages run, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Protocol, TypeAlias

from stair_es.ingest.state import Batch
from stair_es.store import BulkRequestStats

StageTask: TypeAlias = Hashable
"""A submitted task: a future, or a reference to a remote object."""


class WorkerDied(Exception):
    """The worker process of a task is gone: killed by its input, by the kernel, or with its machine."""


class StageExecutor(Protocol):
    """Runs the stages as tasks.

    A failure propagates to the tasks that depend on it, so that only the last results need to be checked.
    """

    encoders: int
    """Number of encode tasks that can run in parallel."""
    workers: int
    """Number of prepare tasks that can run in parallel."""
    batch_images: int
    """Number of images per encoder batch."""

    def submit_check(self, batch: Batch) -> StageTask:
        """Submit a check; its result is a `Batch`."""

    def submit_prepare(self, batch: Batch) -> StageTask:
        """Submit a prepare; its result can only be passed to `submit_encode`."""

    def submit_encode(self, prepared: StageTask, encoder: int) -> StageTask:
        """Submit an encode of a prepare's result on encoder number `encoder` (0..encoders-1); for `submit_write` only."""

    def submit_write(self, encoded: Sequence[StageTask], chunk_bytes: int) -> StageTask:
        """Submit a write of the results of encodes; its result is `(batches, sent)`."""

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        """Wait until at least one task is done or `timeout_s` has passed; return the tasks that are done."""

    def get_checked(self, task: StageTask) -> Batch:
        """Return the result of a check.

        Raises:
            StairError: If the stage failed as a whole.
            WorkerDied: If the worker process died.
        """

    def get_written(self, task: StageTask) -> tuple[list[Batch], list[BulkRequestStats]]:
        """Return the result of a write.

        Raises:
            StairError: If a stage failed as a whole.
            WorkerDied: If a worker process died.
        """
