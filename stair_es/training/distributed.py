"""Workers over torch.distributed: the process group must be there already."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed


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
