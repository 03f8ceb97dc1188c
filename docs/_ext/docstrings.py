"""Sphinx extension: napoleon parses Google-style docstrings, except those of attributes, where a colon would mean a type."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

_PLAIN_KINDS = frozenset({"attribute", "data", "property"})
_CONFIG: Any = Config()


def _parse_docstring(app: Sphinx, what: Any, name: str, described: object, options: object, lines: list[str]) -> None:  # noqa: ANN401
    if what not in _PLAIN_KINDS:
        lines[:] = GoogleDocstring(lines, _CONFIG, app, what, name, described, options).lines()


def _hide_signature(app: Sphinx, what: str, name: str, described: object, *rest: object) -> tuple[str, None] | None:
    """Hide the arguments of Protocols, which are never instantiated."""
    return ("", None) if what == "class" and getattr(described, "_is_protocol", False) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("autodoc-process-docstring", _parse_docstring)
    app.connect("autodoc-process-signature", _hide_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
