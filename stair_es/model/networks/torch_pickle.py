"""Read a `state_dict` in PyTorch's legacy file format into numpy, without PyTorch and without running pickled code.

The format, in order: four pickles (magic number, protocol version, system information, the object), a pickled list of
storage keys, and for each key its element count (int64) followed by the raw little-endian data.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
_REMEDY = "Reinstall the package with the weights, in the version that stair-es requires."

NumpyArray = NDArray[Any]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    size: int


@dataclass(frozen=True)
class _TensorView:
    """A pickled tensor: a strided view of a storage. Offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, NumpyArray]:
    """Return the named arrays of a state dict in the legacy format.

    Args:
        path: Path of the file.

    Raises:
        ModelError: If the file is missing, truncated or has another format, or its pickle requires anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read_tensors(file)
    except FileNotFoundError:
        raise ModelError(f"no weights at {path}", _REMEDY) from None
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path.name} can't be read as weights: {error}", _REMEDY) from error


def _read_tensors(file: BinaryIO) -> dict[str, NumpyArray]:
    if _load_pickle(file) != _MAGIC_NUMBER or _load_pickle(file) != _PROTOCOL_VERSION:
        raise ValueError("not a PyTorch file in the legacy format")
    if not _load_pickle(file).get("little_endian"):
        raise ValueError("not little-endian")
    tensors = _load_pickle(file)
    if not isinstance(tensors, dict) or not all(isinstance(t, _TensorView) for t in tensors.values()):
        raise ValueError("not a dictionary of tensors")
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    data = {key: _read_storage(file, storages[key]) for key in _load_pickle(file)}
    return {name: _view_tensor(data[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, storage: _Storage) -> NumpyArray:
    count = int.from_bytes(file.read(8), "little")
    raw = file.read(storage.size * storage.dtype.itemsize)
    if count != storage.size or len(raw) != count * storage.dtype.itemsize:
        raise ValueError(f"storage {storage.key} is cut short")
    return np.frombuffer(raw, storage.dtype)


def _view_tensor(data: NumpyArray, tensor: _TensorView) -> NumpyArray:
    reach = tensor.offset + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or reach >= len(data):
        raise ValueError(f"a tensor that reaches outside its storage {tensor.storage.key}")
    byte_strides = tuple(step * data.itemsize for step in tensor.strides)
    view = np.lib.stride_tricks.as_strided(data[tensor.offset :], tensor.shape, byte_strides, writeable=False)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _load_pickle(file: BinaryIO) -> Any:  # noqa: ANN401  a pickle holds anything
    return _RestrictedUnpickler(file).load()


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler for ordered dictionaries and tensors. Every other global is rejected before any of it runs."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"rejected: the pickle requires {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:  # noqa: ANN401
        kind, dtype, key, _location, size, _view_metadata = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("rejected: a persistent id that isn't a storage")
        return _Storage(str(key), dtype, int(size))


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object) -> _TensorView:
    return _TensorView(storage, int(offset), tuple(int(length) for length in shape), tuple(int(step) for step in strides))
