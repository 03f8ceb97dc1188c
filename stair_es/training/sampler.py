"""Which pairs stand in which batch: a function of the seed and the step alone, so that a run can go on where it stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stair_es.errors import UsageError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Draw:
    """A pair in a batch."""

    item: int
    turn: int
    """How often it came before (the epoch): what augmentation and captions are drawn by."""


class Sampler:
    """Batches for ever, epoch after epoch; no two pairs of the same group in a batch."""

    def __init__(self, groups: Sequence[object], size: int, seed: int) -> None:
        """Nothing is drawn yet.

        Args:
            groups: For each pair what it must be alone in: its caption, as another image of the same caption is no wrong answer.
            size: Of a batch, over all workers.
            seed: Of the run.

        Raises:
            UsageError: There are fewer groups than a batch needs.
        """
        different = len(set(groups))
        if different < size:
            raise UsageError(
                f"a batch of {size} needs as many different captions, the training set has {different}",
                "Give a smaller batch.size, or more pairs.",
            )
        self._groups, self._size, self._seed = groups, size, seed

    def batches(self, begin: int = 0) -> Iterator[tuple[Draw, ...]]:
        """The batches from the step `begin` on."""
        step, epoch = 0, 0
        while True:
            for batch in self._epoch(epoch):
                if step >= begin:
                    yield tuple(Draw(int(item), epoch) for item in batch)
                step += 1
            epoch += 1

    def _epoch(self, epoch: int) -> Iterator[list[int]]:
        """Whole batches of one pass; what is left over in the end waits for the next pass."""
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._groups))
        waiting = deque(order.tolist())
        while len(waiting) >= self._size:
            batch: list[int] = []
            seen: set[object] = set()
            passed: list[int] = []
            while waiting and len(batch) < self._size:
                item = waiting.popleft()
                if self._groups[item] in seen:
                    passed.append(item)
                else:
                    batch.append(item)
                    seen.add(self._groups[item])
            if len(batch) < self._size:
                return
            waiting.extendleft(reversed(passed))
            yield batch


def share(batch: Sequence[_T], rank: int, workers: int) -> Sequence[_T]:
    """The part of a batch that one of several workers takes: parts of the same size, in order.

    Raises:
        UsageError: The batch can't be divided.
    """
    if len(batch) % workers:
        raise UsageError(f"a batch of {len(batch)} can't be divided among {workers} workers", "Choose a multiple for batch.size.")
    each = len(batch) // workers
    return batch[rank * each : (rank + 1) * each]
