"""Whether there is a GPU that PyTorch can use, and whether a packaged network runs in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.extras import need
from stair_es.model.encoder import Backend, Precision

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_there(*packages: str) -> bool:
    """Whether PyTorch could use a CUDA device, and has `packages` beside it, without which it wouldn't be asked to.

    PyTorch itself (seconds to import) is asked only if the driver is there.
    """
    if any(find_spec(package) is None for package in ("torch", *packages)):
        return False
    return any(Path(device).exists() for device in _DEVICES) and bool(need("torch", "torch").cuda.is_available())


def choose_torch(backend: Backend, precision: Precision, cuda_is_there: Callable[[], bool]) -> bool:
    """Return whether a packaged network runs in PyTorch rather than in onnxruntime: for `auto`, where a CUDA device is.

    Args:
        backend: That was asked for.
        precision: That was asked for.
        cuda_is_there: Called for `auto` alone.

    Raises:
        ModelError: The backend's name is unknown, or it lacks this precision.
    """
    if backend not in ("auto", "onnx", "torch"):
        raise ModelError(f"unknown backend {backend!r}", "Choose one of: auto, onnx, torch.")
    if backend == "torch" or (backend == "auto" and cuda_is_there()):
        return True
    if precision != "fp32":
        raise ModelError(f"the onnx backend computes in fp32, not in {precision}", "Use --backend torch, or fp32.")
    return False
