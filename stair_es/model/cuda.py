"""The device of a network: whether PyTorch can use a GPU, PyTorch or onnxruntime, precision. PyTorch is imported when it is used.

Shape suffixes: B batch, H height, W width, C channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.optional import import_optional
from stair_es.types import Backend, Pixels, Precision

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_cuda_available(*packages: str) -> bool:
    """Return whether PyTorch could use a CUDA device and the required packages are installed.

    PyTorch is imported (which takes seconds) only if an NVIDIA driver is present.
    """
    if any(find_spec(package) is None for package in ("torch", *packages)):
        return False
    return any(Path(device).exists() for device in _DEVICES) and bool(import_optional("torch", "torch").cuda.is_available())


def count_cuda_devices() -> int:
    """Return how many CUDA devices PyTorch could use. It is imported only if an NVIDIA driver is present."""
    return int(import_optional("torch", "torch").cuda.device_count()) if is_cuda_available() else 0


def is_torch_chosen(backend: Backend, precision: Precision, has_cuda: Callable[[], bool]) -> bool:
    """Return whether a packaged network runs in PyTorch rather than in onnxruntime. `auto` is PyTorch if CUDA is available.

    Args:
        backend: Requested backend.
        precision: Requested precision.
        has_cuda: Called for `auto` only.

    Raises:
        ModelError: If the backend is unknown or doesn't support this precision.
    """
    if backend not in ("auto", "onnx", "torch"):
        raise ModelError(f"unknown backend {backend!r}", "Choose one of: auto, onnx, torch.", code="unknown-backend")
    if backend == "torch" or (backend == "auto" and has_cuda()):
        return True
    if precision != "fp32":
        raise ModelError(
            f"the onnx backend computes in fp32, not in {precision}", "Use --backend torch, or fp32.", code="onnx-needs-fp32"
        )
    return False


def make_autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    """Return a context in which PyTorch computes with this precision on a device; `fp32` changes nothing."""
    torch: Any = import_optional("torch", "torch")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    autocast: AbstractContextManager[Any] = torch.autocast(device, dtype=dtype, enabled=dtype is not None)
    return autocast


class LockedProperty(cached_property[_T]):
    """A cached property that one thread computes while others wait, by the instance's reentrant `_lock`."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> _T:  # type: ignore[override]  # noqa: ANN401
        if instance is None:
            return self  # type: ignore[return-value]
        with instance._lock:
            value: _T = super().__get__(instance, owner)
        return value


class TorchDevice:
    """The device and precision that a network runs with."""

    def __init__(self, spec: ModelSpec) -> None:
        """Choose CUDA if it is available, else the CPU with the number of threads of the spec."""
        import torch

        self.name = "cuda" if torch.cuda.is_available() else "cpu"
        if self.name == "cpu" and spec.threads:
            torch.set_num_threads(spec.threads)
        self._precision = spec.precision
        self.batch_size = 64 if self.name == "cuda" else 8
        """Images or texts per run of the network: their weights over a whole vocabulary need memory."""

    @contextmanager
    def enter_inference(self) -> Iterator[None]:
        """Disable gradients and set the requested precision within this context."""
        import torch

        with torch.inference_mode(), make_autocast(self.name, self._precision):
            yield

    def move_pixels(self, pixels_BHWC: Pixels) -> Tensor:
        """Return the pixels on the device as [B, C, H, W] in 0..255. They are sent as bytes, a quarter of the size of floats."""
        import numpy as np
        import torch

        pixels = torch.from_numpy(np.array(pixels_BHWC)).to(self.name)
        return pixels.permute(0, 3, 1, 2).float()
