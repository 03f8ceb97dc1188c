"""Workers of a training: the protocol, a single process, and torch.distributed, whose process group must exist already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, distributed


class Workers(Protocol):
    """The workers of a training: gathers rows and sums gradients."""

    rank: int
    count: int

    def gather(self, rows_B: Tensor) -> Tensor:
        """The rows of all workers, in the order of their ranks; no gradient goes through."""

    def sum(self, tensor: Tensor) -> None:
        """Add up, in place, what all workers have."""

    def take_first(self, tensor: Tensor) -> None:
        """Give all, in place, what the first worker has."""


class Alone:
    """The only worker."""

    rank, count = 0, 1

    def gather(self, rows_B: Tensor) -> Tensor:
        """See `Workers`."""
        return rows_B

    def sum(self, tensor: Tensor) -> None:
        """See `Workers`."""

    def take_first(self, tensor: Tensor) -> None:
        """See `Workers`."""


class Distributed:
    """See `step.Workers`. What isn't a tensor of the group's device goes there and back."""

    def __init__(self) -> None:
        """Take part in the default process group."""
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")

    def gather(self, rows_B: Tensor) -> Tensor:
        """See `step.Workers`."""
        own = rows_B.detach().to(self._device).contiguous()
        found = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(found, own)
        return torch.cat(found).to(rows_B.device)

    def sum(self, tensor: Tensor) -> None:
        """See `step.Workers`."""
        self._in_place(tensor, distributed.all_reduce)

    def take_first(self, tensor: Tensor) -> None:
        """See `step.Workers`."""
        self._in_place(tensor, lambda there: distributed.broadcast(there, src=0))

    def _in_place(self, tensor: Tensor, call: Callable[[Tensor], object]) -> None:
        there = tensor.detach().to(self._device).contiguous()
        call(there)
        tensor.detach().copy_(there)
