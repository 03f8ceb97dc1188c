"""Saved objects in the format of version 7.10, which OpenSearch Dashboards 2 and 3 and Kibana 8 and 9 all import. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

SavedObject: TypeAlias = dict[str, Any]

VERSIONS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}
"""Type -> last version that changed its format before the products forked. One product rejects newer versions; without a
version, both would migrate objects that don't need it."""

SEARCH_SOURCE_INDEX = "kibanaSavedObjectMeta.searchSourceJSON.index"


def packed(value: object) -> str:
    """Dump JSON without spaces, as the products embed it in strings."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def ndjson(objects: Iterable[SavedObject]) -> str:
    """Return the objects as NDJSON, the import format of both products."""
    return "".join(packed(made) + "\n" for made in objects)


def reference(name: str, type_: str, id_: str) -> dict[str, str]:
    """Build a reference from an object to another one."""
    return {"name": name, "type": type_, "id": id_}


def index_pattern(id_: str, title: str, formats: Mapping[str, Any], hidden: Sequence[str] = ()) -> SavedObject:
    """Build an index pattern; Kibana calls it a data view.

    It has no time field: the default range of the time picker, 15 minutes, would leave every panel empty.

    Args:
        id_: Id of the object.
        title: Name of the index.
        formats: Field -> field format.
        hidden: Fields (with `*`) that tables of documents don't load.
    """
    return _object(
        id_,
        "index-pattern",
        {
            "title": title,
            "fields": "[]",  # the products ask the cluster
            "fieldFormatMap": packed(formats),
            "sourceFilters": packed([{"value": field} for field in hidden]),
        },
        [],
    )


def search(id_: str, title: str, pattern: str, columns: Sequence[str], sort: tuple[str, str], *, query: str = "") -> SavedObject:
    """Build a saved search: documents as a table."""
    return _object(
        id_,
        "search",
        {
            "title": title,
            "description": "",
            "hits": 0,
            "columns": list(columns),
            "sort": [list(sort)],
            "version": 1,
            "kibanaSavedObjectMeta": {"searchSourceJSON": packed(_source(query, SEARCH_SOURCE_INDEX))},
        },
        [reference(SEARCH_SOURCE_INDEX, "index-pattern", pattern)],
    )


def visualization(id_: str, title: str, state: Mapping[str, Any], pattern: str | None = None, *, query: str = "") -> SavedObject:
    """Build a chart of aggregations over `pattern`; without a pattern, one that loads its own data or has none."""
    return _object(
        id_,
        "visualization",
        {
            "title": title,
            "description": "",
            "version": 1,
            "uiStateJSON": "{}",
            "visState": packed({"title": title, **state}),
            "kibanaSavedObjectMeta": {"searchSourceJSON": packed(_source(query, SEARCH_SOURCE_INDEX if pattern else None))},
        },
        [reference(SEARCH_SOURCE_INDEX, "index-pattern", pattern)] if pattern else [],
    )


def dashboard(
    id_: str,
    title: str,
    panels: Sequence[Mapping[str, Any]],
    references: Sequence[dict[str, str]],
    *,
    description: str,
    more: Mapping[str, Any],
) -> SavedObject:
    """Build the dashboard; `more` are attributes that only one of the products accepts."""
    return _object(
        id_,
        "dashboard",
        {
            "title": title,
            "description": description,
            "hits": 0,
            "version": 1,
            "timeRestore": False,
            "optionsJSON": packed({"hidePanelTitles": False, "useMargins": True}),
            "panelsJSON": packed(list(panels)),
            "kibanaSavedObjectMeta": {"searchSourceJSON": packed(_source("", None))},
            **more,
        },
        references,
    )


def _object(id_: str, type_: str, attributes: Mapping[str, Any], references: Sequence[dict[str, str]]) -> SavedObject:
    return {
        "id": id_,
        "type": type_,
        "attributes": dict(attributes),
        "references": list(references),
        "migrationVersion": {type_: VERSIONS[type_]},
    }


def _source(query: str, index_ref: str | None) -> dict[str, Any]:
    source: dict[str, Any] = {"query": {"query": query, "language": "kuery"}, "filter": []}
    return {**source, "indexRefName": index_ref} if index_ref else source
