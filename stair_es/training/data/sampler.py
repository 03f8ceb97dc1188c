"""Assign pairs to batches: a function of seed and step alone, so that a run can resume."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ConfigError

_T = TypeVar("_T")


@dataclass(frozen=True)
class SampleIndex:
    """A pair in a batch."""

    item: int
    epoch: int
    """Epoch, which seeds augmentation and captions."""


class BatchSampler:
    """Endless batches, epoch after epoch; no two pairs of the same group are in one batch."""

    def __init__(self, groups: Sequence[int] | NDArray[np.int64], size: int, seed: int) -> None:
        """Check that there are enough groups.

        Args:
            groups: Group of each pair: a hash of its caption, since another image with the same caption isn't a negative.
            size: Batch size over all workers.
            seed: Seed of the run.

        Raises:
            UsageError: If there are fewer groups than a batch needs.
        """
        self._groups = np.asarray(groups, dtype=np.int64)
        group_count = len(np.unique(self._groups))
        if group_count < size:
            raise ConfigError(
                f"a batch of {size} requires {size} different captions, but the training set has {group_count}",
                "Give a smaller batch.size, or more pairs.",
            )
        self._size, self._seed = size, seed

    def iterate_batches(self, begin: int = 0) -> Iterator[tuple[SampleIndex, ...]]:
        """Yield the batches from step `begin` on."""
        step, epoch = 0, 0
        while True:
            for batch in self._iterate_epoch(epoch):
                if step >= begin:
                    yield tuple(SampleIndex(int(item), epoch) for item in batch)
                step += 1
            epoch += 1

    def _iterate_epoch(self, epoch: int) -> Iterator[list[int]]:
        """Yield the full batches of one epoch; the rest waits for the next epoch."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._groups))
        remaining = deque(order.tolist())
        while len(remaining) >= self._size:
            batch: list[int] = []
            used_groups = set[int]()
            skipped: list[int] = []
            while remaining and len(batch) < self._size:
                item = remaining.popleft()
                group = int(self._groups[item])
                if group in used_groups:
                    skipped.append(item)
                else:
                    batch.append(item)
                    used_groups.add(group)
            if len(batch) < self._size:
                return
            remaining.extendleft(reversed(skipped))
            yield batch


def split_batch(batch: Sequence[_T], rank: int, workers: int) -> Sequence[_T]:
    """Return the part of a batch for one worker: parts have the same size, in order.

    Raises:
        UsageError: If the batch can't be divided.
    """
    if len(batch) % workers:
        raise ConfigError(
            f"a batch of {len(batch)} can't be divided among {workers} workers", "Choose a multiple for batch.size."
        )
    share = len(batch) // workers
    return batch[rank * share : (rank + 1) * share]
