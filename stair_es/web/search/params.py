"""The parameters of a search, parsed from untrusted JSON, and the query inputs, options and filters that they mean. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, TypeAlias, get_args

import orjson
from msgspec import Meta, Struct
from msgspec.structs import replace

from stair_es.errors import QueryError
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.mapped_fields import MappedField, get_mapped_field
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_parser import parse_query
from stair_es.search.dsl.weights import SparseQuery
from stair_es.search.options import SearchOptions
from stair_es.types import SparseVector
from stair_es.web.request_body import parse_struct

SearchMethod: TypeAlias = Literal["words-and-text", "words", "text", "bag"]
"""What ranks: the token weights and the captions, one of them, or for comparison, how many of the heaviest tokens match."""
SEARCH_METHODS: tuple[SearchMethod, ...] = get_args(SearchMethod)

TOP_TOKENS_FIELD = "top_tokens"
MAX_TEXT_CHARS = 2000
MAX_TOKEN_CHARS = 512
MAX_ID_CHARS = 2048
MAX_LIST_ITEMS = 64
MAX_VECTOR_TOKENS = 4096
MAX_K = 200
MAX_FACTOR = 1e6
DEFAULT_K = 24
MAX_CONDITIONS = 32
MAX_CONDITION_VALUES = 64
MAX_VALUE_CHARS = 8192
_MAX_FIELD_CHARS = 512
_BOUNDS = ("gte", "gt", "lte", "lt")
_Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
FilterText = _Text
_Token = Annotated[str, Meta(max_length=MAX_TOKEN_CHARS)]
Tokens = Annotated[tuple[_Token, ...], Meta(max_length=MAX_LIST_ITEMS)]
_Weights = Annotated[dict[_Token, Annotated[float, Meta(ge=0)]], Meta(max_length=MAX_VECTOR_TOKENS)]
_Factors = Annotated[dict[_Token, Annotated[float, Meta(ge=0, le=MAX_FACTOR)]], Meta(max_length=MAX_VECTOR_TOKENS)]
_String = Annotated[str, Meta(max_length=MAX_VALUE_CHARS)]
SortText = Annotated[str, Meta(max_length=_MAX_FIELD_CHARS + len(":desc"))]
_Bound: TypeAlias = _String | int | float
ConditionValue: TypeAlias = _String | bool | int | float
_Values = Annotated[tuple[ConditionValue, ...], Meta(min_length=1, max_length=MAX_CONDITION_VALUES)]

_REMEDIES = {
    "": 'Send an object, such as {"text": "red car"}.',
    "filters": 'Write it like {"field": "format", "any": ["JPEG"]} or {"field": "width", "gte": 800}.',
    "k": "Use `after` for further pages.",
    "after": "Use `after` of the previous page.",
    "method": f"Available: {', '.join(SEARCH_METHODS)}.",
}

_DATE = re.compile(
    r"\d{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01])"
    r"(?:T(?:[01]\d|2[0-3])(?::[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?)?(?:Z|[+-](?:0\d|1[0-8]):?[0-5]\d)?)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,19}(?:\.\d{1,19})?", re.ASCII)
_DATE_FORMAT = "strict_date_optional_time||epoch_millis"
_MAX_LONG = 2**63 - 1
_TYPE_RANGES: Mapping[str, float] = {
    "byte": 2**7 - 1,
    "short": 2**15 - 1,
    "integer": 2**31 - 1,
    "long": _MAX_LONG,
    "half_float": 65504.0,
    "float": 3.4028234e38,
}
"""The largest number of a type. Engines reject larger ones."""
_UNESCAPED_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""An unescaped slash. It would begin a regular expression, which engines compile without a limit:
`/((a{1,100}){1,100}){1,100}/` blocks one of their few search threads until they are restarted."""


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition on the values of one field: one of `any`, `all` and a range."""

    field: Annotated[str, Meta(min_length=1, max_length=_MAX_FIELD_CHARS)]
    any: _Values | None = None
    """The field must have one of these values."""
    all: _Values | None = None
    """The field must have all of these values."""
    gte: _Bound | None = None
    gt: _Bound | None = None
    lte: _Bound | None = None
    lt: _Bound | None = None

    def __post_init__(self) -> None:
        """Check which fields go together. The ValueError becomes the error of the request."""
        bounds = self.bounds.keys()
        if {"gte", "gt"} <= bounds or {"lte", "lt"} <= bounds:
            raise ValueError("has two bounds on the same side")
        if bool(self.any) + bool(self.all) + bool(bounds) != 1:
            raise ValueError(f"needs exactly one of `any`, `all` and a range ({', '.join(_BOUNDS)})")

    @property
    def values(self) -> tuple[ConditionValue, ...]:
        """The values of `any` or `all`."""
        return self.any or self.all or ()

    @property
    def bounds(self) -> dict[str, float | str]:
        """The bounds of a range: `gte` or `gt`, `lte` or `lt`."""
        return {bound: limit for bound in _BOUNDS if (limit := getattr(self, bound)) is not None}

    @property
    def is_exclusive(self) -> bool:
        """Whether another value of the field would be an alternative, so that its own facet must not be narrowed by it."""
        return not self.all


Conditions = Annotated[tuple[Condition, ...], Meta(max_length=MAX_CONDITIONS)]


class SearchParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a search on the page."""

    text: _Text = ""
    """A query string: `beach -people +dog^2`."""
    similar_to: Annotated[str, Meta(max_length=MAX_ID_CHARS)] = ""
    """Id of a document whose tokens are added to the query."""
    vector: _Weights = {}
    """Tokens with weights, such as those of a dropped image."""
    factors: _Factors = {}
    """Token -> factor of its weight; for a token that the query lacks, its weight."""
    require: Tokens = ()
    exclude: Tokens = ()
    filters: Conditions = ()
    """Conditions on fields, all of which an image must meet."""
    filter: _Text = ""
    """A query string."""
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = DEFAULT_K
    after: tuple[Any, ...] | None = None
    """The cursor of a page. Its values are checked where they are used."""
    method: SearchMethod = "words-and-text"
    sort: SortText = ""
    """The field that matches are sorted by, and a direction: `price:asc`. By score if empty; the newest first without a query."""

    @property
    def is_browsing(self) -> bool:
        """Whether there is nothing to rank by, so that the newest images are wanted."""
        return not (self.similar_to or self.vector or self.factors) and (not self.text.strip() or is_place_only(self.text))


