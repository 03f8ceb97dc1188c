"""The executor interface: where the stages run, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Protocol, TypeAlias

from stair_es.cluster.bulk import Sent
from stair_es.ingest.batch import Batch

Task: TypeAlias = Hashable
"""A submitted task: a future, or a reference to a remote object."""


class WorkerDied(Exception):
    """The worker process of a task is gone: killed by its input, by the kernel, or with its machine."""


class Lanes(Protocol):
    """Runs the stages as tasks.

    A failure propagates to the tasks that depend on it, so that only the last results need to be checked.
    """

    encoders: int
    """Number of encode tasks that can run in parallel."""
    workers: int
    """Number of prepare tasks that can run in parallel."""
    batch_images: int
    """Number of images per encoder batch."""

    def check(self, batch: Batch) -> Task:
        """Submit a check; its result is a `Batch`."""

    def prepare(self, batch: Batch) -> Task:
        """Submit a prepare; its result can only be passed to `submit_encode`."""

    def encode(self, prepared: Task, encoder: int) -> Task:
        """Submit an encode of a prepare's result on encoder number `encoder` (0..encoders-1); for `submit_write` only."""

    def write(self, encoded: Sequence[Task], chunk_bytes: int) -> Task:
        """Submit a write of the results of encodes; its result is `(batches, sent)`."""

    def wait(self, tasks: Collection[Task], timeout_s: float | None) -> list[Task]:
        """Wait until at least one task is done or `timeout_s` has passed; return the tasks that are done."""

    def checked(self, task: Task) -> Batch:
        """Return the result of a check.

        Raises:
            StairError: If the stage failed as a whole.
            WorkerDied: If the worker process died.
        """

    def written(self, task: Task) -> tuple[list[Batch], list[Sent]]:
        """Return the result of a write.

        Raises:
            StairError: If a stage failed as a whole.
            WorkerDied: If a worker process died.
        """
