"""Values of conditions: a URL has numbers and booleans as text."""

from __future__ import annotations

import pytest

from stair_es.errors import QueryError
from stair_es.search.dsl.mapped_fields import FieldKind, MappedField
from stair_es.web.search.conditions import Condition, ConditionValue, build_condition_clauses
from stair_es.web.search.facet_scales import FieldProfile
from stair_es.web.search.facets import list_facets


def make_field(kind: FieldKind, type_: str) -> MappedField:
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
    fields = {"stars": make_field(kind, type_)}
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
        build_condition_clauses([Condition(field="stars", any=(value,))], {"stars": make_field(kind, type_)})


def test_a_chosen_number_is_the_value_of_its_facet() -> None:
    field = make_field("integer", "long")
    profiles = {"stars": FieldProfile(sampled=9, distinct=5, minimum=1.0, maximum=5.0, low=1.0, high=5.0)}
    [facet] = list_facets([field], profiles, [Condition(field="stars", any=("4", 4))])
    assert facet.chosen == (4,)
