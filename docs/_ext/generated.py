"""Sphinx extension for the parts of pages that are generated from the code, marked with `<!-- generated: NAME -->`.

Every build of the site generates them. Parts that end with `<!-- end: NAME -->` are committed as well, for readers of the
repository: `python docs/_ext/generated.py` updates them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module

import api_reference
import cli_reference
import error_reference
import python_reference
from figures import ROOT, read_allowed_imports, read_shared_packages
from sphinx.application import Sphinx

from stair_es import errors

ROOT_PAGES = {"contributing": "CONTRIBUTING.md", "security": "SECURITY.md", "changelog": "CHANGELOG.md"}
"""Pages of the site that are files at the root of the repository."""
_LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")
_MARKER = re.compile(r"<!-- generated: ([a-z-]+) -->(?:\n.*?<!-- end: \1 -->)?", re.DOTALL)
_COMMITTED_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def build_error_table() -> str:
    """Return a table of all error classes: name, exit code, description."""
    rows = ["| class | exit code | meaning |", "|---|---|---|"]

    def add(kind: type[errors.StairError], depth: int) -> None:
        indent = "\u2003" * depth
        description = (kind.__doc__ or "").strip().splitlines()[0]
        rows.append(f"| {indent}`{kind.__name__}` | {kind.exit_code} | {description} |")
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                add(child, depth + 1)

    add(errors.StairError, 0)
    return "\n".join(rows)


def build_package_table() -> str:
    """Return a table of all packages: layers with what they may import, and the packages in them."""
    rows = ["| package | what is in it | may import |", "|---|---|---|"]
    layers = {**{name: set[str]() for name in read_shared_packages()}, **read_allowed_imports()}
    for name, others in layers.items():
        listed = ", ".join(f"`{other}`" for other in layers if other in others)
        rows.append(f"| **`{name}`** | {_describe_room(name)} | {listed} |")
        for inner in sorted((ROOT / "stair_es" / name).glob("*/__init__.py")):
            rows.append(f"| `{name}.{inner.parent.name}` | {_describe_room(f'{name}.{inner.parent.name}')} | |")
    return "\n".join(rows)


def _describe_room(name: str) -> str:
    """Return the first line of the docstring of a package."""
    return (import_module(f"stair_es.{name}").__doc__ or "").strip().splitlines()[0]


def read_root_page(name: str) -> str:
    """Return a page at the root of the repository, with links relative to `docs/`."""
    return _LINK.sub(lambda link: f"]({os.path.relpath(link[1], 'docs')})", (ROOT / name).read_text(encoding="utf-8"))


def read_json_file(folder: str, name: str) -> str:
    """Return a JSON file of the repository as a code block, below its name."""
    path = f"{folder}/{name}.json"
    return f"[`{path}`](../../{path}):\n\n```json\n{(ROOT / path).read_text(encoding='utf-8').rstrip()}\n```"


BUILDERS: dict[str, Callable[[], str]] = {
    "cli": cli_reference.build_reference,
    "encoder-api": api_reference.build_reference,
    "errors": build_error_table,
    "faults": partial(error_reference.build_fault_table, ROOT / "stair_es", ROOT / "cli"),
    "packages": build_package_table,
    **{f"mapping-{path.stem}": partial(read_json_file, "mappings", path.stem) for path in ROOT.glob("mappings/*.json")},
    **{f"pipeline-{path.stem}": partial(read_json_file, "pipelines", path.stem) for path in ROOT.glob("pipelines/*.json")},
    **{f"python-{name}": partial(python_reference.build_section, name) for name in python_reference.SECTIONS},
    **{page: partial(read_root_page, name) for page, name in ROOT_PAGES.items()},
}


MARKDOWN_BUILDERS: dict[str, Callable[[], str]] = {
    **BUILDERS,
    "cli": partial(cli_reference.build_reference, directives=False),
    **{f"python-{name}": partial(python_reference.build_section, name, directives=False) for name in python_reference.SECTIONS},
}
"""The same as plain Markdown, which works without Sphinx."""


def fill_in(text: str) -> str:
    """Return a page with its generated parts brought up to date."""
    return _COMMITTED_PART.sub(lambda found: f"{found[1]}{MARKDOWN_BUILDERS[found[2]]()}\n{found[3]}", text)


def _insert_parts(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = _MARKER.sub(lambda found: BUILDERS[found[1]](), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", _insert_parts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for page in (ROOT / "docs").rglob("*.md"):
        page.write_text(fill_in(page.read_text(encoding="utf-8")), encoding="utf-8")
