"""Read the tensors of a checkpoint without running code in it, and check their names and shapes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stair_es.errors import CheckpointError, ModelError

SAFETENSORS_FILE, PICKLE_FILE = "model.safetensors", "pytorch_model.bin"
_SHOWN = 3
_REFETCH_HINT = "Fetch the checkpoint again."


def read_checkpoint_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors in `model.safetensors`, else in `pytorch_model.bin`, floating point ones as fp32.

    Raises:
        ModelError: If there is neither file, it is broken, or it is a pickle that requires more than tensors.
    """
    if (folder / SAFETENSORS_FILE).is_file():
        path, tensors = folder / SAFETENSORS_FILE, _load_safetensors(folder / SAFETENSORS_FILE)
    elif (folder / PICKLE_FILE).is_file():
        path, tensors = folder / PICKLE_FILE, _load_pickle(folder / PICKLE_FILE)
    else:
        raise CheckpointError(f"{folder} has no weights: neither {SAFETENSORS_FILE} nor {PICKLE_FILE}", _REFETCH_HINT)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} contains something other than named tensors", _REFETCH_HINT)
    return {str(name): value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _load_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors: {error}", _REFETCH_HINT) from error


def _load_pickle(path: Path) -> object:
    """Load a pickle with `weights_only`: PyTorch's unpickler allows tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was rejected: it isn't a plain file of tensors ({_get_reason(error)})",
            "A pickle can hold code that runs when it is opened. Get the weights as safetensors from a trusted source.",
            code="pickle-rejected",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} can't be read as PyTorch weights: {type(error).__name__}", _REFETCH_HINT) from error


def check_tensor_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    """Check that exactly the expected tensors are there, in their shapes."""
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise CheckpointError(f"the weights in {folder} lack {_join_first(missing)}", _REFETCH_HINT)
    wrong = [
        f"{name} of shape {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if tuple(tensors[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(
            f"the weights in {folder} don't fit: {_join_first(wrong)}", "Check that its config.json belongs to these weights."
        )
    unknown = sorted(set(tensors) - set(shapes))
    if unknown:
        raise CheckpointError(f"the weights in {folder} contain unknown tensors: {_join_first(unknown)}", _REFETCH_HINT)


def get_tensor_shape(tensors: Mapping[str, Tensor], name: str, dimensions: int, folder: Path) -> tuple[int, ...]:
    """Return the shape of a tensor from which other shapes are derived."""
    if name not in tensors:
        raise CheckpointError(f"the weights in {folder} lack {name}", _REFETCH_HINT)
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(
            f"the weights in {folder} don't fit: {name} has the shape {shape}, not {dimensions} dimensions", _REFETCH_HINT
        )
    return shape


def check_attention_heads(tower: str, width: int, heads: int, folder: Path) -> None:
    """Check that the width of a tower is a multiple of its number of attention heads."""
    if width % heads:
        raise CheckpointError(
            f"the config.json in {folder} gives {tower} {heads} heads, which don't divide its width {width}", _REFETCH_HINT
        )


def _join_first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _get_reason(error: Exception) -> str:
    message = str(error)
    start = message.find("Unsupported")
    return (message[start:] if start >= 0 else message).strip().partition("\n")[0][:200]
