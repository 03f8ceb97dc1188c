"""Check whether PyTorch can use a GPU, and choose between PyTorch and onnxruntime for a packaged network."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.extras import need
from stair_es.model.encoder import Backend, Precision

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_there(*packages: str) -> bool:
    """Return whether PyTorch could use a CUDA device and the required packages are installed.

    PyTorch is imported (which takes seconds) only if an NVIDIA driver is present.

    Args:
        packages: Packages that are needed in addition to PyTorch.
    """
    if any(find_spec(package) is None for package in ("torch", *packages)):
        return False
    return any(Path(device).exists() for device in _DEVICES) and bool(need("torch", "torch").cuda.is_available())


def choose_torch(backend: Backend, precision: Precision, cuda_is_there: Callable[[], bool]) -> bool:
    """Return whether a packaged network runs in PyTorch rather than in onnxruntime. `auto` is PyTorch if CUDA is available.

    Args:
        backend: Requested backend.
        precision: Requested precision.
        cuda_is_there: Called for `auto` only.

    Raises:
        ModelError: If the backend is unknown or doesn't support this precision.
    """
    if backend not in ("auto", "onnx", "torch"):
        raise ModelError(f"unknown backend {backend!r}", "Choose one of: auto, onnx, torch.")
    if backend == "torch" or (backend == "auto" and cuda_is_there()):
        return True
    if precision != "fp32":
        raise ModelError(f"the onnx backend computes in fp32, not in {precision}", "Use --backend torch, or fp32.")
    return False
