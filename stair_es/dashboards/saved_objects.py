"""Saved objects in the format of version 7.10, which OpenSearch Dashboards 2 and 3 and Kibana 8 and 9 all import. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

SavedObject: TypeAlias = dict[str, Any]

MIGRATION_VERSIONS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}
"""Type -> last version that changed its format before the products forked. One product rejects newer versions; without a
version, both would migrate objects that don't need it."""
EMBEDDED_JSON = {
    "fieldAttrs",
    "fieldFormatMap",
    "fields",
    "ignoreParentSettingsJSON",
    "optionsJSON",
    "panelsJSON",
    "searchSourceJSON",
    "sourceFilters",
    "uiStateJSON",
    "visState",
}
"""Attributes that the products keep as JSON in a string."""


def dump_compact_json(value: object) -> str:
    """Dump JSON without spaces, as the products embed it in strings."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_ndjson(objects: Iterable[SavedObject]) -> str:
    """Return the objects as NDJSON, the import format of both products."""
    return "".join(dump_compact_json(saved_object) + "\n" for saved_object in objects)


def fold_object(unfolded: Mapping[str, Any]) -> SavedObject:
    """Return an object with the JSON in strings that its attributes have in the products."""
    type_ = unfolded["type"]
    return {
        "id": unfolded["id"],
        "type": type_,
        "attributes": _fold(unfolded["attributes"]),
        "references": unfolded["references"],
        "migrationVersion": {type_: MIGRATION_VERSIONS[type_]},
    }


def _fold(value: Mapping[str, Any]) -> dict[str, Any]:
    folded = dict[str, Any]()
    for name, part in value.items():
        content = _fold(part) if isinstance(part, Mapping) else part
        if name == "spec":  # of Vega: indented, since users adapt it in the product's editor
            content = json.dumps(part, ensure_ascii=False, indent=2)
        folded[name] = dump_compact_json(content) if name in EMBEDDED_JSON else content
    return folded
