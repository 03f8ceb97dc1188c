"""Run a network in PyTorch: on one device, in one precision, in chunks that fit its memory, with copies next to the computing.

On a GPU, images are sent as bytes from page-locked buffers by a stream of their own, so that one chunk is copied while another is
computed. All functions may be called from several threads; two threads keep a GPU busy.

Shape suffixes: B batch, H height, W width, C channel.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stair_es.errors import DeviceLost, DeviceOutOfMemory, ModelError
from stair_es.model.base import ModelSpec
from stair_es.types import Precision

FIRST_CHUNK, MAX_CHUNK = 32, 512
"""Items of the first chunk on a GPU, whose memory is measured, and at most."""
CPU_CHUNK = 8
"""Items per run on the CPU: their weights over a whole vocabulary need memory, and more aren't faster."""
_MEMORY_SHARE = 0.5
"""Share of the free memory of a GPU that a chunk may use: other encoders may run there."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_T = TypeVar("_T")
_Inputs: TypeAlias = Any
"""A chunk as `compute` gets it, or as the caller has it."""
_Outputs: TypeAlias = "tuple[Any, ...]"
"""An array for each output of `compute`, or None where that is None."""


class CudaGpu:
    """The calls of CUDA that are made here. Tests replace it by a GPU that is pretended on the CPU."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._copy_stream = torch.cuda.Stream(name)

    def supports_bf16(self) -> bool:
        """Return whether the GPU computes in bf16 itself, as those since Ampere do."""
        with torch.cuda.device(self.name):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))

    def allow_tf32(self) -> None:
        """Let what is computed in fp32 be multiplied in TF32."""
        torch.set_float32_matmul_precision("high")

    def allocate_pinned(self, size_bytes: int) -> Tensor:
        """Return page-locked memory."""
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)

    def start_copy(self, pinned: Tensor) -> tuple[Tensor, Any]:
        """Start a copy to the GPU, and return it with the event of its end."""
        with torch.cuda.stream(self._copy_stream):
            return pinned.to(self.name, non_blocking=True), self._copy_stream.record_event(torch.cuda.Event(blocking=True))

    def require_copy(self, copy: Tensor, copied: Any) -> None:  # noqa: ANN401  an Event
        """Let the next computation wait for a copy, without waiting here."""
        stream = torch.cuda.current_stream(self.name)
        stream.wait_event(copied)
        copy.record_stream(stream)

    def start_fetch(self, tensors: Sequence[Tensor | None]) -> tuple[list[Tensor | None], Any]:
        """Start the copies of computed tensors to the CPU, and return them with the event of their end."""
        fetched = [None if tensor is None else tensor.to("cpu", non_blocking=True) for tensor in tensors]
        done = torch.cuda.Event(blocking=True)  # who waits for it leaves its core to the decoders
        return fetched, torch.cuda.current_stream(self.name).record_event(done)

    def measure_bytes(self, compute: Callable[[], _T]) -> tuple[_T, int]:
        """Compute, and return the result with the memory that it needed at most, in bytes."""
        before = torch.cuda.memory_allocated(self.name)
        torch.cuda.reset_peak_memory_stats(self.name)
        result = compute()
        return result, torch.cuda.max_memory_allocated(self.name) - before

    def get_free_bytes(self) -> int:
        """Return the memory that this process can still allocate, in bytes."""
        free, _ = torch.cuda.mem_get_info(self.name)
        return int(free + torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name))

    def release_cache(self) -> None:
        """Give memory back that PyTorch holds without need."""
        torch.cuda.empty_cache()


