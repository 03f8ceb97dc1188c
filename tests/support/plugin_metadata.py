"""Write the entry points of plugin packages that tests put in a folder on Python's path."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_entry_points"]


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
