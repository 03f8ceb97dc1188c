"""Check what is in the wheel and the sdist: every file that git knows and that belongs there, and none besides.

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


def tracked() -> set[str]:
    """Files that git knows or would take, those of the working tree."""
    asked = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def of_wheel(names: Iterable[str]) -> set[str]:
    """Those of the tree's files that are installed, by their names in the wheel."""
    moved = {
        name: next((new + name.removeprefix(old) for old, new in MAPPED.items() if name.startswith(old)), name) for name in names
    }
    return {new for new in moved.values() if new.startswith("stair_es/")}


def of_sdist(names: Iterable[str]) -> set[str]:
    """Those of the tree's files that belong into the source archive."""
    return {name for name in names if not name.startswith(NOT_SHIPPED)}


def differences(what: str, wanted: set[str], there: set[str]) -> list[str]:
    """A line for each file that is missing or too many."""
    missing = [f"{what}: {name} is missing: name it in package_data or MANIFEST.in" for name in sorted(wanted - there)]
    strays = [f"{what}: {name} doesn't belong there: add it to git, or delete it" for name in sorted(there - wanted)]
    return missing + strays


def check_wheel(wheel: Path, names: set[str]) -> list[str]:
    """Differences between the wheel and the tree."""
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if not name.endswith("/")}
    info = next(name.partition("/")[0] for name in there if ".dist-info/" in name)
    made = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    made |= {f"{info}/licenses/{name}" for name in NOTICES}
    return differences(wheel.name, of_wheel(names) | made, there)


def check_sdist(sdist: Path, names: set[str]) -> list[str]:
    """Differences between the source archive and the tree."""
    with tarfile.open(sdist) as archive:
        there = {member.name.partition("/")[2] for member in archive if member.isfile()}
    return differences(sdist.name, of_sdist(names), {name for name in there if name != "PKG-INFO" and ".egg-info/" not in name})


def record(wheel: Path) -> set[str]:
    """A line for each file of the wheel, with its hash."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return set(archive.read(name).decode().splitlines())


def check_same(wheel: Path) -> list[str]:
    """The wheel of the tree has the bytes of the wheel that was built from the sdist."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        for name in tracked():  # a copy: setuptools leaves build/lib behind, and would take stale files from one
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
        command = (sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(copy))
        subprocess.run(command, check=True, capture_output=True)
        [other] = Path(folder).glob("*.whl")
        return [f"{wheel.name}: sdist and tree differ: {line}" for line in sorted(record(wheel) ^ record(other))]


def the_two(dist: Path) -> tuple[Path, Path]:
    """Wheel and sdist of a folder.

    Raises:
        SystemExit: It doesn't hold one of each.
    """
    wheels, sdists = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    if (len(wheels), len(sdists)) != (1, 1):
        sys.exit(f"{dist} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each: run make dist")
    return wheels[0], sdists[0]


def main() -> None:
    """Compare, print, exit."""
    wheel, sdist = the_two(Path(sys.argv[1]))
    names = tracked()
    found = [*check_wheel(wheel, names), *check_sdist(sdist, names), *check_same(wheel)]
    print("\n".join(found) or f"{wheel.name}, {sdist.name}: complete, nothing besides, the same wheel from either")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
