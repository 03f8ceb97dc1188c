"""Workers of a training: the protocol, a single process, torch.distributed, and joining the workers that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed import rendezvous

from stair_es.errors import StairError, UsageError

_T = TypeVar("_T")
WORKER_TIMEOUT_S = 24 * 3600
"""Timeout for collective operations. Ray and torchrun detect dead workers, so a slow worker is only slow."""
_RENDEZVOUS_TIMEOUT_S = 3600
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_RESTARTS = "TORCHELASTIC_RESTART_COUNT"
RESUME_REMEDY = "Run it again: it resumes from the last saved state."
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

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the values of all workers, ordered by rank."""


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

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the value."""
        return [value]


@contextmanager
def let_first_go(workers: WorkerGroup, *, is_needed: bool = True) -> Iterator[None]:
    """Run the context in the first worker, then in all others, which find what it has stored; at once if it isn't needed."""
    waits = is_needed and workers.count > 1
    if waits and workers.rank:
        workers.broadcast_first(torch.zeros(1))
    yield
    if waits and not workers.rank:
        workers.broadcast_first(torch.zeros(1))


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

    def gather_objects(self, value: _T) -> list[_T]:
        """Return the values of all workers, ordered by rank, by `all_gather_object`."""
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values


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


@dataclass(frozen=True, kw_only=True)
class JoinedWorkers:
    """Worker group of this process, and its part of the machine."""

    group: WorkerGroup
    device: str
    threads: int


def is_started_by_torchrun() -> bool:
    """Return whether torchrun, or a launcher with the same variables, started this process."""
    return all(os.environ.get(name) for name in _VARIABLES)


def is_first_worker() -> bool:
    """Return whether this process has rank 0, which alone prints and writes. Without torchrun, it always has."""
    return not is_started_by_torchrun() or os.environ["RANK"] == "0"


def is_restarted() -> bool:
    """Return whether torchrun has restarted the workers, after one of them was lost (`--max-restarts`)."""
    return is_started_by_torchrun() and os.environ.get(_RESTARTS, "0") != "0"


@contextmanager
def join_torchrun(device: str) -> Iterator[JoinedWorkers]:
    """Join the process group within the context: over NCCL with one GPU per worker, otherwise over gloo.

    Args:
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UsageError: If the machine has fewer GPUs than workers.
        StairError: If the other workers can't be reached, or one of them was lost.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if local_rank >= (gpus := torch.cuda.device_count()):
            raise UsageError(
                f"worker {local_rank} of this machine has no GPU: there are {gpus}",
                "Lower --nproc-per-node, or give --device cpu.",
                code="gpus-too-few",
            )
        torch.cuda.set_device(local_rank)
    is_complete = False
    try:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=_RENDEZVOUS_TIMEOUT_S)))
        # After a restart the store still has the addresses of the workers before, and gloo would wait for them.
        store = distributed.PrefixStore(f"stair-es/{os.environ.get(_RESTARTS, '0')}", store)
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=count,
            timeout=timedelta(seconds=WORKER_TIMEOUT_S),
        )
        local_count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        yield JoinedWorkers(
            group=DistributedWorkers(),
            device=f"cuda:{local_rank}" if on_gpu else device,
            threads=max(1, (os.cpu_count() or 1) // local_count),
        )
        distributed.barrier()  # a worker that leaves earlier would look lost to the others
        is_complete = True
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise StairError(f"lost the connection to another worker: {reason}", RESUME_REMEDY, code="worker-failed") from error
    finally:
        if distributed.is_initialized() and (is_complete or not on_gpu):  # NCCL may wait for a lost worker
            distributed.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Return whether the error is one of torch.distributed; gloo has no class of its own."""
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in ("gloo", "connection"))
