"""The fields of a mapping that conditions and facets can use, with the kind of their values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from stair_es.errors import QueryError

FieldKind: TypeAlias = Literal["keyword", "text", "boolean", "integer", "number", "date"]

_KINDS: Mapping[str, FieldKind] = {
    **dict.fromkeys(("keyword", "constant_keyword", "wildcard"), "keyword"),
    "text": "text",
    "boolean": "boolean",
    **dict.fromkeys(("byte", "short", "integer", "long"), "integer"),
    **dict.fromkeys(("half_float", "float", "double", "scaled_float"), "number"),
    **dict.fromkeys(("date", "date_nanos"), "date"),
}
"""Field type -> kind. Fields of other types, such as `rank_features`, have no single values to compare."""
_MAX_DEPTH = 4


@dataclass(frozen=True, kw_only=True)
class MappedField:
    """A searchable field."""

    name: str
    """The name in documents; dotted within objects."""
    type: str
    kind: FieldKind
    path: str
    """The name for whole values in conditions and aggregations: `title.keyword` for a `text` field; empty if it has none."""


def list_mapped_fields(mappings: Mapping[str, Mapping[str, Any]]) -> dict[str, MappedField]:
    """List the searchable fields of GET mapping responses by name, without those that differ between indices."""
    found: dict[str, MappedField | None] = {}
    for index in mappings.values():
        for mapped in _walk_properties(index["mappings"].get("properties", {}), "", 1):
            found[mapped.name] = mapped if found.get(mapped.name, mapped) == mapped else None
    return {name: mapped for name, mapped in sorted(found.items()) if mapped is not None}


def get_mapped_field(fields: Mapping[str, MappedField], name: str, role: str) -> MappedField:
    """Get a field by its name; `role` is what refers to it, for messages.

    Raises:
        QueryError: If it doesn't exist, or has no whole values.
    """
    mapped = fields.get(name)
    if mapped is not None and mapped.path:
        return mapped
    problem = "which this index doesn't have" if mapped is None else f"which is {mapped.type} and has no whole values"
    remedy = suggest_fields(name, [other.name for other in fields.values() if other.path])
    raise QueryError(f"{role} refers to the field {name[:80]!r}, {problem}", remedy, code="field-not-usable")


def is_scalar(mapped: MappedField) -> bool:
    """Check whether the values of a field have an order and distances: numbers and dates."""
    return mapped.kind in ("integer", "number", "date")


def suggest_fields(name: str, available: Sequence[str]) -> str:
    """Suggest other fields than the one that was named."""
    similar = [other for other in get_close_matches(name, available, n=3) if other != name]
    suggestion = f"Did you mean {' or '.join(similar)}? " if similar else ""
    return f"{suggestion}Fields: {', '.join(available)}."


def _walk_properties(properties: Mapping[str, Any], prefix: str, depth: int) -> Iterator[MappedField]:
    for name, definition in properties.items():
        if "properties" in definition and definition.get("type", "object") == "object" and depth < _MAX_DEPTH:
            yield from _walk_properties(definition["properties"], f"{prefix}{name}.", depth + 1)
        kind = _KINDS.get(str(definition.get("type")))
        if kind is not None and definition.get("index", True):
            yield MappedField(
                name=prefix + name, type=str(definition["type"]), kind=kind, path=_find_path(prefix + name, kind, definition)
            )


def _find_path(name: str, kind: FieldKind, definition: Mapping[str, Any]) -> str:
    if kind != "text":
        return name if definition.get("doc_values", True) else ""
    for subfield, inner in definition.get("fields", {}).items():
        if inner.get("type") == "keyword" and inner.get("index", True) and inner.get("doc_values", True):
            return f"{name}.{subfield}"
    return ""
