"""Lists of names that a user's data folder remembers, each a JSON file that the user may edit."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from stair_es.system.folders import make_owner_folder
from stair_es.system.user_files import read_json_file

_MAX_NAMES = 200


@dataclass(frozen=True, kw_only=True)
class NameList:
    """A list of names in a file, the newest last. It keeps the newest 200."""

    path: Path

    def read(self) -> list[str]:
        """Return the names; none if the file is missing or broken."""
        try:
            value = read_json_file(self.path)
        except (OSError, ValueError):
            return []
        return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []

    def add(self, name: str) -> None:
        """Make a name the newest. Processes may add names at the same time.

        Raises:
            OSError: If the file can't be written.
        """
        if self.read()[-1:] == [name]:
            return
        from filelock import FileLock  # takes a while to import, and most commands only read

        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        make_owner_folder(self.path.parent)
        with FileLock(f"{self.path}.lock"):
            names = [*(other for other in self.read() if other != name), name]
            temporary.write_text(json.dumps(names[-_MAX_NAMES:], indent=1), encoding="utf-8")
            temporary.replace(self.path)
