"""Conditions against a mapping."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error
from support.strategies import draw_condition, limit_examples

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
BOUNDS = ("gte", "gt", "lte", "lt")
FIELDS = list_mapped_fields({"i": {"mappings": {"properties": PROPERTIES}}})


def build_clauses(*conditions: dict[str, Any]) -> list[dict[str, Any]]:
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


def test_a_text_has_the_values_of_its_keyword_subfield() -> None:
    title = {"type": "text", "fields": {"a": {"type": "keyword", "doc_values": False}, "b": {"type": "keyword", "index": False}}}
    for fields, path in (({}, ""), ({"c": {"type": "keyword"}}, "title.c")):
        properties = {"title": {**title, "fields": {**title["fields"], **fields}}}  # type: ignore[dict-item]
        assert list_mapped_fields({"i": {"mappings": {"properties": properties}}})["title"].path == path


def test_fields_that_differ_between_indices_are_left_out() -> None:
    other = {"mappings": {"properties": {**PROPERTIES, "year": {"type": "keyword"}, "brand": {"type": "keyword"}}}}
    fields = list_mapped_fields({"i": {"mappings": {"properties": PROPERTIES}}, "j": other, "k": {"mappings": {}}})
    assert set(fields) == (set(FIELDS) - {"year"}) | {"brand"}


def test_conditions_become_clauses() -> None:
    assert build_clauses({"field": "format", "any": ["JPEG", "PNG"]}) == [{"terms": {"format": ["JPEG", "PNG"]}}]
    terms = [{"term": {"title.raw": "A b"}}, {"term": {"title.raw": "c"}}]
    assert build_clauses({"field": "title", "all": ["A b", "c"]}) == terms
    assert build_clauses({"field": "price", "gte": 10, "lt": 20.5}) == [{"range": {"price": {"gte": 10, "lt": 20.5}}}]
    assert build_clauses({"field": "sale", "any": [True]}, {"field": "camera.iso", "gt": 100}) == [
        {"terms": {"sale": [True]}},
        {"range": {"camera.iso": {"gt": 100}}},
    ]


@pytest.mark.parametrize(
    "date",
    ["2024", "2024-05", "2024-05-31", "2024-05-31T12:00Z", "2024-05-31T12:00:00.123+02:00", 0, -1000, 1_700_000_000_000],
)
def test_dates_are_sent_in_their_own_format(date: object) -> None:
    [clause] = build_clauses({"field": "taken_at", "gte": date})
    assert clause == {"range": {"taken_at": {"gte": date, "format": "strict_date_optional_time||epoch_millis"}}}


def test_milliseconds_have_no_fraction_and_no_exponent() -> None:
    [clause] = build_clauses({"field": "taken_at", "gte": 1e12})
    assert json.dumps(clause["range"]["taken_at"]["gte"]) == "1000000000000"


def test_the_smallest_number_of_a_type_is_in_its_range() -> None:
    assert build_clauses({"field": "year", "gte": -(2**15)}) == [{"range": {"year": {"gte": -(2**15)}}}]
    with expect_error("value-out-of-range", QueryError):
        build_clauses({"field": "year", "gte": -(2**15) - 1})


@pytest.mark.parametrize(
    ("condition", "code", "value"),
    [
        ({"field": "fromat", "any": ["JPEG"]}, "field-not-usable", "fromat"),
        ({"field": "tokens", "any": ["a"]}, "field-not-usable", "tokens"),
        ({"field": "prose", "any": ["a"]}, "field-not-usable", "prose"),
        ({"field": "format", "gte": "a"}, "field-without-ranges", ""),
        ({"field": "format", "any": [1]}, "value-not-a-string", "1"),
        ({"field": "year", "any": ["many"]}, "value-not-a-number", "many"),
        ({"field": "year", "gte": "1999"}, "value-not-a-number", "1999"),
        ({"field": "year", "gte": 40_000}, "value-out-of-range", "40000"),
        ({"field": "price", "lt": 1e300}, "value-out-of-range", "1e+300"),
        ({"field": "price", "any": [True]}, "value-not-a-number", "True"),
        ({"field": "sale", "any": ["yes"]}, "value-not-a-boolean", "yes"),
        ({"field": "taken_at", "any": ["2024"]}, "field-needs-range", ""),
        *(
            ({"field": "taken_at", "gte": date}, "value-not-a-date", str(date))
            for date in ("yesterday", "now-1d", "2024-13-01", "2024-02-30", "2023-02-29T12:00Z", 1e300, 1.5)
        ),
    ],
)
def test_conditions_that_a_field_can_t_meet_are_named(condition: dict[str, Any], code: str, value: str) -> None:
    with expect_error(code, QueryError) as caught:
        build_clauses(condition)
    assert repr(condition["field"]) in caught.value.message
    assert value in caught.value.message


@limit_examples(3)
@given(condition=draw_condition(st.sampled_from(sorted(FIELDS))))
def test_conditions_of_any_kind_keep_their_values(condition: dict[str, Any]) -> None:
    try:
        clauses = build_condition_clauses([msgspec.convert(condition, Condition)], FIELDS)
    except (msgspec.ValidationError, QueryError):
        return
    json.dumps(clauses, allow_nan=False, ensure_ascii=False).encode()
    mapped = FIELDS[condition["field"]]
    sent = [value for clause in clauses for kind, body in clause.items() for value in list_values(kind, body[mapped.path])]
    chosen = condition.get("any") or condition.get("all") or [condition[name] for name in BOUNDS if name in condition]
    for value, converted in zip(chosen, sent, strict=True):
        if mapped.kind in ("integer", "number"):
            assert not isinstance(converted, str | bool)
            assert converted == float(value)
        else:
            assert isinstance(converted, bool) == (mapped.kind == "boolean")
            assert str(converted).lower() == str(value).lower() or converted == value


def list_values(kind: str, body: Any) -> list[Any]:  # noqa: ANN401  JSON
    if kind == "range":
        return [body[name] for name in BOUNDS if name in body]
    return list(body) if kind == "terms" else [body]


def test_unknown_fields_get_near_ones_and_all() -> None:
    with expect_error("field-not-usable", QueryError) as caught:
        build_clauses({"field": "fromat", "any": ["JPEG"]})
    usable = sorted(name for name, mapped in FIELDS.items() if mapped.path)
    assert re.findall(r"[\w.]+(?=[,.?])", caught.value.remedy) == ["format", *usable]


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
    ("kind", "type_", "value", "code"),
    [
        *(("integer", "long", text, "value-not-a-number") for text in ("four", "1e3", "\u0664")),  # an Arabic 4
        ("integer", "byte", "4000", "value-out-of-range"),
        ("number", "float", "NaN", "value-not-a-number"),
        ("boolean", "boolean", "yes", "value-not-a-boolean"),
        ("keyword", "keyword", 4, "value-not-a-string"),
    ],
)
def test_other_text_is_rejected(kind: FieldKind, type_: str, value: ConditionValue, code: str) -> None:
    with expect_error(code, QueryError) as caught:
        build_condition_clauses([Condition(field="stars", any=(value,))], {"stars": make_stars(kind, type_)})
    assert "'stars'" in caught.value.message


def test_a_chosen_number_is_the_value_of_its_facet() -> None:
    field = make_stars("integer", "long")
    profiles = {"stars": FieldProfile(sampled=9, distinct=5, minimum=1.0, maximum=5.0, low=1.0, high=5.0)}
    [facet] = list_facets([field], profiles, [Condition(field="stars", any=("4", 4))])
    assert facet.chosen == (4,)
