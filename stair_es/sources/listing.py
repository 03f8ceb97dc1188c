"""Local paths as URIs, under the name by which commands and search know them."""

from __future__ import annotations

from stair_es.sources.paths import path_of, uri_of

__all__ = ["path_of", "uri_of"]
