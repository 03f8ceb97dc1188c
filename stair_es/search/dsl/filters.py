"""Parse and check filters, and list the fields that they refer to. Pure.

An engine doesn't report an unknown field in a filter, it finds nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.errors import QueryError
from stair_es.system.user_files import check_depth, parse_json

_FIELD_CLAUSES = frozenset(
    {"term", "terms", "match", "match_phrase", "match_phrase_prefix", "match_bool_prefix", "prefix", "wildcard", "regexp"}
    | {"fuzzy", "range"}
)
"""Clauses whose body has the field name as key."""
_RANGE_STARTS = frozenset("><[{")
_CLAUSE_OPTIONS = frozenset({"boost", "_name"})
_COMPOUND = frozenset({"bool", "constant_score", "dis_max", "nested"})
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])*/', re.DOTALL)
_FIELD_VALUE = re.compile(
    r"(?:^|(?<=[\s(+\-!]))(?P<field>(?:\\.|[A-Za-z_])(?:\\.|[\w.@-]){0,254}):\s*(?P<value>(?:\\.|[^\s\\])*)", re.DOTALL
)
"""A field and its value in a query string. A backslash escapes the next character: `Photo\\ Credit:anna`."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CLAUSE_EXAMPLES = '{"term": {"format": "png"}}, {"range": {"width": {"gte": 800}}}, or several in {"bool": {"filter": [...]}}.'


@dataclass(frozen=True)
class FilterField:
    """A field that a filter refers to."""

    name: str
    is_range: bool = False
    """Whether its values are compared by order (`range`, `>`, `[1 TO 5]`)."""


def build_text_clause(fields: str, text: str) -> dict[str, Any]:
    """Build a clause that matches documents with a word or phrase in a text field, or in one of several (`title,caption`)."""
    names = split_field_names(fields)
    if len(names) == 1:
        return {"match_phrase": {names[0]: text}}
    return {"multi_match": {"type": "phrase", "query": text, "fields": names}}


def split_field_names(fields: str) -> list[str]:
    """Split the names of fields at their commas."""
    return [name.strip() for name in fields.split(",") if name.strip()]


def parse_filter(text: str) -> dict[str, Any]:
    """Parse a filter: a query clause as JSON, otherwise a query string (`width:>800 AND format:JPEG`).

    Raises:
        QueryError: If it is empty, or JSON that is not one query clause.
    """
    stripped = text.strip()
    if not stripped:
        raise QueryError(
            "the filter is empty",
            'Pass a query string, such as "width:>800", or a clause, such as {"term": {"format": "png"}}.',
            code="filter-empty",
        )
    if stripped[0] not in "{[":
        return {"query_string": {"query": stripped, "default_field": "caption"}}
    try:
        clause = parse_json(stripped)
    except ValueError as error:
        raise QueryError(
            f"the filter is not JSON: {error}", f"Write one clause: {_CLAUSE_EXAMPLES}", code="filter-not-json"
        ) from None
    if not isinstance(clause, dict) or len(clause) != 1 or not isinstance(next(iter(clause.values())), dict):
        raise QueryError(
            f"the filter is not one query clause: {stripped[:80]}",
            f"Write one clause: {_CLAUSE_EXAMPLES}",
            code="filter-not-one-clause",
        )
    return clause


def check_filters(filters: Sequence[Mapping[str, Any]]) -> None:
    """Check that filters can be sent as JSON; the engine checks their meaning."""
    for clause in filters:
        try:
            json.dumps(clause, allow_nan=False, ensure_ascii=False).encode()
            check_depth(clause)
        except (TypeError, ValueError, RecursionError) as error:  # a set, NaN, an unpaired surrogate, a clause within itself
            raise QueryError(
                f"the filter can't be sent as JSON: {error}",
                "Use plain JSON values, finite numbers and valid Unicode.",
                code="filter-not-sendable",
            ) from None


def list_filter_fields(clause: Mapping[str, Any]) -> Iterator[FilterField]:
    """Yield the fields that a query clause refers to, as far as its form shows them."""
    for kind, body in clause.items():
        if not isinstance(body, Mapping):
            continue
        if kind in _FIELD_CLAUSES:
            yield from (FilterField(str(name), kind == "range") for name in body if name not in _CLAUSE_OPTIONS)
        elif kind == "exists" and isinstance(body.get("field"), str):
            yield FilterField(body["field"])
        elif kind == "query_string" and isinstance(body.get("query"), str):
            yield from _list_query_string_fields(body["query"])
        elif kind in _COMPOUND:
            for part in body.values():
                for inner in part if isinstance(part, list) else [part]:
                    if isinstance(inner, Mapping):
                        yield from list_filter_fields(inner)


def _list_query_string_fields(text: str) -> Iterator[FilterField]:
    for match in _FIELD_VALUE.finditer(_QUOTED.sub('""', text)):
        name, value = _ESCAPED.sub(r"\1", match["field"]), match["value"]
        reference = (
            FilterField(_ESCAPED.sub(r"\1", value.rstrip(")")))
            if name == "_exists_"
            else FilterField(name, value[:1] in _RANGE_STARTS)
        )
        if reference.name and "*" not in reference.name:
            yield reference
