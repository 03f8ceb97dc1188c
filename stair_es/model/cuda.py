"""Whether there is a GPU that PyTorch can use."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from stair_es.extras import need

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_there(*packages: str) -> bool:
    """Whether PyTorch could use a CUDA device, and has `packages` beside it, without which it wouldn't be asked to.

    PyTorch itself (seconds to import) is asked only if the driver is there.
    """
    if any(find_spec(package) is None for package in ("torch", *packages)):
        return False
    return any(Path(device).exists() for device in _DEVICES) and bool(need("torch", "torch").cuda.is_available())
