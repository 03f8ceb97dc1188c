"""What an installation writes of a package's plugins, for packages that tests lay in a folder on Python's path."""

from __future__ import annotations

from pathlib import Path

__all__ = ["announce_plugins"]


def announce_plugins(folder: Path, package: str, *points: str, group: str = "encoders", version: str = "1.0.0") -> None:
    """Write the metadata of a package below `folder`, which is made if it isn't there.

    Args:
        folder: One on Python's path.
        package: The name of the distribution.
        points: Entry points, as `colours = stair_es_example.colours:KIND`.
        group: Of plugins: `encoders`, `sources`, `enrichers` or `sinks`.
        version: Of the package.
    """
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join([f"[stair_es.{group}]", *points, ""]))