def open_gpu(device: str) -> CudaGpu | None:
    """Open the device of a spec: a GPU, or None for the CPU.

    Raises:
        ModelError: If there is no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or not (device or count):
        return None
    index = int(device.partition(":")[2] or 0)
    if index >= count:
        raise ModelError(
            f"there is no device {device}: PyTorch finds {count} GPUs",
            "Check nvidia-smi, CUDA_VISIBLE_DEVICES, and that PyTorch was built for CUDA.",
            code="device-not-found",
        )
    return CudaGpu(f"cuda:{index}")


@dataclass
class _Slot:
    pinned: Tensor
    copied: Any = None


class _PinnedRing:
    """Two page-locked buffers that are reused in turn: locking memory takes longer than copying it."""

    def __init__(self, gpu: CudaGpu) -> None:
        self._gpu, self._lock, self._turn = gpu, threading.Lock(), 0
        self._slots = [_Slot(torch.empty(0, dtype=torch.uint8)) for _ in range(2)]

    def send(self, array: NDArray[Any]) -> tuple[Tensor, Any]:
        """Start a copy of an array to the GPU, and return it with the event of its end."""
        with self._lock:
            slot = self._slots[self._turn]
            self._turn = (self._turn + 1) % len(self._slots)
            if slot.copied is not None:
                slot.copied.synchronize()
            if len(slot.pinned) < array.nbytes:
                slot.pinned = self._gpu.allocate_pinned(array.nbytes)
            staged = slot.pinned.numpy()[: array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(staged, array)
            copy, slot.copied = self._gpu.start_copy(torch.from_numpy(staged))
            return copy, slot.copied


class _ChunkSize:
    """The number of items per run on a GPU: as many as fit, by the memory that the largest run so far needed."""

    def __init__(self) -> None:
        self.items, self._measured, self._limit = FIRST_CHUNK, 0, MAX_CHUNK

    def is_unknown(self, items: int) -> bool:
        """Return whether the need of this many items wasn't measured."""
        return items > self._measured

    def adapt(self, items: int, used_bytes: int, free_bytes: int) -> None:
        """Choose the size after a run of this many items."""
        self._measured = items
        self.items = max(1, min(self._limit, int(_MEMORY_SHARE * free_bytes * items / max(1, used_bytes))))

    def halve(self, items: int) -> None:
        """Reduce the size for good, after a run of this many items has failed."""
        self.items = self._limit = items // 2


