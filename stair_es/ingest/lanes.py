"""Where stages run: what the pump asks of this process, or of Ray."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Protocol, TypeAlias

from stair_es.cluster.bulk import Sent
from stair_es.ingest.batch import Batch

Task: TypeAlias = Hashable
"""Something under way: a future, or a reference to an object that will be."""


class WorkerDied(Exception):
    """The process that worked on a task is gone for good: killed by its input, by the kernel, with its machine."""


class Lanes(Protocol):
    """The stages as tasks. What fails fails the tasks that build on it too, so that only the last results need be looked at."""

    encoders: int
    """How many encode tasks can run at a time: what the others have to keep busy."""
    workers: int
    """How many prepare tasks can run at a time."""
    batch_images: int
    """How many images an encoder takes at once."""

    def check(self, batch: Batch) -> Task:
        """Start a check; its result is a Batch."""

    def prepare(self, batch: Batch) -> Task:
        """Start a prepare; its result is for `encode` only."""

    def encode(self, prepared: Task, encoder: int) -> Task:
        """Start an encode of what a prepare made, on encoder number `encoder` (0..encoders-1); for `write` only."""

    def write(self, encoded: Sequence[Task], chunk_bytes: int) -> Task:
        """Start a write of what encodes made; its result is `(batches, sent)`."""

    def wait(self, tasks: Collection[Task], timeout_s: float | None) -> list[Task]:
        """Those of the tasks that are done; at least one, unless `timeout_s` passes first."""

    def checked(self, task: Task) -> Batch:
        """The result of a check.

        Raises:
            StairError: The stage failed as a whole.
            WorkerDied: See there.
        """

    def written(self, task: Task) -> tuple[list[Batch], list[Sent]]:
        """The result of a write; raises as `checked` does."""
