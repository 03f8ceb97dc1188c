"""Workers of a training: the protocol, a single process, and torch.distributed, whose process group must exist already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, distributed

_BUCKET_BYTES = 25 * 2**20
"""One collective per tensor waits for the network hundreds of times; one for all of them needs a copy of all gradients."""


class WorkerGroup(Protocol):
    """Worker group of a training: gathers rows and sums gradients."""

    rank: int
    count: int

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows of all workers, ordered by rank, without gradient."""

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all workers in place."""

    def broadcast_first(self, tensor: Tensor) -> None:
        """Copy the first worker's tensor to all workers in place."""


class SingleProcess:
    """A worker group of one process."""

    rank, count = 0, 1

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows unchanged."""
        return rows_B.detach()

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Keep the tensors unchanged."""

    def broadcast_first(self, tensor: Tensor) -> None:
        """Keep the tensor unchanged."""


class DistributedWorkers:
    """Worker group on torch.distributed. Tensors on other devices are copied to the group's device and back."""

    def __init__(self) -> None:
        """Join the default process group."""
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return the rows of all workers, ordered by rank, by `all_gather`."""
        local = rows_B.detach().to(self._device).contiguous()
        gathered = local.new_empty((self.count * len(local), *local.shape[1:]))
        distributed.all_gather_into_tensor(gathered, local)
        return gathered.to(rows_B.device)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all workers in place, by one `all_reduce` for each bucket of 25 MB."""
        for bucket in _fill_buckets(tensors):
            flat = torch.cat([tensor.detach().flatten() for tensor in bucket]).to(self._device)
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def broadcast_first(self, tensor: Tensor) -> None:
        """Copy the first worker's tensor to all workers in place, by `broadcast`."""
        on_device = tensor.detach().to(self._device).contiguous()
        distributed.broadcast(on_device, src=0)
        tensor.detach().copy_(on_device)


def _fill_buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in their order, in lists of one type and device and at most 25 MB (or one tensor)."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        is_other = bool(bucket) and (bucket[0].dtype, bucket[0].device) != (tensor.dtype, tensor.device)
        if bucket and (is_other or size + tensor.nbytes > _BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket
