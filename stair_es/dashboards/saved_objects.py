"""Saved objects in the format of version 7.10, which OpenSearch Dashboards 2 and 3 and Kibana 8 and 9 all import. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

SavedObject: TypeAlias = dict[str, Any]

MIGRATION_VERSIONS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}
"""Type -> last version that changed its format before the products forked. One product rejects newer versions; without a
version, both would migrate objects that don't need it."""

SEARCH_SOURCE_INDEX = "kibanaSavedObjectMeta.searchSourceJSON.index"


def dump_compact_json(value: object) -> str:
    """Dump JSON without spaces, as the products embed it in strings."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_ndjson(objects: Iterable[SavedObject]) -> str:
    """Return the objects as NDJSON, the import format of both products."""
    return "".join(dump_compact_json(saved_object) + "\n" for saved_object in objects)


def build_reference(name: str, type_: str, id_: str) -> dict[str, str]:
    """Build a reference from an object to another one."""
    return {"name": name, "type": type_, "id": id_}


def build_index_pattern(
    id_: str,
    title: str,
    formats: Mapping[str, Any],
    fields: Sequence[Mapping[str, Any]],
    *,
    hidden: Sequence[str] = (),
    extra: Mapping[str, Any],
) -> SavedObject:
    """Build an index pattern; Kibana calls it a data view.

    It has no time field: the default range of the time picker, 15 minutes, would leave every panel empty.

    Args:
        id_: Id of the object.
        title: Name of the index.
        formats: Field -> field format.
        fields: All fields; if there are none, the products ask the cluster, and OpenSearch Dashboards saves the answer.
        hidden: Fields (with `*`) that tables of documents don't load.
        extra: Attributes that only one of the products accepts.
    """
    return _build_object(
        id_,
        "index-pattern",
        {
            "title": title,
            "fields": dump_compact_json(list(fields)),
            "fieldFormatMap": dump_compact_json(formats),
            "sourceFilters": dump_compact_json([{"value": field} for field in hidden]),
            **extra,
        },
        [],
    )


def build_saved_search(
    id_: str, title: str, pattern: str, columns: Sequence[str], sort: tuple[str, str], *, query: str = ""
) -> SavedObject:
    """Build a saved search: documents as a table."""
    return _build_object(
        id_,
        "search",
        {
            "title": title,
            "description": "",
            "hits": 0,
            "columns": list(columns),
            "sort": [list(sort)],
            "version": 1,
            "kibanaSavedObjectMeta": {"searchSourceJSON": dump_compact_json(_build_search_source(query, SEARCH_SOURCE_INDEX))},
        },
        [build_reference(SEARCH_SOURCE_INDEX, "index-pattern", pattern)],
    )


def build_visualization(
    id_: str, title: str, state: Mapping[str, Any], pattern: str | None = None, *, query: str = ""
) -> SavedObject:
    """Build a chart of aggregations over `pattern`; without a pattern, one that loads its own data or has none."""
    return _build_object(
        id_,
        "visualization",
        {
            "title": title,
            "description": "",
            "version": 1,
            "uiStateJSON": "{}",
            "visState": dump_compact_json({"title": title, **state}),
            "kibanaSavedObjectMeta": {
                "searchSourceJSON": dump_compact_json(_build_search_source(query, SEARCH_SOURCE_INDEX if pattern else None))
            },
        },
        [build_reference(SEARCH_SOURCE_INDEX, "index-pattern", pattern)] if pattern else [],
    )


def build_dashboard_object(
    id_: str,
    title: str,
    panels: Sequence[Mapping[str, Any]],
    references: Sequence[dict[str, str]],
    *,
    description: str,
    extra: Mapping[str, Any],
) -> SavedObject:
    """Build the dashboard; `extra` are attributes that only one of the products accepts."""
    return _build_object(
        id_,
        "dashboard",
        {
            "title": title,
            "description": description,
            "hits": 0,
            "version": 1,
            "timeRestore": False,
            "optionsJSON": dump_compact_json({"hidePanelTitles": False, "useMargins": True}),
            "panelsJSON": dump_compact_json(list(panels)),
            "kibanaSavedObjectMeta": {"searchSourceJSON": dump_compact_json(_build_search_source("", None))},
            **extra,
        },
        references,
    )


def _build_object(id_: str, type_: str, attributes: Mapping[str, Any], references: Sequence[dict[str, str]]) -> SavedObject:
    return {
        "id": id_,
        "type": type_,
        "attributes": dict(attributes),
        "references": list(references),
        "migrationVersion": {type_: MIGRATION_VERSIONS[type_]},
    }


def _build_search_source(query: str, index_ref: str | None) -> dict[str, Any]:
    source: dict[str, Any] = {"query": {"query": query, "language": "kuery"}, "filter": []}
    return {**source, "indexRefName": index_ref} if index_ref else source
