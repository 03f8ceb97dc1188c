"""Parts of the pages that are made from the code: a page says `<!-- generated: NAME -->` for one.

They are made anew when the site is built. Those that end with `<!-- end: NAME -->` are in the repository, too, for whoever reads
the pages there: `python docs/_ext/generated.py` writes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module

import cli_reference
from figures import ROOT, allowed, shared
from sphinx.application import Sphinx

from stair_es import errors

FROM_THE_ROOT = {"contributing": "CONTRIBUTING.md", "security": "SECURITY.md", "changelog": "CHANGELOG.md"}
"""Pages of the site that are files at the root of the repository."""
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
_PLACE = re.compile(r"<!-- generated: ([a-z-]+) -->(?:\n.*?<!-- end: \1 -->)?", re.DOTALL)
_WRITTEN = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def error_table() -> str:
    """The tree of errors: name, exit code, what it says."""
    rows = ["| | exit code | |", "|---|---|---|"]

    def add(kind: type[errors.StairError], depth: int) -> None:
        indent = "\u2003" * depth
        says = (kind.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| {indent}`{kind.__name__}` | {kind.exit_code} | {says} |")
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                add(child, depth + 1)

    add(errors.StairError, 0)
    return "\n".join(rows)


def room_table() -> str:
    """Return a table of all rooms: layers with what they may import, and the rooms in them."""
    rows = ["| room | what is in it | may import |", "|---|---|---|"]
    layers = {**{name: set[str]() for name in shared()}, **allowed()}
    for name, others in layers.items():
        listed = ", ".join(f"`{other}`" for other in layers if other in others)
        rows.append(f"| **`{name}`** | {_describe_room(name)} | {listed} |")
        for inner in sorted((ROOT / "stair_es" / name).glob("*/__init__.py")):
            rows.append(f"| `{name}.{inner.parent.name}` | {_describe_room(f'{name}.{inner.parent.name}')} | |")
    return "\n".join(rows)


def _describe_room(name: str) -> str:
    """Return the first line of the docstring of a room."""
    return (import_module(f"stair_es.{name}").__doc__ or "").strip().splitlines()[0]


def root_page(name: str) -> str:
    """A file at the root, with its links as they are from `docs/`."""
    return _LINK.sub(lambda link: f"]({os.path.relpath(link[1], 'docs')})", (ROOT / name).read_text(encoding="utf-8"))


MAKERS: dict[str, Callable[[], str]] = {
    "cli": cli_reference.reference,
    "errors": error_table,
    "rooms": room_table,
    **{page: partial(root_page, name) for page, name in FROM_THE_ROOT.items()},
}


IN_THE_REPOSITORY: dict[str, Callable[[], str]] = {**MAKERS, "cli": partial(cli_reference.reference, directives=False)}
"""The same, as Markdown that needs no Sphinx."""


def fill_in(text: str) -> str:
    """A page with its parts as they are now, where it has them."""
    return _WRITTEN.sub(lambda found: f"{found[1]}{IN_THE_REPOSITORY[found[2]]()}\n{found[3]}", text)


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = _PLACE.sub(lambda found: MAKERS[found[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for page in (ROOT / "docs").rglob("*.md"):
        page.write_text(fill_in(page.read_text(encoding="utf-8")), encoding="utf-8")