def is_place_only(text: str) -> bool:
    """Return whether a query string only says where images must be."""
    parsed = parse_query(text)
    return bool(parsed.near) and not (parsed.text or parsed.excluded)


def parse_search_params(body: bytes) -> SearchParams:
    """Parse the body of a search request."""
    params = parse_struct(body, SearchParams, _REMEDIES, orjson.loads, 400)
    return replace(
        params,
        vector={token: weight for token, weight in params.vector.items() if weight > 0},
        require=tuple(dict.fromkeys(params.require)),
        exclude=tuple(dict.fromkeys(params.exclude)),
    )


def build_query_inputs(
    params: SearchParams, stored: SparseVector | None = None, filters: Sequence[Mapping[str, Any]] = ()
) -> QueryInputs:
    """Build the query inputs of search parameters; `stored` is the vector of the document `params.similar_to`."""
    if params.method == "text":
        parsed = parse_query(params.text)
        if not parsed.text:
            raise QueryError(
                "captions can only be searched by a text, and the query has none",
                "Enter some words, or rank by words.",
                code="text-method-without-text",
            )
        required, excluded = (*parsed.required, *params.require), (*parsed.excluded, *params.exclude)
        return QueryInputs(caption=parsed.text, required=required, excluded=excluded, near=parsed.near, filters=filters)
    uploaded = SparseVector.from_mapping(params.vector) if params.vector else None
    return QueryInputs(
        query_string=params.text,
        hybrid=params.method == "words-and-text",
        vectors=[vector for vector in (stored, uploaded) if vector is not None],
        factors=params.factors,
        required=params.require,
        excluded=params.exclude,
        filters=filters,
    )


def build_search_options(params: SearchParams) -> SearchOptions:
    """Build the search options of search parameters."""
    build_clause = build_bag_clause if params.method == "bag" else None
    return SearchOptions(fold_duplicates=True, build_clause=build_clause, sort=params.sort)


