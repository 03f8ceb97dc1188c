"""Find incomplete weight files by their lengths, so that an interrupted download is noticed before it is used."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from stair_es.model.checkpoint import MODULES_JSON


def find_weight_faults(folder: Path) -> list[str]:
    """Return the faults of the weights in a folder, one phrase per file. Loads nothing."""
    safe, pickled = sorted(folder.glob("*.safetensors")), sorted(folder.glob("pytorch_model*.bin"))
    indexes = sorted(folder.glob("*.safetensors.index.json" if safe else "pytorch_model*.index.json"))
    wanted = [shard for index in indexes for shard in _read_shard_names(index)]
    missing = [f"{name} is missing" for name in dict.fromkeys(wanted) if not (folder / name).is_file()]
    if not safe and not pickled and not (folder / MODULES_JSON).is_file():  # sentence-transformers keeps weights in subfolders
        missing.append("it has no weights")
    cut = [f"{path.name} is truncated" for path in safe if not _is_complete_safetensors(path)]
    if not safe:
        cut += [f"{path.name} is truncated" for path in pickled if not _is_complete_pickle(path)]
    return [*missing, *cut]


def _read_shard_names(index: Path) -> list[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
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
