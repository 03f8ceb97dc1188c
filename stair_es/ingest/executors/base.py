"""The executor interface: where the stages run, in this process or on Ray."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any, Literal, Protocol, TypeAlias

Stage: TypeAlias = Literal["check", "prepare", "encode", "write"]
"""The stages as functions: see `ingest.stages`."""
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
            WorkerDied: If a worker process died.
        """
