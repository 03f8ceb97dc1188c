"""Whether a network can use a GPU, and runs in PyTorch or in onnxruntime. PyTorch is imported when it is used."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.optional import import_optional
from stair_es.types import TrainingPrecision

if TYPE_CHECKING:
    from stair_es.model.torch_device import TorchDevice

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
    """Return the number of CUDA devices that this process may use: those of CUDA_VISIBLE_DEVICES, if it is set.

    An encoder for each is loaded with the `ModelSpec.device` `cuda:0`, `cuda:1` and so on.
    """
    return int(import_optional("torch", "torch").cuda.device_count()) if is_cuda_available() else 0


def can_use_cuda(spec: ModelSpec, *packages: str) -> bool:
    """Return whether a network with this spec would run on a CUDA device: one that is requested, or found.

    Args:
        spec: Requested backend and device.
        packages: Packages that the network requires in PyTorch.
    """
    is_wanted = spec.backend in ("auto", "torch") and spec.device != "cpu"
    return is_wanted and (bool(spec.device) or is_cuda_available(*packages))


def is_torch_chosen(spec: ModelSpec, *packages: str) -> bool:
    """Return whether a packaged network runs in PyTorch rather than in onnxruntime. `auto` is PyTorch if it can use CUDA.

    Args:
        spec: Requested backend, device and precision.
        packages: Packages that the network requires in PyTorch.

    Raises:
        ModelError: If the backend is unknown or doesn't support this precision.
    """
    if spec.backend not in ("auto", "onnx", "torch"):
        raise ModelError(f"unknown backend {spec.backend!r}", "Choose one of: auto, onnx, torch.", code="unknown-backend")
    if spec.backend == "torch" or can_use_cuda(spec, *packages):
        return True
    check_onnx_precision(spec)
    return False


def check_onnx_precision(spec: ModelSpec) -> None:
    """Raise ModelError if another precision than that of onnxruntime is requested."""
    if spec.precision not in ("auto", "fp32"):
        raise ModelError(
            f"the onnx backend computes in fp32, not in {spec.precision}",
            "Use --backend torch, or fp32.",
            code="onnx-needs-fp32",
        )


def make_autocast(device: str, precision: TrainingPrecision) -> AbstractContextManager[Any]:
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


def open_device(encoder: Any) -> TorchDevice:  # noqa: ANN401  of any family
    """Open the device that an encoder's `_spec` selects; for a `LockedProperty`."""
    from stair_es.model.torch_device import TorchDevice

    return TorchDevice(encoder._spec)
