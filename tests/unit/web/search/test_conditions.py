"""Conditions against a mapping."""

import json
from typing import Any

import pytest

from stair_es.errors import QueryError
from stair_es.search.dsl.mapped_fields import FieldKind, MappedField, list_mapped_fields
from stair_es.web.search.facet_scales import FieldProfile
from stair_es.web.search.facets import list_facets
from stair_es.web.search.params import Condition, ConditionValue, build_condition_clauses

PROPERTIES = {
    "tokens": {"type": "rank_features"},
    "fingerprint": {"type": "keyword", "index": False},
    "hidden": {"type": "keyword", "doc_values": False},
    "format": {"type": "keyword"},
    "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
    "prose": {"type": "text"},
    "year": {"type": "short"},
    "price": {"type": "float"},
    "sale": {"type": "boolean"},
    "taken_at": {"type": "date"},
    "camera": {"properties": {"iso": {"type": "integer"}, "maker": {"type": "keyword"}}},
}
FIELDS = list_mapped_fields({"i": {"mappings": {"properties": PROPERTIES}}})


def build(*conditions: dict[str, Any]) -> list[dict[str, Any]]:
    return build_condition_clauses([Condition(**condition) for condition in conditions], FIELDS)


def test_searchable_fields_are_listed_with_their_kinds() -> None:
    assert {name: (mapped.kind, mapped.path) for name, mapped in FIELDS.items()} == {
        "camera.iso": ("integer", "camera.iso"),
        "camera.maker": ("keyword", "camera.maker"),
        "format": ("keyword", "format"),
        "hidden": ("keyword", ""),
        "price": ("number", "price"),
        "prose": ("text", ""),
        "sale": ("boolean", "sale"),
        "taken_at": ("date", "taken_at"),
        "title": ("text", "title.raw"),
        "year": ("integer", "year"),
    }


def test_a_text_has_the_values_of_a_subfield_that_can_be_searched_and_counted() -> None:
    title = {"type": "text", "fields": {"a": {"type": "keyword", "doc_values": False}, "b": {"type": "keyword", "index": False}}}
    for fields, path in (({}, ""), ({"c": {"type": "keyword"}}, "title.c")):
        properties = {"title": {**title, "fields": {**title["fields"], **fields}}}  # type: ignore[dict-item]
        assert list_mapped_fields({"i": {"mappings": {"properties": properties}}})["title"].path == path


def test_fields_that_differ_between_indices_are_left_out() -> None:
    other = {"mappings": {"properties": {**PROPERTIES, "year": {"type": "keyword"}, "brand": {"type": "keyword"}}}}
    fields = list_mapped_fields({"i": {"mappings": {"properties": PROPERTIES}}, "j": other, "k": {"mappings": {}}})
    assert set(fields) == (set(FIELDS) - {"year"}) | {"brand"}


def test_conditions_become_clauses() -> None:
    assert build({"field": "format", "any": ["JPEG", "PNG"]}) == [{"terms": {"format": ["JPEG", "PNG"]}}]
    assert build({"field": "title", "all": ["A b", "c"]}) == [{"term": {"title.raw": "A b"}}, {"term": {"title.raw": "c"}}]
    assert build({"field": "price", "gte": 10, "lt": 20.5}) == [{"range": {"price": {"gte": 10, "lt": 20.5}}}]
    assert build({"field": "sale", "any": [True]}, {"field": "camera.iso", "gt": 100}) == [
        {"terms": {"sale": [True]}},
        {"range": {"camera.iso": {"gt": 100}}},
    ]


@pytest.mark.parametrize(
    "date",
    ["2024", "2024-05", "2024-05-31", "2024-05-31T12:00Z", "2024-05-31T12:00:00.123+02:00", 0, -1000, 1_700_000_000_000],
)
def test_dates_are_sent_in_their_own_format(date: object) -> None:
    [clause] = build({"field": "taken_at", "gte": date})
    assert clause == {"range": {"taken_at": {"gte": date, "format": "strict_date_optional_time||epoch_millis"}}}


def test_milliseconds_have_no_fraction_and_no_exponent() -> None:
    [clause] = build({"field": "taken_at", "gte": 1e12})
    assert json.dumps(clause["range"]["taken_at"]["gte"]) == "1000000000000"