class TorchDevice:
    """The device and precision that a network runs with."""

    def __init__(self, spec: ModelSpec) -> None:
        """Open the device.

        Raises:
            ModelError: If there is no such GPU.
        """
        self._gpu = open_gpu(spec.device)
        self.name = self._gpu.name if self._gpu else "cpu"
        if self._gpu is None and spec.threads:
            torch.set_num_threads(spec.threads)
        self.dtype = _choose_dtype(spec.precision, self._gpu)
        self._ring = _PinnedRing(self._gpu) if self._gpu else None
        self._lock = threading.Lock()
        self._sizes: dict[str, _ChunkSize] = {}

    @contextmanager
    def enter_inference(self) -> Iterator[None]:
        """Disable gradients in this context, and raise errors of the device as ours.

        Raises:
            DeviceLost: If the GPU failed.
        """
        with torch.inference_mode(), self._translate_errors():
            yield

    def enter_autocast(self) -> AbstractContextManager[Any]:
        """Return a context for networks that mix fp32 with the precision, which those of `place_network` alone can't."""
        enabled = self.dtype != torch.float32
        context: AbstractContextManager[Any] = torch.autocast(torch.device(self.name).type, self.dtype, enabled=enabled)
        return context

    def place_network(self, network: Any) -> Any:  # noqa: ANN401  a module
        """Move a network to the device for inference, and cast its weights to the precision, once.

        Raises:
            ModelError: If it doesn't fit the memory of the GPU.
            DeviceLost: If the GPU failed.
        """
        try:
            with self._translate_errors():
                return network.eval().to(self.name, self.dtype)
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.name} has too little free memory for the network",
                "Use a GPU with more memory, fewer encoders per GPU, or --precision bf16.",
                code="network-too-large",
            ) from error

    def run_chunks(
        self,
        inputs: _Inputs,
        compute: Callable[[_Inputs], Sequence[Tensor | None]],
        *,
        stage: Callable[[_Inputs], _Inputs] | None = None,
        kind: str = "images",
        cpu_chunk: int = CPU_CHUNK,
    ) -> Iterator[_Outputs]:
        """Yield the outputs of a network for each chunk of its inputs, in their order, as arrays on the CPU.

        Args:
            inputs: An array, or another sequence if there is a `stage`.
            compute: Runs the network on a chunk that is on the device, without gradients.
            stage: Moves a chunk to the device; None for arrays, which are copied as they are.
            kind: What the inputs are: different kinds need different memory.
            cpu_chunk: Items per chunk on the CPU.

        Raises:
            DeviceOutOfMemory: If a single item doesn't fit the memory of the GPU.
            DeviceLost: If the GPU failed.
        """
        size = self._sizes.setdefault(kind, _ChunkSize())
        # At least two chunks if there are enough items, so that one is copied while the other is computed.
        half = max(FIRST_CHUNK, (len(inputs) + 1) // 2)
        begin, running = 0, None
        while begin < len(inputs):
            items = min(size.items, half) if self._gpu else cpu_chunk
            part = inputs[begin : begin + items]
            launched = self._launch(part, compute, stage or self._send_array, size)
            if launched is None:
                self._shrink(size, len(part))
                continue
            begin += len(part)
            if running is not None:
                yield self._collect(*running)
            running = launched
        if running is not None:
            yield self._collect(*running)

    def _launch(
        self,
        part: _Inputs,
        compute: Callable[[_Inputs], Sequence[Tensor | None]],
        stage: Callable[[_Inputs], _Inputs],
        size: _ChunkSize,
    ) -> tuple[list[Tensor | None], Any] | None:
        """Start a chunk, and return its outputs with the event of their end; None if it doesn't fit the memory."""
        try:
            with self.enter_inference():
                staged = stage(part)
                if self._gpu is None:
                    return _to_fp32(compute(staged)), None
                with self._lock:  # one chunk at a time in the memory of the GPU
                    return self._run_on_gpu(self._gpu, staged, compute, size, len(part))
        except torch.OutOfMemoryError:
            return None

    def _run_on_gpu(
        self,
        gpu: CudaGpu,
        staged: _Inputs,
        compute: Callable[[_Inputs], Sequence[Tensor | None]],
        size: _ChunkSize,
        items: int,
    ) -> tuple[list[Tensor | None], Any]:
        if isinstance(staged, _Copy):
            gpu.require_copy(staged.tensor, staged.copied)
            staged = staged.tensor
        if size.is_unknown(items):
            outputs, used_bytes = gpu.measure_bytes(lambda: compute(staged))
            size.adapt(items, used_bytes, gpu.get_free_bytes())
        else:
            outputs = compute(staged)
        return gpu.start_fetch(_to_fp32(outputs))

    def _send_array(self, array: NDArray[Any]) -> Tensor | _Copy:
        if self._ring is None:
            return torch.from_numpy(np.array(array))  # PyTorch rejects read-only arrays and negative strides
        return _Copy(*self._ring.send(array))

    def _collect(self, outputs: list[Tensor | None], computed: Any) -> _Outputs:  # noqa: ANN401  an Event
        with self._translate_errors():
            if computed is not None:
                computed.synchronize()
        return tuple(None if output is None else output.numpy() for output in outputs)

    def _shrink(self, size: _ChunkSize, items: int) -> None:
        assert self._gpu is not None
        self._gpu.release_cache()
        if items == 1:
            raise DeviceOutOfMemory(
                f"{self.name} has too little free memory for a single item",
                "Use a GPU with more memory, fewer encoders per GPU, or --precision bf16.",
            )
        size.halve(items)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise errors of CUDA as those that callers tell apart: too little memory, or a GPU that is lost for this process."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            text = str(error)
            if not (isinstance(error, torch.AcceleratorError) or re.search("(CUDA|cuDNN)( driver)? error", text)):
                raise
            if "out of memory" in text or "ALLOC_FAILED" in text:
                raise torch.OutOfMemoryError(text) from error
            raise DeviceLost(
                f"{self.name} failed: {text.strip().partition(chr(10))[0][:300]}",
                "Start the process again. If it happens again, check the GPU with nvidia-smi and dmesg.",
            ) from error


@dataclass(frozen=True)
class _Copy:
    """A tensor whose copy to the GPU isn't finished yet."""

    tensor: Tensor
    copied: Any


def _choose_dtype(precision: Precision, gpu: CudaGpu | None) -> torch.dtype:
    if precision != "auto":
        return _DTYPES[precision]
    if gpu is None:
        return torch.float32
    gpu.allow_tf32()
    return torch.bfloat16 if gpu.supports_bf16() else torch.float32


def _to_fp32(outputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return outputs that numpy can read: it has no bf16."""
    return [output.float() if output is not None and output.is_floating_point() else output for output in outputs]
