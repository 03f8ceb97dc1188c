"""Docstrings in Google's form for Sphinx: by napoleon's parser, but not those of attributes, where a colon would mean a type."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

_SENTENCES = frozenset({"attribute", "data", "property"})
_CONFIG: Any = Config()


def _read(app: Sphinx, what: Any, name: str, described: object, options: object, lines: list[str]) -> None:  # noqa: ANN401
    if what not in _SENTENCES:
        lines[:] = GoogleDocstring(lines, _CONFIG, app, what, name, described, options).lines()


def _signature(app: Sphinx, what: str, name: str, described: object, *rest: object) -> tuple[str, None] | None:
    """Nobody makes a Protocol: it has no arguments to show."""
    return ("", None) if what == "class" and getattr(described, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _read)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
