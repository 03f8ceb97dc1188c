"""Build the package, whose description is the README with links that also work on a package index, which has no other file."""

import re
from pathlib import Path

ROOT = Path(__file__).parent
_LINK = re.compile(r"(?P<image>!?)(?P<text>\[[^\]]*\])\((?!https?:|#)(?P<path>[^)]+)\)")


def link_to_source(text: str, source: str, tag: str) -> str:
    """Return Markdown whose relative links lead to the tag of the repository, and its pictures to the files themselves.

    Args:
        text: The README.
        source: Address of the repository on GitHub; the links stay as they are if it is empty.
        tag: Tag of the version.
    """
    if not source:
        return text
    return _LINK.sub(
        lambda link: (
            f"{link['image']}{link['text']}({source.rstrip('/')}/{'raw' if link['image'] else 'blob'}/{tag}/{link['path']})"
        ),
        text,
    )


def read_description() -> str:
    """Return the README for the version and the repository, which setup.cfg has from the first release on."""
    [version] = re.findall(r'^__version__ = "(.+)"$', _read("stair_es/_version.py"), re.MULTILINE)
    source = re.search(r"^    Source = (\S+)$", _read("setup.cfg"), re.MULTILINE)
    return link_to_source(_read("README.md"), source[1] if source else "", f"v{version}")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    # Not for tests of the above: once a process has imported pip, setuptools can't be imported in it (until Python 3.11).
    from setuptools import setup

    setup(long_description=read_description())
