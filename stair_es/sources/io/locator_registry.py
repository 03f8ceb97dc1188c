"""Restore a locator from the JSON that its `to_json` wrote (dead letters, training pairs)."""

from __future__ import annotations

from collections.abc import Mapping

from stair_es.errors import UsageError
from stair_es.sources.base import Locator
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.image.pages import PageLocator
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.object_store import ObjectLocator, TarMemberLocator
from stair_es.sources.io.parquet_cell import ParquetCellLocator
from stair_es.types import Json


def restore_locator(value: Mapping[str, Json]) -> Locator:
    """Return the locator that `to_json` of another run wrote; raise UsageError if it is not a locator."""
    match value:
        case {"kind": "file", "uri": str(uri)}:
            return FileLocator(uri)
        case {"kind": "url", "url": str(url)}:
            return UrlLocator(url)
        case {"kind": "object", "uri": str(uri), "size": int() | None as size, "modified_at": str() | None as modified_at}:
            return ObjectLocator(uri, size, modified_at=modified_at)
        case {
            "kind": "member",
            "uri": str(uri),
            "offset": int(offset),
            "size": int(size),
            "version": str() | None as version,
            "modified_at": str() | None as modified_at,
        } if offset >= 0 and size >= 0:
            return TarMemberLocator(uri, offset, size, version, modified_at=modified_at)
        case {"kind": "cell", "uri": str(uri), "group": int(group), "row": int(row), "column": str(column)}:
            return ParquetCellLocator(uri, group, row, column)
        case {"kind": "page", "uri": str(uri), "document": dict(document), "format": str(format_), "page": int(page)}:
            return PageLocator(uri, restore_locator(document), format_, page)
        case _:
            raise UsageError(
                "not the locator of an image",
                "Give a file that stair-es ingest --dead-letters wrote.",
                code="not-an-image-locator",
            )