def build_bag_clause(vector: SparseVector, max_clauses: int) -> SparseQuery:
    """Build a bag-of-words clause, for comparison: each query token among the heaviest of an image adds 1.

    Weights are ignored, except that the heaviest tokens are kept if there are too many.
    """
    tokens = vector.top(max_clauses)
    clauses = [{"constant_score": {"filter": {"term": {TOP_TOKENS_FIELD: token}}, "boost": 1.0}} for token, _ in tokens]
    truncated = SparseVector(vector.tokens[max_clauses:], vector.weights[max_clauses:])
    return SparseQuery(clause={"bool": {"should": clauses}}, vector=tokens, truncated=truncated)


def build_filters(conditions: Iterable[Condition], query_string: str, fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    """Build the clauses of conditions and of a query string."""
    clauses = build_condition_clauses(conditions, fields)
    text = query_string.strip()
    if text[:1] in ("{", "["):  # a clause can run scripts, and read other indices
        raise QueryError(
            "the filter is not a query string", "Write it like width:>800 AND format:JPEG.", code="filter-not-a-string"
        )
    return [*clauses, parse_filter(_UNESCAPED_SLASH.sub(r"\1\\/", text))] if text else clauses


def build_condition_clauses(conditions: Iterable[Condition], fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    """Build the clauses of conditions."""
    return [clause for condition in conditions for clause in _build_clauses(condition, fields)]


def convert_value(value: ConditionValue, mapped: MappedField) -> ConditionValue:
    """Convert a value to the type of a field: a URL has numbers and booleans as text."""
    if mapped.kind == "date":
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, which has ranges and no single values",
            f'Write it like {{"field": "{mapped.name}", "gte": "2024-01-01", "lt": "2025-01-01"}}.',
            code="field-needs-range",
        )
    if mapped.kind in ("integer", "number"):
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = float(value) if "." in value else int(value)
        _check_number(value, mapped)
    elif mapped.kind == "boolean":
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise QueryError(
                f"the field {mapped.name!r} is boolean, and {str(value)[:80]!r} is neither true nor false",
                code="value-not-a-boolean",
            )
    elif not isinstance(value, str):
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, and {value!r:.80} is not a string",
            "Put it in quotes.",
            code="value-not-a-string",
        )
    return value


def _build_clauses(condition: Condition, fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    mapped = get_mapped_field(fields, condition.field, "a condition")
    if condition.bounds:
        return [{"range": {mapped.path: _build_range(condition, mapped)}}]
    values = [convert_value(value, mapped) for value in condition.values]
    return [{"terms": {mapped.path: values}}] if condition.any else [{"term": {mapped.path: value}} for value in values]


def _build_range(condition: Condition, mapped: MappedField) -> dict[str, Any]:
    if mapped.kind not in ("integer", "number", "date"):
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, which has no ranges",
            f'Choose values: {{"field": "{mapped.name}", "any": [...]}}.',
            code="field-without-ranges",
        )
    if mapped.kind == "date":
        return {**{bound: _convert_date(limit, mapped) for bound, limit in condition.bounds.items()}, "format": _DATE_FORMAT}
    for limit in condition.bounds.values():
        _check_number(limit, mapped)
    return {**condition.bounds}


def _check_number(value: ConditionValue, mapped: MappedField) -> None:
    if isinstance(value, str | bool):
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, and {str(value)[:80]!r} is not a number", code="value-not-a-number"
        )
    largest = _TYPE_RANGES.get(mapped.type, math.inf)
    if not -largest - 1 <= value <= largest:
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, and {value:g} is out of its range", code="value-out-of-range"
        )


def _convert_date(value: float | str, mapped: MappedField) -> int | str:
    """Convert a bound to milliseconds without a fraction, which engines don't parse, or to a string that is a date."""
    valid = _is_date(value) if isinstance(value, str) else abs(value) <= _MAX_LONG and value == int(value)
    if not valid:
        raise QueryError(
            f"the field {mapped.name!r} is {mapped.type}, and {str(value)[:80]!r} is not a date",
            "Write dates like 2024, 2024-05, 2024-05-31 or 2024-05-31T12:00:00Z; numbers are milliseconds since 1970.",
            code="value-not-a-date",
        )
    return value if isinstance(value, str) else int(value)


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(f"{text[:10]}-01-01"[:10])
    except ValueError:  # the month has fewer days, or the year is 0
        return False
    return True
