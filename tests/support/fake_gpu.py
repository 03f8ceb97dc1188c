"""A GPU that is pretended on the CPU, for tests of what runs on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from stair_es.model import torch_device
from stair_es.model.torch_device import CudaGpu

_T = TypeVar("_T")
_GARBAGE = 171


class FakeEvent:
    """The end of a copy, which happens as late as it may: when something waits for it."""

    def __init__(self, finish: Callable[[], object]) -> None:
        self._finish: Callable[[], object] | None = finish
        self._lock = threading.Lock()

    def synchronize(self) -> None:
        """Finish the copy."""
        with self._lock, torch.inference_mode():
            if self._finish is not None:
                self._finish()
            self._finish = None


class FakeGpu(CudaGpu):
    """A GPU in the memory of the CPU.

    What isn't waited for is garbage. A chunk of more than `max_items` doesn't fit, and `failures` are raised one after another.
    """

    def __init__(self, *, bf16: bool = False, max_items: int | None = None, free_bytes: int = 1 << 40) -> None:
        self.name = "cpu"
        self.bf16, self.max_items, self.free_bytes = bf16, max_items, free_bytes
        self.failures: list[Exception] = []
        self.chunks: list[int] = []
        """Items of each chunk that was computed."""
        self.copies: list[tuple[torch.dtype, int]] = []
        """Type and bytes of each array that was sent."""
        self.log: list[str] = []
        """What happened in this order: `copy` of a chunk to the GPU, its `run`, and when its outputs were `fetched`."""
        self.pinned: list[int] = []
        """Sizes of the page-locked buffers."""
        self.releases = 0
        self.tf32 = False

    def supports_bf16(self) -> bool:
        return self.bf16

    def allow_tf32(self) -> None:
        self.tf32 = True

    def allocate_pinned(self, size_bytes: int) -> Tensor:
        self.pinned.append(size_bytes)
        return torch.full((size_bytes,), _GARBAGE, dtype=torch.uint8)

    def start_copy(self, pinned: Tensor) -> tuple[Tensor, Any]:
        self.copies.append((pinned.dtype, pinned.nbytes))
        self.log.append("copy")
        copy = torch.full_like(pinned, _GARBAGE)
        return copy, FakeEvent(lambda: copy.copy_(pinned))

    def require_copy(self, copy: Tensor, copied: Any) -> None:  # noqa: ANN401
        copied.synchronize()

    def start_fetch(self, tensors: Sequence[Tensor | None]) -> tuple[list[Tensor | None], Any]:
        items = max(len(tensor) for tensor in tensors if tensor is not None)
        if self.failures:
            raise self.failures.pop(0)
        if self.max_items is not None and items > self.max_items:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.chunks.append(items)
        self.log.append("run")
        fetched = [None if tensor is None else torch.full_like(tensor, _GARBAGE) for tensor in tensors]

        def finish() -> None:
            self.log.append("fetched")
            for target, tensor in zip(fetched, tensors, strict=True):
                if target is not None and tensor is not None:
                    target.copy_(tensor)

        return fetched, FakeEvent(finish)

    def measure_bytes(self, compute: Callable[[], _T]) -> tuple[_T, int]:
        """Pretend that each item needs a gigabyte."""
        result: Any = compute()
        return result, len(result[0] if result[0] is not None else result[-1]) << 30

    def get_free_bytes(self) -> int:
        return self.free_bytes

    def release_cache(self) -> None:
        self.releases += 1


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, **options: Any) -> FakeGpu:  # noqa: ANN401
    """Let networks that are loaded from now on run on a fake GPU, with the options of `FakeGpu`."""
    gpu = FakeGpu(**options)
    monkeypatch.setattr(torch_device, "open_gpu", lambda device: gpu)
    return gpu
