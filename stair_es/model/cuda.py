"""Check whether PyTorch can use a GPU, choose between PyTorch and onnxruntime for a packaged network, and set its precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model.base import Backend, Precision
from stair_es.optional import import_optional

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_cuda_available(*packages: str) -> bool:
    """Return whether PyTorch could use a CUDA device and the required packages are installed.

    PyTorch is imported (which takes seconds) only if an NVIDIA driver is present.

    Args:
        packages: Packages that are needed in addition to PyTorch.
    """
    if any(find_spec(package) is None for package in ("torch", *packages)):
        return False
    return any(Path(device).exists() for device in _DEVICES) and bool(import_optional("torch", "torch").cuda.is_available())


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
        raise ModelError(f"unknown backend {backend!r}", "Choose one of: auto, onnx, torch.")
    if backend == "torch" or (backend == "auto" and has_cuda()):
        return True
    if precision != "fp32":
        raise ModelError(f"the onnx backend computes in fp32, not in {precision}", "Use --backend torch, or fp32.")
    return False


def make_autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    """Return a context in which PyTorch computes with this precision on a device; `fp32` changes nothing."""
    torch: Any = import_optional("torch", "torch")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    autocast: AbstractContextManager[Any] = torch.autocast(device, dtype=dtype, enabled=dtype is not None)
    return autocast
