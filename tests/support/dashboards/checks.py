"""Find errors of a bundle of saved objects that a product would reject, or import and draw nothing for. Pure.

There is no published schema. The rules are those that the products enforce: closed lists of attributes, references that
resolve, known versions, JSON inside of strings, a grid of 48 columns.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.dashboards.bundle import MIGRATION_VERSIONS, SavedObject, to_ndjson
from stair_es.dashboards.index_info import PRODUCT_LABELS, Product
from support.dashboards.chart_checks import find_visualization_errors
from support.dashboards.grid_checks import find_dashboard_errors

SEARCH_SOURCE_INDEX = "kibanaSavedObjectMeta.searchSourceJSON.index"
MOST_OBJECTS = 10_000
MOST_BYTES = 25 * 1024 * 1024
"""What both products import at once, unless somebody set it."""

_KEYS = {"id", "type", "attributes", "references", "migrationVersion"}
_ATTRIBUTES = {
    "index-pattern": {"title", "timeFieldName", "fields", "fieldFormatMap", "sourceFilters", "type", "typeMeta"},
    "search": {"title", "description", "hits", "version", "columns", "sort", "kibanaSavedObjectMeta"},
    "visualization": {
        "title",
        "description",
        "version",
        "uiStateJSON",
        "visState",
        "kibanaSavedObjectMeta",
        "savedSearchRefName",
    },
    "dashboard": {
        "title",
        "description",
        "hits",
        "version",
        "timeRestore",
        "timeFrom",
        "timeTo",
        "refreshInterval",
        "optionsJSON",
        "panelsJSON",
        "kibanaSavedObjectMeta",
    },
}
"""Type -> attributes that both products know; OpenSearch Dashboards refuses any other."""
_KIBANA_ONLY = {"dashboard": {"controlGroupInput"}, "index-pattern": {"fieldAttrs"}, "search": {"rowHeight"}}
_STRINGS = {
    "index-pattern": ("fields", "fieldFormatMap", "sourceFilters"),
    "visualization": ("visState", "uiStateJSON"),
    "dashboard": ("panelsJSON", "optionsJSON"),
}
"""Attributes that are JSON in a string."""
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # an underscore could make it the name of another cluster's object


def find_errors(objects: Sequence[SavedObject], product: Product) -> list[str]:
    """Return errors, each with its object; empty for a bundle that can be imported."""
    errors = [f"{_format_name(obj)}: {fault}" for obj in objects for fault in _find_object_errors(obj, product)]
    errors += _find_bundle_errors(objects)
    if errors:
        return errors  # what follows reads the objects as if their form were right
    keys = {(obj["type"], obj["id"]) for obj in objects}
    for obj in objects:
        errors += [f"{_format_name(obj)}: {fault}" for fault in _find_reference_errors(obj, keys)]
        errors += [f"{_format_name(obj)}: {fault}" for fault in _find_type_errors(obj, product)]
    return errors


def _format_name(obj: Mapping[str, Any]) -> str:
    return f"{obj.get('type')} {obj.get('id')!r}"


def _find_bundle_errors(objects: Sequence[SavedObject]) -> Iterator[str]:
    for (type_, id_), times in Counter((str(obj.get("type")), str(obj.get("id"))) for obj in objects).items():
        if times > 1:
            yield f"{type_} {id_!r}: comes {times} times"
    if len(objects) > MOST_OBJECTS:
        yield f"{len(objects)} objects: more than {MOST_OBJECTS}"
    size = len(to_ndjson(objects).encode())
    if size > MOST_BYTES:
        yield f"{size} bytes: more than {MOST_BYTES}"


def _find_object_errors(obj: Mapping[str, Any], product: Product) -> Iterator[str]:
    type_ = obj.get("type")
    if type_ not in MIGRATION_VERSIONS:
        yield f"an unknown type: {type_!r}"
        return
    if set(obj) != _KEYS:
        yield f"has the keys {', '.join(sorted(obj))}, not {', '.join(sorted(_KEYS))}"
        return
    if not isinstance(obj["id"], str) or not _ID.fullmatch(obj["id"]):
        yield "its id is not words of a-z and 0-9 with hyphens between"
    if obj["migrationVersion"] != {type_: MIGRATION_VERSIONS[type_]}:
        yield f"migrationVersion is {obj['migrationVersion']}, not {{'{type_}': '{MIGRATION_VERSIONS[type_]}'}}"
    yield from _find_attribute_errors(type_, obj["attributes"], product)


def _find_attribute_errors(type_: str, attributes: Mapping[str, Any], product: Product) -> Iterator[str]:
    allowed = _ATTRIBUTES[type_] | (_KIBANA_ONLY.get(type_, set()) if product == "kibana" else set())
    unknown = sorted(set(attributes) - allowed)
    if unknown:
        yield f"attributes that {PRODUCT_LABELS[product]} refuses: {', '.join(unknown)}"
    if not attributes.get("title"):
        yield "no title"
    for name in _STRINGS.get(type_, ()):
        yield from _find_json_errors(name, attributes.get(name, "{}"))
    if type_ != "index-pattern":
        meta = attributes.get("kibanaSavedObjectMeta", {})
        yield from _find_json_errors("searchSourceJSON", meta.get("searchSourceJSON"))
    if "controlGroupInput" in attributes:
        group = attributes["controlGroupInput"]
        for name in ("panelsJSON", "ignoreParentSettingsJSON"):
            yield from _find_json_errors(f"controlGroupInput.{name}", group.get(name))


def _find_json_errors(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} is no string"
        return
    try:
        json.loads(value)
    except ValueError as error:
        yield f"{name} is no JSON: {error}"


def _find_reference_errors(obj: SavedObject, keys: set[tuple[str, str]]) -> Iterator[str]:
    names = [each.get("name") for each in obj["references"]]
    for each in obj["references"]:
        if set(each) != {"name", "type", "id"}:
            yield f"a reference with the keys {', '.join(sorted(each))}"
        elif (each["type"], each["id"]) not in keys:
            yield f"refers to {each['type']} {each['id']!r}, which isn't in the file"
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{times} references called {name!r}"
    used = set(_list_used_names(obj))
    for name in sorted(used - set(names)):
        yield f"no reference called {name!r}"
    for name in sorted({str(name) for name in names} - used):
        yield f"nothing uses the reference {name!r}"


def _list_used_names(obj: SavedObject) -> Iterator[str]:
    """Yield the names of references that the attributes use."""
    attributes = obj["attributes"]
    if obj["type"] in ("search", "visualization"):
        source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
        if "indexRefName" in source:
            yield source["indexRefName"]
    if obj["type"] == "visualization":
        params = json.loads(attributes["visState"]).get("params", {})
        yield from (control["indexPatternRefName"] for control in params.get("controls", ()))
    if obj["type"] == "dashboard":
        yield from (panel.get("panelRefName", "") for panel in json.loads(attributes["panelsJSON"]))
        group = attributes.get("controlGroupInput", {})
        yield from (f"controlGroup_{id_}:optionsListDataView" for id_ in json.loads(group.get("panelsJSON", "{}")))


def _find_type_errors(obj: SavedObject, product: Product) -> Iterator[str]:
    if obj["type"] == "visualization":
        yield from find_visualization_errors(obj, product)
    elif obj["type"] == "dashboard":
        yield from find_dashboard_errors(obj)
    elif obj["type"] == "search":
        yield from _find_search_errors(obj)
    else:
        yield from _find_pattern_errors(obj)


def _find_search_errors(obj: SavedObject) -> Iterator[str]:
    attributes = obj["attributes"]
    if not attributes.get("columns"):
        yield "no columns"
    if not all(len(each) == 2 and each[1] in ("asc", "desc") for each in attributes.get("sort", [[]])):
        yield "sort is no list of [field, asc or desc]"
    if SEARCH_SOURCE_INDEX not in [each["name"] for each in obj["references"]]:
        yield "no index pattern"


def _find_pattern_errors(obj: SavedObject) -> Iterator[str]:
    attributes = obj["attributes"]
    if "timeFieldName" in attributes:
        yield "has a time field: the time picker, 15 minutes wide by default, would empty every panel"
    fields = json.loads(attributes["fields"])
    names = {each["name"] for each in fields}
    if fields and not all({"aggregatable", "searchable", "readFromDocValues"} <= each.keys() for each in fields):
        yield "a field without its capabilities, so that OpenSearch Dashboards asks for all of them and saves the pattern"
    for field, format_ in json.loads(attributes.get("fieldFormatMap", "{}")).items():
        params = format_.get("params", {})
        if fields and field not in names and field != "thumbnail":
            yield f"{field}: a format, but no such field"
        if format_.get("id") == "url" and params.get("type") == "img":
            if "urlTemplate" in params:
                yield f"{field}: a urlTemplate encodes data URIs, and shows nothing"
            if not params.get("labelTemplate"):
                yield f"{field}: without a labelTemplate each image has its whole data URI as text too"
