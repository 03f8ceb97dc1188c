"""Reasons of engines, as they were seen, for filters that they reject."""

import pytest

from stair_es.search.dsl.filter_errors import explain_filter_error
from stair_es.search.dsl.mapped_fields import list_mapped_fields

PROPERTIES = {
    "width": {"type": "integer"},
    "price": {"type": "float"},
    "taken_at": {"type": "date"},
    "sale": {"type": "boolean"},
    "format": {"type": "keyword"},
}
FIELDS = list_mapped_fields({"i": {"mappings": {"properties": PROPERTIES}}})
NUMBER = 'all shards failed: failed to create query: For input string: "{}"'
DATE = "all shards failed: failed to parse date field [{0}] with format [x]: [failed to parse date field [{0}] with format [x]]"
SYNTAX = "all shards failed: Failed to parse query [{}]: {}\nWas expecting one of:\n    <EOF> \n    <AND> ..."


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("width:>abc", NUMBER.format("abc"), "the field 'width' (integer) with 'abc', which is not a number"),
        ("width:>>10", NUMBER.format(">10") + ': For input string: ">10"', "'width' (integer) with '>10', which is not a number"),
        ("price:a AND width:3", NUMBER.format("a"), "the field 'price' or 'width' (float or integer) with 'a'"),
        ("price:\\u0061", NUMBER.format("x" * 99), "with '" + "x" * 40 + "…', which"),
        ("taken_at:yesterday", DATE.format("yesterday"), "the field 'taken_at' (date) with 'yesterday', which is not a date"),
        ("sale:x", "Can't parse boolean value [x], expected [true] or [false]", "'sale' (boolean) with 'x'"),
        ("width:99999999999", "Value [[57 57]] is out of range for an integer", "'width' (integer) with a number that is out of"),
        ("price:1e400", "failed to create query: [float] supports only finite values, but got [Infinity]", "out of its range"),
        (
            "version:x",
            "Cannot search on field [version] since it is both not indexed, and",
            "a field whose values can't be compared",
        ),
        ("tokens:x", "Queries on [rank_features] fields are not supported", "a field whose values can't be compared"),
        ("(", SYNTAX.format("(", 'Encountered "<EOF>" at line 1, column 1.'), "something is missing at its end"),
        (
            'a:"b',
            SYNTAX.format('a:"b', "Lexical error at line 1, column 5.  Encountered: <EOF> (in lexical state 2)"),
            "a quotation mark isn't closed",
        ),
        ("a) b", SYNTAX.format("a) b", 'Encountered " ")" ") "" at line 1, column 1.'), "can't be parsed at ') b'"),
        ("a/b) c", SYNTAX.format(r"a\/b) c", 'Encountered " ")" ") "" at line 1, column 4.'), "can't be parsed at ') c'"),
        ("a\nb) c", SYNTAX.format("a\nb) c", 'Encountered " ")" ") "" at line 2, column 1.'), "can't be parsed at ') c'"),
    ],
)
def test_reasons_become_one_sentence(text: str, reason: str, message: str) -> None:
    error = explain_filter_error(reason, text, FIELDS)
    assert error is not None
    assert message in error.message
    assert error.remedy
    assert "\n" not in error.message


def test_the_remedy_shows_the_field() -> None:
    error = explain_filter_error(DATE.format("x"), "format:JPEG AND taken_at:x", FIELDS)
    assert error is not None
    assert "taken_at:[2024-01 TO 2024-06]" in error.remedy


@pytest.mark.parametrize("reason", ["maxClauseCount is set to 1024", "", "rejected execution"])
def test_other_reasons_stay(reason: str) -> None:
    assert explain_filter_error(reason, "width:abc", FIELDS) is None
