"""The field list of an index pattern, from the field capabilities of the index. Pure.

OpenSearch Dashboards asks the cluster for a list that is missing and then saves it: dozens of times at once for a user who may
write, and in vain in every view for a user who may not. So the list is part of the file. Kibana always asks the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

PatternField: TypeAlias = dict[str, Any]

_NUMBERS = ("long", "integer", "short", "byte", "double", "float", "half_float", "scaled_float", "unsigned_long")
_PRODUCT_TYPES = {
    **dict.fromkeys(("keyword", "text", "constant_keyword", "wildcard", "match_only_text"), "string"),
    **dict.fromkeys(_NUMBERS, "number"),
    **dict.fromkeys(("date", "date_nanos"), "date"),
    **{type_: type_ for type_ in ("boolean", "ip", "geo_point", "geo_shape")},
}
"""Type in the mapping -> type in the products; all others are `unknown` there."""
_CONTAINERS = {"object", "nested"}
_META_FIELDS = {"_id": "string", "_index": "string", "_score": "number", "_source": "_source", "_type": "string"}
"""The default of `metaFields`."""


def build_field_list(capabilities: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[PatternField, ...]:
    """Build the fields of an index pattern by name, as the products read them from `GET /INDEX/_field_caps?fields=*`.

    Args:
        capabilities: `fields` of the response: name -> type -> what can be done with it.
    """
    fields = [
        _build_field(name, types, _find_parent(name, capabilities))
        for name, types in capabilities.items()
        if not name.startswith("_") and not _CONTAINERS & types.keys()
    ]
    for name, type_ in _META_FIELDS.items():
        is_id = name in ("_id", "_index")
        fields.append(_describe_field(name, type_, [name] if is_id or name == "_source" else [], is_id, is_id, False))
    return tuple(sorted(fields, key=lambda field: field["name"]))


def _build_field(name: str, types: Mapping[str, Mapping[str, Any]], parent: str | None) -> PatternField:
    product_types = {_PRODUCT_TYPES.get(type_, "unknown") for type_ in types}
    is_searchable = any(type_["searchable"] for type_ in types.values())
    is_aggregatable = any(type_["aggregatable"] for type_ in types.values())
    type_ = product_types.pop() if len(product_types) == 1 else "conflict"
    has_doc_values = is_aggregatable and type_ != "conflict" and not {"text", "geo_shape"} & types.keys()
    field = _describe_field(name, type_, list(types), is_searchable, is_aggregatable, has_doc_values)
    return {**field, "subType": {"multi": {"parent": parent}}} if parent else field


def _find_parent(name: str, capabilities: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the field that `name` is another indexing of, like `caption` for `caption.keyword`."""
    parent = name.rpartition(".")[0]
    return parent if parent in capabilities and not _CONTAINERS & capabilities[parent].keys() else None


def _describe_field(
    name: str, type_: str, types: list[str], is_searchable: bool, is_aggregatable: bool, has_doc_values: bool
) -> PatternField:
    return {
        "name": name,
        "type": type_,
        "esTypes": types,
        "count": 0,
        "scripted": False,
        "searchable": is_searchable,
        "aggregatable": is_aggregatable,
        "readFromDocValues": has_doc_values,
    }
