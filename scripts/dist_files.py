"""Check what is in the wheel and the sdist: every file that git knows and that belongs there, and no other.

::

    python -m build && python scripts/dist_files.py dist    # exit code 1 and a line for each difference
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAPPED = {"cli/": "stair_es/cli/", "mappings/": "stair_es/mappings/", "pipelines/": "stair_es/pipelines/"}
"""Folders of the tree -> of the wheel (`package_dir` of setup.cfg)."""
NOT_SHIPPED = (".ci/", ".github/", ".gitignore", ".dockerignore")
"""What is for the clone only."""
NOTICES = ("LICENSE", "NOTICE", "stair_es/model/data/NOTICE.md", "stair_es/model/data/stair-mini/README.md")
"""`license_files` of setup.cfg: they travel in the metadata of the wheel."""


def list_tracked_files() -> set[str]:
    """Return the files of the working tree that git knows or would add."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def map_to_wheel(names: Iterable[str]) -> set[str]:
    """Return the installed files by their names in the wheel."""
    moved = {
        name: next((new + name.removeprefix(old) for old, new in MAPPED.items() if name.startswith(old)), name) for name in names
    }
    return {new for new in moved.values() if new.startswith("stair_es/")}


def select_for_sdist(names: Iterable[str]) -> set[str]:
    """Return the files that belong into the source archive."""
    return {name for name in names if not name.startswith(NOT_SHIPPED)}


def describe_differences(what: str, expected: set[str], found: set[str]) -> list[str]:
    """Return a line for each missing and each superfluous file."""
    missing = [f"{what}: {name} is missing: name it in package_data or MANIFEST.in" for name in sorted(expected - found)]
    strays = [f"{what}: {name} doesn't belong there: add it to git, or delete it" for name in sorted(found - expected)]
    return missing + strays


def check_wheel(wheel: Path, names: set[str]) -> list[str]:
    """Compare the wheel with the tree; return a line for each difference."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
    info = next(name.partition("/")[0] for name in found if ".dist-info/" in name)
    made = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    made |= {f"{info}/licenses/{name}" for name in NOTICES}
    return describe_differences(wheel.name, map_to_wheel(names) | made, found)


def check_sdist(sdist: Path, names: set[str]) -> list[str]:
    """Compare the source archive with the tree; return a line for each difference."""
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    return describe_differences(
        sdist.name, select_for_sdist(names), {name for name in found if name != "PKG-INFO" and ".egg-info/" not in name}
    )


def read_record(wheel: Path) -> set[str]:
    """Return a line for each file of the wheel, with its hash."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return set(archive.read(name).decode().splitlines())


def check_same(wheel: Path) -> list[str]:
    """Compare the wheel of the sdist with one that is built from the tree; return a line for each difference."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        for name in list_tracked_files():  # a copy: setuptools leaves build/lib behind, and would take stale files from one
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
        command = (sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(copy))
        subprocess.run(command, check=True, capture_output=True)
        [other] = Path(folder).glob("*.whl")
        return [f"{wheel.name}: sdist and tree differ: {line}" for line in sorted(read_record(wheel) ^ read_record(other))]


def find_wheel_and_sdist(dist: Path) -> tuple[Path, Path]:
    """Return the wheel and the sdist in a folder.

    Raises:
        SystemExit: If it doesn't contain one of each.
    """
    wheels, sdists = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    if (len(wheels), len(sdists)) != (1, 1):
        sys.exit(f"{dist} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each: run make dist")
    return wheels[0], sdists[0]


def main() -> None:
    """Compare wheel and sdist with the tree, and print the differences."""
    wheel, sdist = find_wheel_and_sdist(Path(sys.argv[1]))
    names = list_tracked_files()
    problems = [*check_wheel(wheel, names), *check_sdist(sdist, names), *check_same(wheel)]
    print("\n".join(problems) or f"{wheel.name}, {sdist.name}: complete, no other files, the same wheel from either")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
