"""Write the entry points of plugin packages that tests put in a folder on Python's path, and install the example plugin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stair_es import plugins

__all__ = ["format_python_path", "install_colors_plugin", "install_plugin", "write_entry_points"]

_EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin" / "src"


def write_entry_points(folder: Path, package: str, *points: str, group: str = "encoders", version: str = "1.0.0") -> None:
    """Write the metadata of a package below `folder`, which is created if missing.

    Args:
        folder: Folder on Python's path.
        package: Name of the distribution.
        points: Entry points, such as `colors = stair_es_example.colors:KIND`.
        group: Plugin group: `encoders`, `sources`, `enrichers` or `sinks`.
        version: Version of the package.
    """
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join([f"[stair_es.{group}]", *points, ""]))


@contextmanager
def install_plugin(folder: Path, package: str, *points: str) -> Iterator[None]:
    """Install encoders in this process, from modules in `folder` that may use those of the example plugin."""
    write_entry_points(folder, package, *points)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(_EXAMPLE))
            patch.syspath_prepend(str(folder))
            plugins.list_plugins.cache_clear()
            yield
    finally:
        plugins.list_plugins.cache_clear()


def format_python_path(folder: Path) -> str:
    """Return the `PYTHONPATH` with which other processes find what `install_plugin` installs in `folder`."""
    return f"{folder}{os.pathsep}{_EXAMPLE}"


@contextmanager
def install_colors_plugin(folder: Path) -> Iterator[None]:
    """Install the example plugin: its model `colors` has no network, so that a command takes a tenth of a second."""
    with install_plugin(folder, "example", "colors = stair_es_example.colors:KIND"):
        yield
