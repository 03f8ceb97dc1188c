"""Build the package, whose description is the README with links that also work on a package index, which has no other file."""

import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

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
    """Return the README for the version and the repository that setup.cfg names."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    urls = dict(line.split(" = ") for line in config.get("metadata", "project_urls", fallback="").split("\n") if line)
    [version] = re.findall(r'^__version__ = "(.+)"$', (ROOT / "stair_es/_version.py").read_text(encoding="utf-8"), re.MULTILINE)
    return link_to_source((ROOT / "README.md").read_text(encoding="utf-8"), urls.get("Source", ""), f"v{version}")


if __name__ == "__main__":
    setup(long_description=read_description())
