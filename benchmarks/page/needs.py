"""What some runs need beside the repository: pictures from packages, fetched once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from small_sets.fetch import PACKAGES, unpacked

from .plan import ANEW, FOLDER, SETS, STAMPS


class Unmet(Exception):
    """Something can't be had here; the message says why."""


def provide(command: str, root: Path) -> None:
    """The folders that the command names are there, with what belongs in them.

    Args:
        command: With folders relative to `root`.
        root: Of the repository.

    Raises:
        Unmet: A package can't be had.
    """
    if ANEW in command:
        shutil.rmtree(root / ANEW, ignore_errors=True)
    packages = root / FOLDER / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for folder, fetch in ((STAMPS, _stamps), (SETS, _sets)):
        if folder in command:
            try:
                fetch(root / folder, packages)
            except SystemExit as failed:
                raise Unmet(str(failed)) from failed


def _stamps(folder: Path, packages: Path) -> None:
    if not folder.is_dir():
        unpacked(PACKAGES["tuxpaint"], packages, packages).rename(folder)


def _sets(folder: Path, packages: Path) -> None:
    if (folder / "sets.json").is_file():  # it is written last
        return
    build = str(Path(__file__).parents[1] / "small_sets" / "build.py")
    command = [sys.executable, build, "--out", str(folder), "--downloads", str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"build.py ended with {done.returncode}")
