"""Cut a release: one version in every place that names it, and the changelog's heading with its date.

::

    python scripts/cut_release.py 0.2.0          # edits stair_es/_version.py, CHANGELOG.md and the image tags; commits nothing
    python scripts/cut_release.py --check        # exit code 1 and a line for each place that disagrees
    python scripts/cut_release.py --check --tag v0.2.0
    python scripts/cut_release.py --notes        # what CHANGELOG.md says of the current version
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "## Unreleased"
_VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
_HEADING = re.compile(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)
_IMAGE = re.compile(r"((?<=stair-es:)|(?<=newTag: ))(\d+\.\d+\.\d+)")
"""The tag of one of our images: in compose files and comments, and in kustomizations (which name no image but ours)."""


def read_version() -> str:
    """Return the version in `stair_es/_version.py`, without importing it."""
    found = _VERSION.search((ROOT / "stair_es" / "_version.py").read_text())
    if found is None:
        sys.exit('stair_es/_version.py has no line like __version__ = "0.1.0"')
    return found[1]


def list_files_with_images() -> Iterator[Path]:
    """Yield the files that may name a tag of our images."""
    folders = [path for name in ("deploy", "docs", "examples") for path in (ROOT / name).rglob("*") if path.suffix != ".ipynb"]
    for path in sorted([*ROOT.glob("*.yml"), *ROOT.glob("*.md"), *folders]):
        if path.name != "CHANGELOG.md" and (
            path.suffix in {".yml", ".yaml", ".md", ".sh", ".json"} or path.name.startswith("Dockerfile")
        ):
            yield path


def find_problems(changelog: str, tag: str | None = None) -> list[str]:
    """Return what disagrees with `stair_es/_version.py`, one line each."""
    ours = read_version()
    found = [
        f"{path.relative_to(ROOT)}: an image has the tag {tagged[0]}, and the version is {ours}"
        for path in list_files_with_images()
        for tagged in _IMAGE.finditer(path.read_text())
        if tagged[0] != ours
    ]
    releases = [Version(heading[1]) for heading in _HEADING.finditer(changelog)]
    if f"{UNRELEASED}\n" not in changelog:
        found.append(f'CHANGELOG.md: there is no "{UNRELEASED}"')
    if releases and releases[0] != Version(ours):
        found.append(f"CHANGELOG.md: the newest release is {releases[0]}, and the version is {ours}")
    if releases != sorted(releases, reverse=True):
        found.append("CHANGELOG.md: the newest release isn't the first")
    if tag is not None and (tag != f"v{ours}" or not releases):
        found.append(
            f"the tag {tag} wants version {tag.removeprefix('v')} and its heading in CHANGELOG.md; the version is {ours}"
        )
    return found


def add_release(changelog: str, new: str, day: datetime.date) -> str:
    """Return the changelog with the unreleased changes under the heading of the new version.

    Raises:
        ValueError: If nothing is unreleased, or the release exists already.
    """
    before, heading, after = changelog.partition(f"{UNRELEASED}\n")
    if not heading or not after.strip() or after.lstrip().startswith("## "):
        raise ValueError(f'CHANGELOG.md has nothing under "{UNRELEASED}": a release says what it brings')
    if any(found[1] == new for found in _HEADING.finditer(changelog)):
        raise ValueError(f"CHANGELOG.md has {new} already: take the next number, a release is never made twice")
    return f"{before}{UNRELEASED}\n\n## {new} - {day.isoformat()}\n{after}"


def read_notes(changelog: str, release: str) -> str:
    """Return the section of the changelog for a release.

    Raises:
        ValueError: If there is no such heading.
    """
    headings = list(_HEADING.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == release:
            return changelog[heading.end() : following.start() if following else None].strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no heading for {release}: cut the release first")


def cut_release(new: str, day: datetime.date) -> list[Path]:
    """Write the new version everywhere, and return the changed files.

    Raises:
        ValueError: If it isn't MAJOR.MINOR.PATCH or is older than the current one, or the changelog has nothing for it.
    """
    try:
        older = Version(new) < Version(read_version())
    except InvalidVersion:
        older = True
    if older or not re.fullmatch(r"\d+\.\d+\.\d+", new):
        raise ValueError(f"{new} is no version like 0.2.0 that follows {read_version()}")
    changelog = ROOT / "CHANGELOG.md"
    texts = {changelog: add_release(changelog.read_text(), new, day)}
    own = ROOT / "stair_es" / "_version.py"
    texts[own] = _VERSION.sub(f'__version__ = "{new}"', own.read_text())
    texts |= {path: _IMAGE.sub(new, path.read_text()) for path in list_files_with_images()}
    changed = [path for path, text in texts.items() if text != path.read_text()]
    for path in changed:
        path.write_text(texts[path])
    return changed


def main() -> None:
    """Cut a release, check the versions, or print the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--tag")
    parser.add_argument("--notes", action="store_true")
    args = parser.parse_args()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    try:
        if args.check:
            found = find_problems(changelog, args.tag)
            print("\n".join(found) or f"{read_version()} everywhere")
            sys.exit(bool(found))
        elif args.notes:
            print(read_notes(changelog, read_version()), end="")
        elif args.version:
            for path in cut_release(args.version, datetime.datetime.now(tz=datetime.timezone.utc).date()):
                print(path.relative_to(ROOT))
        else:
            parser.error("name a version, or one of --check and --notes")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
