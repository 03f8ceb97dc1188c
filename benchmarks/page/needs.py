"""What some runs need beside the repository: pictures from packages, fetched once and kept below `build/bench`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from small_sets.fetch import PACKAGES, unpacked

from .plan import SETS, STAMPS, TRAINED, Form


class Unmet(Exception):
    """Something can't be had here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Fetches."""

    root: Path
    """Of the repository."""
    folder: Path
    """Relative to it."""
    form: Form

    def filled(self, command: str) -> str:
        """The command with folders in the place of what it needs; these exist then, with what belongs in them.

        Raises:
            Unmet: A package can't be had.
        """
        trained = self.folder / f"trained-{self.form}"
        folders = {STAMPS: self.folder / "stamps", SETS: self.folder / "sets", TRAINED: trained}
        for sign, fetch in ((STAMPS, self._stamps), (SETS, self._sets)):
            if sign in command:
                try:
                    fetch(self.root / folders[sign])
                except SystemExit as failed:
                    raise Unmet(str(failed)) from failed
        for sign, folder in folders.items():
            command = command.replace(sign, folder.as_posix())
        return command

    def _stamps(self, folder: Path) -> None:
        if not folder.is_dir():
            unpacked(PACKAGES["tuxpaint"], self._packages(), self._packages()).rename(folder)

    def _sets(self, folder: Path) -> None:
        if (folder / "sets.json").is_file():  # it is written last
            return
        build = str(self.root / "benchmarks" / "small_sets" / "build.py")
        command = [sys.executable, build, "--out", str(folder), "--downloads", str(self._packages())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.strip() or f"build.py ended with {done.returncode}")

    def _packages(self) -> Path:
        folder = self.root / self.folder / "packages"
        folder.mkdir(parents=True, exist_ok=True)
        return folder