def test_the_smallest_number_of_a_type_is_in_its_range() -> None:
    assert build({"field": "year", "gte": -(2**15)}) == [{"range": {"year": {"gte": -(2**15)}}}]
    with pytest.raises(QueryError, match="out of its range"):
        build({"field": "year", "gte": -(2**15) - 1})


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"field": "fromat", "any": ["JPEG"]}, "'fromat', which this index doesn't have"),
        ({"field": "tokens", "any": ["a"]}, "'tokens', which this index doesn't have"),
        ({"field": "prose", "any": ["a"]}, "'prose', which is text and has no whole values"),
        ({"field": "format", "gte": "a"}, "'format' is keyword, which has no ranges"),
        ({"field": "format", "any": [1]}, "1 is not a string"),
        ({"field": "year", "any": ["many"]}, "'many' is not a number"),
        ({"field": "year", "gte": "1999"}, "'1999' is not a number"),
        ({"field": "year", "gte": 40_000}, "40000 is out of its range"),
        ({"field": "price", "lt": 1e300}, "out of its range"),
        ({"field": "price", "any": [True]}, "'True' is not a number"),
        ({"field": "sale", "any": ["yes"]}, "'yes' is neither true nor false"),
        ({"field": "taken_at", "any": ["2024"]}, "has ranges and no single values"),
        ({"field": "taken_at", "gte": "yesterday"}, "'yesterday' is not a date"),
        ({"field": "taken_at", "gte": "now-1d"}, "'now-1d' is not a date"),
        ({"field": "taken_at", "gte": "2024-13-01"}, "'2024-13-01' is not a date"),
        ({"field": "taken_at", "gte": "2024-02-30"}, "'2024-02-30' is not a date"),
        ({"field": "taken_at", "lt": "2023-02-29T12:00Z"}, "is not a date"),
        ({"field": "taken_at", "gte": 1e300}, "is not a date"),
        ({"field": "taken_at", "gte": 1.5}, "is not a date"),
    ],
)
def test_conditions_that_a_field_can_t_meet_are_named(condition: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        build(condition)


def test_unknown_fields_get_near_ones_and_all() -> None:
    with pytest.raises(QueryError) as caught:
        build({"field": "fromat", "any": ["JPEG"]})
    assert caught.value.remedy == (
        "Did you mean format? Fields: camera.iso, camera.maker, format, price, sale, taken_at, title, year."
    )


def make_stars(kind: FieldKind, type_: str) -> MappedField:
    return MappedField(name="stars", type=type_, kind=kind, path="stars")


@pytest.mark.parametrize(
    ("kind", "type_", "given", "expected"),
    [
        ("integer", "long", "4", 4),
        ("integer", "long", 4, 4),
        ("integer", "long", "-12", -12),
        ("number", "float", "2.50", 2.5),
        ("boolean", "boolean", "true", True),
        ("boolean", "boolean", "false", False),
        ("boolean", "boolean", True, True),
        ("keyword", "keyword", "4", "4"),
        ("keyword", "keyword", "true", "true"),
    ],
)
def test_text_becomes_the_type_of_the_field(kind: FieldKind, type_: str, given: ConditionValue, expected: ConditionValue) -> None:
    fields = {"stars": make_stars(kind, type_)}
    [clause] = build_condition_clauses([Condition(field="stars", any=(given,))], fields)
    assert clause == {"terms": {"stars": [expected]}}
    assert type(clause["terms"]["stars"][0]) is type(expected)


@pytest.mark.parametrize(
    ("kind", "type_", "value"),
    [
        ("integer", "long", "four"),
        ("integer", "long", "1e3"),
        ("integer", "long", "\u0664"),  # an Arabic 4
        ("integer", "byte", "4000"),
        ("number", "float", "NaN"),
        ("boolean", "boolean", "yes"),
        ("keyword", "keyword", 4),
    ],
)
def test_other_text_is_refused(kind: FieldKind, type_: str, value: ConditionValue) -> None:
    with pytest.raises(QueryError, match="'stars'"):
        build_condition_clauses([Condition(field="stars", any=(value,))], {"stars": make_stars(kind, type_)})


def test_a_chosen_number_is_the_value_of_its_facet() -> None:
    field = make_stars("integer", "long")
    profiles = {"stars": FieldProfile(sampled=9, distinct=5, minimum=1.0, maximum=5.0, low=1.0, high=5.0)}
    [facet] = list_facets([field], profiles, [Condition(field="stars", any=("4", 4))])
    assert facet.chosen == (4,)
