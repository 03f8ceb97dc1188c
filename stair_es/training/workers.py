"""Workers of a training: the protocol, a single process, and torch.distributed, whose process group must exist already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed

_T = TypeVar("_T")


class WorkerGroup(Protocol):
    """Worker group of a training: gathers rows and sums gradients."""

    rank: int
    count: int

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows of all workers, ordered by rank, without gradient."""

    def sum_in_place(self, tensor: Tensor) -> None:
        """Sum a tensor over all workers in place."""

    def broadcast_first(self, tensor: Tensor) -> None:
        """Copy the first worker's tensor to all workers in place."""

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the values of all workers, ordered by rank."""


class SingleProcess:
    """A worker group of one process."""

    rank, count = 0, 1

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows unchanged."""
        return rows_B

    def sum_in_place(self, tensor: Tensor) -> None:
        """Keep the tensor unchanged."""

    def broadcast_first(self, tensor: Tensor) -> None:
        """Keep the tensor unchanged."""

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the value."""
        return [value]


class DistributedWorkers:
    """Worker group on torch.distributed. Tensors on other devices are copied to the group's device and back."""

    def __init__(self) -> None:
        """Join the default process group."""
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows of all workers, ordered by rank, by `all_gather`."""
        local = rows_B.detach().to(self._device).contiguous()
        gathered = [torch.empty_like(local) for _ in range(self.count)]
        distributed.all_gather(gathered, local)
        return torch.cat(gathered).to(rows_B.device)

    def sum_in_place(self, tensor: Tensor) -> None:
        """Sum a tensor over all workers in place, by `all_reduce`."""
        self._apply_in_place(tensor, distributed.all_reduce)

    def broadcast_first(self, tensor: Tensor) -> None:
        """Copy the first worker's tensor to all workers in place, by `broadcast`."""
        self._apply_in_place(tensor, lambda on_device: distributed.broadcast(on_device, src=0))

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the values of all workers, ordered by rank, by `all_gather_object`."""
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def _apply_in_place(self, tensor: Tensor, collective: Callable[[Tensor], object]) -> None:
        on_device = tensor.detach().to(self._device).contiguous()
        collective(on_device)
        tensor.detach().copy_(on_device)
