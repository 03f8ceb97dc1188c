"""Which fields the filters of a question name: an engine says nothing of one that isn't there, and finds nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_BY_FIELD = frozenset(
    {"term", "terms", "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix", "prefix", "wildcard", "regexp"}
    | {"fuzzy", "range"}
)
"""Clauses whose body has the field as its key."""
_COMPARING = frozenset("><[{")
_BESIDE_A_FIELD = frozenset({"boost", "_name"})
_COMPOUND = frozenset({"bool", "constant_score", "dis_max", "nested"})
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])*/', re.DOTALL)
_NAMED = re.compile(
    r"(?:^|(?<=[\s(+\-!]))(?P<field>(?:\\.|[A-Za-z_])(?:\\.|[\w.@-]){0,254}):\s*(?P<value>(?:\\.|[^\s\\])*)", re.DOTALL
)
"""Of a query string. A backslash takes the meaning from the letter behind it: `Photo\\ Credit:anna`."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class FieldUse:
    """A field that a filter names."""

    name: str
    is_range: bool = False
    """Its values are compared by order."""


def list_fields(clause: Mapping[str, Any]) -> Iterator[FieldUse]:
    """The fields that a query clause names, as far as that can be told by its form."""
    for kind, body in clause.items():
        if not isinstance(body, Mapping):
            continue
        if kind in _BY_FIELD:
            yield from (FieldUse(str(name), kind == "range") for name in body if name not in _BESIDE_A_FIELD)
        elif kind == "exists" and isinstance(body.get("field"), str):
            yield FieldUse(body["field"])
        elif kind == "query_string" and isinstance(body.get("query"), str):
            yield from _list_in_query_string(body["query"])
        elif kind in _COMPOUND:
            for part in body.values():
                for inner in part if isinstance(part, list) else [part]:
                    if isinstance(inner, Mapping):
                        yield from list_fields(inner)


def _list_in_query_string(text: str) -> Iterator[FieldUse]:
    for match in _NAMED.finditer(_QUOTED.sub('""', text)):
        name, value = _ESCAPED.sub(r"\1", match["field"]), match["value"]
        use = FieldUse(_ESCAPED.sub(r"\1", value.rstrip(")"))) if name == "_exists_" else FieldUse(name, value[:1] in _COMPARING)
        if use.name and "*" not in use.name:
            yield use
