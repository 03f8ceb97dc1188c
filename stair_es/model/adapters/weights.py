"""Read the tensors of a checkpoint without running code in it, and check their names and shapes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stair_es.errors import ModelError

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"
_SHOWN = 3
_AGAIN = "Fetch the checkpoint again."


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors in `model.safetensors`, else in `pytorch_model.bin`, floating point ones as fp32.

    Args:
        folder: Checkpoint folder.

    Raises:
        ModelError: If there is neither file, it is broken, or it is a pickle that requires more than tensors.
    """
    if (folder / SAFE).is_file():
        path, found = folder / SAFE, _safe(folder / SAFE)
    elif (folder / PICKLED).is_file():
        path, found = folder / PICKLED, _pickled(folder / PICKLED)
    else:
        raise ModelError(f"{folder} has no weights: neither {SAFE} nor {PICKLED}", _AGAIN)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} contains something other than named tensors", _AGAIN)
    return {str(name): value.float() if value.is_floating_point() else value for name, value in found.items()}


def _safe(path: Path) -> object:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} can't be read as safetensors: {error}", _AGAIN) from error


def _pickled(path: Path) -> object:
    """Load a pickle with `weights_only`: PyTorch's unpickler allows tensors and plain containers only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was rejected: it isn't a plain file of tensors ({_reason(error)})",
            "A pickle can hold code that runs when it is opened. Get the weights as safetensors from someone you trust.",
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} can't be read as PyTorch weights: {type(error).__name__}", _AGAIN) from error


def check_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Check that exactly the expected tensors are there, in their shapes.

    Args:
        found: Tensors of the checkpoint.
        wanted: Expected shapes.
        where: Checkpoint folder, for the error message.

    Raises:
        ModelError: If not; names the first few of them.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ModelError(f"the weights in {where} lack {_some(missing)}", _AGAIN)
    wrong = [
        f"{name} of shape {tuple(found[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if tuple(found[name].shape) != shape
    ]
    if wrong:
        raise ModelError(f"the weights in {where} don't fit: {_some(wrong)}", "Is its config.json that of these weights?")
    others = sorted(set(found) - set(wanted))
    if others:
        raise ModelError(f"the weights in {where} contain unknown tensors: {_some(others)}", _AGAIN)


def shape_of(found: Mapping[str, Tensor], name: str, dimensions: int, where: Path) -> tuple[int, ...]:
    """Return the shape of a tensor from which other shapes are derived.

    Args:
        found: Tensors of the checkpoint.
        name: Name of the tensor.
        dimensions: Expected number of dimensions.
        where: Checkpoint folder, for the error message.

    Raises:
        ModelError: If it is missing or has another number of dimensions.
    """
    if name not in found:
        raise ModelError(f"the weights in {where} lack {name}", _AGAIN)
    shape = tuple(found[name].shape)
    if len(shape) != dimensions:
        raise ModelError(f"the weights in {where} don't fit: {name} has the shape {shape}, not {dimensions} dimensions", _AGAIN)
    return shape


def check_heads(tower: str, width: int, heads: int, where: Path) -> None:
    """Check that the width of a tower is a multiple of its number of attention heads.

    Args:
        tower: Name of the tower.
        width: Its width.
        heads: Its number of heads.
        where: Checkpoint folder, for the error message.

    Raises:
        ModelError: If it isn't.
    """
    if width % heads:
        raise ModelError(f"the config.json in {where} gives {tower} {heads} heads, which don't divide its width {width}", _AGAIN)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _reason(error: Exception) -> str:
    said = str(error)
    at = said.find("Unsupported")
    return (said[at:] if at >= 0 else said).strip().partition("\n")[0][:200]
