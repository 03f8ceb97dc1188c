"""Check that wheel and sdist contain exactly the files of the repository that belong there.

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
FOLDERS = {"cli/": "stair_es/cli/", "mappings/": "stair_es/mappings/", "pipelines/": "stair_es/pipelines/"}
"""Folders of the tree -> of the wheel (`package_dir` of setup.cfg)."""
NOT_SHIPPED = (".ci/", ".github/", ".gitignore", ".dockerignore", ".pre-commit-config.yaml")
"""Files for the clone only."""
NOTICES = ("LICENSE", "NOTICE", "stair_es/model/data/NOTICE.md", "stair_es/model/data/stair-mini/README.md")
"""`license_files` of setup.cfg, which are in the metadata of the wheel."""


def list_tracked_files() -> set[str]:
    """Return the files of the working tree that git tracks or would add."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def select_wheel_files(names: Iterable[str]) -> set[str]:
    """Return the files that are installed, by their names in the wheel."""
    moved = {next((new + name.removeprefix(old) for old, new in FOLDERS.items() if name.startswith(old)), name) for name in names}
    return {name for name in moved if name.startswith("stair_es/")}


def select_sdist_files(names: Iterable[str]) -> set[str]:
    """Return the files that belong in the source archive."""
    return {name for name in names if not name.startswith(NOT_SHIPPED)}


def list_differences(what: str, expected: set[str], actual: set[str]) -> list[str]:
    """Return a line for each missing and each unexpected file."""
    missing = [f"{what}: {name} is missing: name it in package_data or MANIFEST.in" for name in sorted(expected - actual)]
    strays = [f"{what}: {name} doesn't belong there: add it to git, or delete it" for name in sorted(actual - expected)]
    return missing + strays


def compare_wheel(wheel: Path, names: set[str]) -> list[str]:
    """Return the differences between the wheel and the tree."""
    with zipfile.ZipFile(wheel) as archive:
        actual = {name for name in archive.namelist() if not name.endswith("/")}
    info = next(name.partition("/")[0] for name in actual if ".dist-info/" in name)
    made = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    made |= {f"{info}/licenses/{name}" for name in NOTICES}
    return list_differences(wheel.name, select_wheel_files(names) | made, actual)


def compare_sdist(sdist: Path, names: set[str]) -> list[str]:
    """Return the differences between the source archive and the tree."""
    with tarfile.open(sdist) as archive:
        actual = {member.name.partition("/")[2] for member in archive if member.isfile()}
    actual = {name for name in actual if name != "PKG-INFO" and ".egg-info/" not in name}
    return list_differences(sdist.name, select_sdist_files(names), actual)


def read_record(wheel: Path) -> set[str]:
    """Return the lines of RECORD: each file of the wheel with its hash."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return set(archive.read(name).decode().splitlines())


def compare_builds(wheel: Path) -> list[str]:
    """Return the differences between the wheel, which was built from the sdist, and one that is built from the tree."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        for name in list_tracked_files():  # a copy, because setuptools leaves build/lib behind and packs stale files in it
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
        command = (sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(copy))
        subprocess.run(command, check=True, capture_output=True)
        [other] = Path(folder).glob("*.whl")
        return [f"{wheel.name}: sdist and tree differ: {line}" for line in sorted(read_record(wheel) ^ read_record(other))]


def find_archives(dist: Path) -> tuple[Path, Path]:
    """Return wheel and sdist of a folder.

    Raises:
        SystemExit: If the folder doesn't contain exactly one of each.
    """
    wheels, sdists = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    if (len(wheels), len(sdists)) != (1, 1):
        sys.exit(f"{dist} holds {len(wheels)} wheels and {len(sdists)} sdists, not one of each: run make dist")
    return wheels[0], sdists[0]


def main() -> None:
    """Print all differences; exit with 1 if there are any."""
    wheel, sdist = find_archives(Path(sys.argv[1]))
    names = list_tracked_files()
    found = [*compare_wheel(wheel, names), *compare_sdist(sdist, names), *compare_builds(wheel)]
    print("\n".join(found) or f"{wheel.name}, {sdist.name}: complete, no other files, both give the same wheel")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
