"""Model folders that ingests on this machine have used: the only folders that an index may make us open.

An index is untrusted input. A user who can write its mapping can name any folder of the machine that reads it, or a share of
another machine, so the name in the mapping is compared with this list before the file system is accessed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from stair_es.config.defaults import DataDir
from stair_es.system.folders import make_owner_folder
from stair_es.system.user_files import read_json_file

_FILE = "model-folders.json"
_MAX_FOLDERS = 200
"""The oldest entries are dropped; their folders still work with `--model`."""


def record_model_folder(name: str, data: DataDir) -> None:
    """Record that an ingest used a model, if its name is the absolute path of a folder. Ignores a list that can't be written."""
    if not Path(name).is_absolute() or not Path(name).is_dir():
        return
    home = data.path
    if _read_folders(home)[-1:] == [name]:
        return
    temporary = home / f"{_FILE}.{os.getpid()}"
    with suppress(OSError):
        make_owner_folder(home)
        with FileLock(home / f"{_FILE}.lock"):
            names = [*(other for other in _read_folders(home) if other != name), name]
            temporary.write_text(json.dumps(names[-_MAX_FOLDERS:], indent=1), encoding="utf-8")
            temporary.replace(home / _FILE)


def is_used_model_folder(name: str, data: DataDir) -> bool:
    """Return whether an ingest on this machine has used the model with this absolute path."""
    return name in _read_folders(data.path)


def _read_folders(home: Path) -> list[str]:
    try:
        value = read_json_file(home / _FILE)
    except (OSError, ValueError):
        return []
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
