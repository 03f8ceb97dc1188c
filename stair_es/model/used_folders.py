"""Model folders that ingests on this machine have used: the only folders that an index may make us open.

An index is untrusted input. A user who can write its mapping can name any folder of the machine that reads it, or a share of
another machine, so the name in the mapping is compared with this list before the file system is accessed. The list drops the
oldest folders, which still work with `--model`.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from stair_es.config.defaults import DataDir
from stair_es.system.name_list import NameList


def record_model_folder(name: str, data: DataDir) -> None:
    """Record that an ingest used a model, if its name is the absolute path of a folder. Ignores a list that can't be written."""
    if Path(name).is_absolute() and Path(name).is_dir():
        with suppress(OSError):
            _list_folders(data).add(name)


def is_used_model_folder(name: str, data: DataDir) -> bool:
    """Return whether an ingest on this machine has used the model with this absolute path."""
    return name in _list_folders(data).read()


def _list_folders(data: DataDir) -> NameList:
    return NameList(path=data.path / "model-folders.json")
