"""Errors of a filter that only the engine finds, in one sentence: what was wrong, where, and what to write. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stair_es.errors import QueryError
from stair_es.search.dsl.filters import list_filter_fields, parse_filter
from stair_es.search.dsl.mapped_fields import FieldKind, MappedField

_BAD_NUMBER = re.compile(r'For input string: "(?P<value>.*?)"(?:$|[:;\n])', re.DOTALL)
_OUT_OF_RANGE = re.compile(r"out of range (?:for|of) |Numeric overflow|supports only finite values")
_BAD_DATE = re.compile(r"failed to parse date field \[(?P<value>.*?)\] with format", re.DOTALL)
_BAD_BOOLEAN = re.compile(r"Can't parse boolean value \[(?P<value>.*?)\]", re.DOTALL)
_NO_QUERIES = re.compile(r"Queries on \[\w+\] fields are not supported|Field \[.*?\] of type|Cannot search on field", re.DOTALL)
_SYNTAX = re.compile(
    r'(?P<kind>Encountered|Lexical error)(?: "\s*(?P<found>.*?)\s*")? at line (?P<line>\d+), column (?P<column>\d+)'
)
_SHOWN_CHARS = 40
_EXAMPLES: Mapping[FieldKind, str] = {
    "integer": "Write {0}:800, {0}:>=800 or {0}:[800 TO 1200].",
    "number": "Write {0}:9.5, {0}:>=9.5 or {0}:[5 TO 9.5].",
    "date": "Write {0}:>=2024-05-31, {0}:[2024-01 TO 2024-06] or {0}:>now-7d.",
    "boolean": "Write {0}:true or {0}:false.",
}
_FORM = (
    'Write it like width:>800 AND format:JPEG, and put values with spaces or any of : / ( ) [ ] in quotes (uri:"file:///a.jpg").'
)


def explain_filter_error(reason: str, text: str, fields: Mapping[str, MappedField]) -> QueryError | None:
    """Explain why an engine rejects a filter; None if the reason is another one.

    Args:
        reason: The reason of the engine.
        text: The filter, a query string.
        fields: The fields of the index.
    """
    number, date, boolean = (pattern.search(reason) for pattern in (_BAD_NUMBER, _BAD_DATE, _BAD_BOOLEAN))
    if number:
        return _build_value_error(text, fields, ("integer", "number"), f"with {_shorten(number['value'])}, which is not a number")
    if date:
        return _build_value_error(text, fields, ("date",), f"with {_shorten(date['value'])}, which is not a date")
    if boolean:
        return _build_value_error(text, fields, ("boolean",), f"with {_shorten(boolean['value'])}, which is not true or false")
    if _OUT_OF_RANGE.search(reason):
        return _build_value_error(text, fields, ("integer", "number"), "with a number that is out of its range")
    if _NO_QUERIES.search(reason):
        return QueryError("the filter refers to a field whose values can't be compared", _FORM)
    syntax = _SYNTAX.search(reason)
    if syntax is None:
        return None
    if "<EOF>" in reason.partition("Was expecting")[0]:
        problem = "a quotation mark isn't closed" if syntax["kind"] == "Lexical error" else "something is missing at its end"
        return QueryError(f"the filter can't be parsed: {problem}", _FORM)
    lines = text.split("\n")
    line, column = min(int(syntax["line"]), len(lines)) - 1, int(syntax["column"])
    column -= lines[line][:column].count("/")  # they are sent escaped
    rest = lines[line][column:].strip() or text[-_SHOWN_CHARS:]
    return QueryError(f"the filter can't be parsed at {_shorten(rest)}", _FORM)


def _build_value_error(text: str, fields: Mapping[str, MappedField], kinds: tuple[FieldKind, ...], comparison: str) -> QueryError:
    """Build the error for a value of a field of one of these kinds; the engine doesn't report the field."""
    names = dict.fromkeys(reference.name for reference in list_filter_fields(parse_filter(text)))
    suspects = [fields[name] for name in names if name in fields and fields[name].kind in kinds]
    if not suspects:
        return QueryError(f"the filter compares a {kinds[-1]} field {comparison}", _FORM)
    described = " or ".join(f"{field.name!r}" for field in suspects)
    types = " or ".join(dict.fromkeys(field.type for field in suspects))
    return QueryError(
        f"the filter compares the field {described} ({types}) {comparison}",
        _EXAMPLES[suspects[0].kind].format(suspects[0].name),
    )


def _shorten(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…")
