"""Find incomplete weight files by their lengths, so that an interrupted download is noticed before it is used."""

from __future__ import annotations

import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stair_es.model.checkpoint import MODULES_JSON
from stair_es.system.user_files import read_json_file


def find_weight_faults(folder: Path) -> list[str]:
    """Return the faults of the weights in a folder, one phrase per file. Loads nothing."""
    safetensors, pickled = sorted(folder.glob("*.safetensors")), sorted(folder.glob("pytorch_model*.bin"))
    indexes = sorted(folder.glob("*.safetensors.index.json" if safetensors else "pytorch_model*.index.json"))
    shards = [shard for index in indexes for shard in _read_shard_names(index)]
    missing = [f"{name} is missing" for name in dict.fromkeys(shards) if not (folder / name).is_file()]
    # sentence-transformers keeps weights in subfolders
    if not safetensors and not pickled and not (folder / MODULES_JSON).is_file():
        missing.append("it has no weights")
    truncated = [f"{path.name} is truncated" for path in safetensors if not _is_complete_safetensors(path)]
    if not safetensors:
        truncated += [f"{path.name} is truncated" for path in pickled if not _is_complete_pickle(path)]
    return [*missing, *truncated]


def _read_shard_names(index: Path) -> list[str]:
    try:
        names = read_json_file(index)["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [str(name) for name in names]


def _is_complete_safetensors(path: Path) -> bool:
    """Return whether the file is as long as its header says, which the library checks when it opens a file."""
    try:
        with safe_open(path, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def _is_complete_pickle(path: Path) -> bool:
    """Return whether a zip file, as PyTorch writes, has its end. Older formats can't be checked."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        return zipfile.is_zipfile(path) if start == b"PK" else len(start) > 1
    except OSError:
        return False
