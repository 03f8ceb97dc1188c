"""Cut a release: write its version everywhere, and its heading with the date into the changelog.

The changelog is also where the project knows whether it is on PyPI: it is as soon as there is a release heading. Until then, the
documentation installs from a clone (`pip install '.[node]'`), and says so between two comments (`UNTIL_RELEASE`). The first
release changes these lines to `pip install 'stair-es[node]'` and removes what the comments enclose.

::

    python scripts/cut_release.py 0.2.0          # edits the version, CHANGELOG.md, image tags and install lines; no commit
    python scripts/cut_release.py 0.1.0 --repository https://github.com/OWNER/stair-es    # the first time
    python scripts/cut_release.py --check        # exit code 1 and a line for each problem
    python scripts/cut_release.py --check --tag v0.2.0
    python scripts/cut_release.py --notes        # print the notes of the current version from CHANGELOG.md
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
"""The tag of one of our images in compose files, comments and kustomizations, which name no other images."""
_SOURCE = re.compile(r"^    Source = (https://\S+)$", re.MULTILINE)
"""The address of the repository in setup.cfg."""
UNTIL_RELEASE = ("<!-- until the first release -->\n", "<!-- end -->\n")
"""Comments around text that holds as long as no package index has the project."""
_UNTIL_RELEASE = re.compile(f"{UNTIL_RELEASE[0]}.*?{UNTIL_RELEASE[1]}\n?", re.DOTALL)
_INSTALL = re.compile(r"(pip install\s+'?)(?:\.|stair-es)(?=[\[\s'`]|$)", re.MULTILINE)
"""The package in an install line: a clone (`.`, but not `./examples/plugin`) or the name in a package index."""


def is_published(changelog: str) -> bool:
    """Return whether the project is on PyPI: whether the changelog has a release."""
    return _HEADING.search(changelog) is not None


def write_install_lines(text: str, *, published: bool) -> str:
    """Return a page whose install lines work in this state, without the notes that no longer hold."""
    text = _INSTALL.sub(r"\1stair-es" if published else r"\1.", text)
    return _UNTIL_RELEASE.sub("", text) if published else text


def read_version() -> str:
    """Return the version in `stair_es/_version.py` without importing it."""
    found = _VERSION.search((ROOT / "stair_es" / "_version.py").read_text())
    if found is None:
        sys.exit('stair_es/_version.py has no line like __version__ = "0.1.0"')
    return found[1]


def list_release_files() -> Iterator[Path]:
    """Yield the files that may contain a tag of our images or an install line."""
    folders = [path for name in ("deploy", "docs", "examples") for path in (ROOT / name).rglob("*") if path.suffix != ".ipynb"]
    for path in sorted([*ROOT.glob("*.yml"), *ROOT.glob("*.md"), *folders]):
        if path.name != "CHANGELOG.md" and (
            path.suffix in {".yml", ".yaml", ".md", ".sh", ".json"} or path.name.startswith("Dockerfile")
        ):
            yield path


def find_problems(changelog: str, tag: str | None = None) -> list[str]:
    """Return a line for each place that disagrees with `stair_es/_version.py`."""
    current = read_version()
    published = is_published(changelog)
    found = []
    for path in list_release_files():
        text, name = path.read_text(), path.relative_to(ROOT)
        found += [
            f"{name}: an image has the tag {tagged[0]}, and the version is {current}"
            for tagged in _IMAGE.finditer(text)
            if tagged[0] != current
        ]
        if path.suffix == ".md" and write_install_lines(text, published=published) != text:
            form = "'stair-es[EXTRA]'" if published else "'.[EXTRA]', as no release is on PyPI"
            found.append(f"{name}: install lines should say pip install {form}")
    released = [Version(heading[1]) for heading in _HEADING.finditer(changelog)]
    if f"{UNRELEASED}\n" not in changelog:
        found.append(f'CHANGELOG.md: there is no "{UNRELEASED}"')
    if released and released[0] != Version(current):
        found.append(f"CHANGELOG.md: the newest release is {released[0]}, and the version is {current}")
    if released != sorted(released, reverse=True):
        found.append("CHANGELOG.md: the newest release isn't the first")
    if tag is not None and not _SOURCE.search((ROOT / "setup.cfg").read_text()):
        found.append("setup.cfg: a package index needs the address of the repository: cut the release with --repository")
    if tag is not None and (tag != f"v{current}" or not released):
        found.append(
            f"the tag {tag} requires version {tag.removeprefix('v')} and its heading in CHANGELOG.md; the version is {current}"
        )
    return found


def move_unreleased(changelog: str, new: str, day: datetime.date) -> str:
    """Return the changelog with its unreleased entries moved under the heading of the new version.

    Raises:
        ValueError: If there are no unreleased entries, or the release is already there.
    """
    if any(found[1] == new for found in _HEADING.finditer(changelog)):
        raise ValueError(f"CHANGELOG.md already has {new}: choose the next version, a release is never built twice")
    before, heading, after = changelog.partition(f"{UNRELEASED}\n")
    if not heading or not after.strip() or after.lstrip().startswith("## "):
        raise ValueError(f'CHANGELOG.md has no entries under "{UNRELEASED}": write what the release brings')
    return f"{before}{UNRELEASED}\n\n## {new} - {day.isoformat()}\n{after}"


def extract_notes(changelog: str, of: str) -> str:
    """Return the entries of one release in the changelog.

    Raises:
        ValueError: If the changelog has no heading for it.
    """
    headings = list(_HEADING.finditer(changelog))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == of:
            return changelog[heading.end() : following.start() if following else None].strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no heading for {of}: cut the release first")


def write_repository(config: str, citation: str, address: str) -> tuple[str, str]:
    """Return setup.cfg and CITATION.cff with the address of the repository.

    Raises:
        ValueError: If the address isn't that of a repository on GitHub, or none is given and setup.cfg has none.
    """
    if not address and _SOURCE.search(config):
        return config, citation
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(
            "name the repository, as in --repository https://github.com/OWNER/stair-es: the package index links to it"
        )
    urls = {"Source": address, "Changelog": f"{address}/blob/main/CHANGELOG.md", "Issues": f"{address}/issues"}
    entry = "project_urls =\n" + "".join(f"    {name} = {url}\n" for name, url in urls.items())
    config = re.sub(r"^project_urls =\n(?:    .+\n)+", "", config, flags=re.MULTILINE)
    citation = re.sub(r"^repository-code: .+\n", "", citation, flags=re.MULTILINE)
    return config.replace("license_expression", f"{entry}license_expression", 1), f"{citation}repository-code: {address}\n"


def cut_release(new: str, day: datetime.date, repository: str = "") -> list[Path]:
    """Write the new version and the install lines everywhere; return the files that changed.

    Args:
        new: Version.
        day: Date of the release.
        repository: Address of the repository, unless setup.cfg has it.

    Raises:
        ValueError: If it isn't MAJOR.MINOR.PATCH, is older than the current version, the changelog has no entries for it, or the
            repository is unknown.
    """
    try:
        older = Version(new) < Version(read_version())
    except InvalidVersion:
        older = True
    if older or not re.fullmatch(r"\d+\.\d+\.\d+", new):
        raise ValueError(f"{new} is not a version like 0.2.0 that follows {read_version()}")
    changelog = ROOT / "CHANGELOG.md"
    texts = {changelog: move_unreleased(changelog.read_text(), new, day)}
    config, citation = ROOT / "setup.cfg", ROOT / "CITATION.cff"
    texts[config], texts[citation] = write_repository(config.read_text(), citation.read_text(), repository)
    own = ROOT / "stair_es" / "_version.py"
    texts[own] = _VERSION.sub(f'__version__ = "{new}"', own.read_text())
    for path in list_release_files():
        text = _IMAGE.sub(new, path.read_text())
        texts[path] = write_install_lines(text, published=True) if path.suffix == ".md" else text
    changed = [path for path, text in texts.items() if text != path.read_text()]
    for path in changed:
        path.write_text(texts[path])
    return changed


def main() -> None:
    """Cut a release, check the versions, or print the notes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?")
    parser.add_argument("--repository", default="", metavar="URL", help="address on GitHub, unless setup.cfg has it")
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
            print(extract_notes(changelog, read_version()), end="")
        elif args.version:
            for path in cut_release(args.version, datetime.datetime.now(tz=datetime.UTC).date(), args.repository):
                print(path.relative_to(ROOT))
        else:
            parser.error("name a version, or one of --check and --notes")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
