"""Parsing of untrusted search requests."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import JSON_VALUES, QUERY_STRINGS, TOKENS, WEIGHTS, draw_condition, draw_damaged_bytes, mix_rarely

from stair_es.web.errors import ErrorResponse, RequestRejected
from stair_es.web.search.params import (
    MAX_CONDITION_VALUES,
    MAX_CONDITIONS,
    MAX_K,
    MAX_LIST_ITEMS,
    MAX_TEXT_CHARS,
    MAX_TOKEN_CHARS,
    MAX_VALUE_CHARS,
    MAX_VECTOR_TOKENS,
    Condition,
    SearchParams,
    parse_search_params,
)

_VALID_PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "text": QUERY_STRINGS,
    "vector": st.dictionaries(TOKENS, WEIGHTS | st.just(0), max_size=3),
    "factors": st.dictionaries(TOKENS, WEIGHTS | st.just(0), max_size=3),
    "require": st.lists(TOKENS, max_size=3),
    "filters": st.lists(draw_condition(TOKENS), max_size=2),
    "k": st.integers(1, MAX_K),
    "after": st.none() | st.lists(JSON_VALUES),
    "method": st.sampled_from(("words-and-text", "words", "bag", "text")),
}
PARAMETERS = mix_rarely(
    st.fixed_dictionaries({}, optional={name: mix_rarely(values, JSON_VALUES) for name, values in _VALID_PARAMETERS.items()}),
    st.dictionaries(TOKENS, JSON_VALUES),
)


def encode_body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def parse_or_reject(raw: bytes) -> tuple[SearchParams, ErrorResponse | None]:
    try:
        return parse_search_params(raw), None
    except RequestRejected as error:
        return SearchParams(), error.response


@given(parameters=PARAMETERS)
def test_parameters_of_any_kind_keep_their_values(parameters: dict[str, Any]) -> None:
    params, rejection = parse_or_reject(encode_body(**parameters))
    if rejection:
        assert 0 < len(rejection.error) < 1100
        return
    parameters = {name: value for name, value in parameters.items() if value is not None}
    assert params.text == parameters.get("text", "")
    assert params.vector == {token: weight for token, weight in parameters.get("vector", {}).items() if weight > 0}
    assert params.factors == parameters.get("factors", {})
    assert params.require == tuple(dict.fromkeys(parameters.get("require", ())))
    assert len(params.filters) == len(parameters.get("filters", ()))
    assert 1 <= params.k == parameters.get("k", 24) <= MAX_K


@given(raw=draw_damaged_bytes(PARAMETERS.map(lambda parameters: encode_body(**parameters))) | st.binary())
def test_bytes_of_any_kind_are_parameters_or_rejected(raw: bytes) -> None:
    _, rejection = parse_or_reject(raw)
    assert rejection is None or rejection.status == 400


def test_all_fields_are_read() -> None:
    params = parse_search_params(
        encode_body(
            text="red car",
            similar_to="a/b",
            vector={"dog": 1, "cat": 0},
            factors={"dog": 0, "cow": 2.5},
            require=["dog", "dog"],
            exclude=["cat"],
            filters=[
                {"field": "top_tokens", "all": ["animal"]},
                {"field": "price", "gte": 10, "lt": 20.5, "any": None},
                {"field": "on", "any": [True, "a", 3]},
            ],
            filter="width:>800",
            k=3,
            after=[1.5, "a", None, "i"],
            method="bag",
        )
    )
    assert params == SearchParams(
        text="red car",
        similar_to="a/b",
        vector={"dog": 1.0},
        factors={"dog": 0.0, "cow": 2.5},
        require=("dog",),
        exclude=("cat",),
        filters=(
            Condition(field="top_tokens", all=("animal",)),
            Condition(field="price", gte=10, lt=20.5),
            Condition(field="on", any=(True, "a", 3)),
        ),
        filter="width:>800",
        k=3,
        after=(1.5, "a", None, "i"),
        method="bag",
    )


def test_missing_and_null_parameters_have_their_defaults() -> None:
    nulls = encode_body(text=None, k=None, after=None, method=None)
    assert parse_search_params(b"{}") == SearchParams() == parse_search_params(nulls)
    assert (SearchParams().k, SearchParams().method) == (24, "words-and-text")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe{}",
        b'{"text": NaN}',
        b'{"vector": {"a": Infinity}}',
        b'{"vector": {"a": 1e999}}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text":' * 50_000,
        b'{"vector": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    ],
)
def test_an_invalid_search_request_is_rejected(raw: bytes) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_search_params(raw)
    assert caught.value.response.status == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 1),
        ("text", ["a"]),
        ("text", "x" * (MAX_TEXT_CHARS + 1)),
        ("similar_to", {"a": 1}),
        ("similar_to", "x" * 2049),
        ("vector", ["a"]),
        ("vector", {"a": "1"}),
        ("vector", {"a": True}),
        ("vector", {"a": -1}),
        ("vector", {"a": None}),
        ("vector", {f"w{i}": 1 for i in range(MAX_VECTOR_TOKENS + 1)}),
        ("vector", {"x" * (MAX_TOKEN_CHARS + 1): 1}),
        ("factors", {"a": -0.5}),
        ("factors", {"a": 1e7}),
        ("require", "dog"),
        ("require", [1]),
        ("exclude", [f"w{i}" for i in range(MAX_LIST_ITEMS + 1)]),
        ("filters", {"a": 1}),
        ("filters", [{"field": "width", "gte": 1}] * (MAX_CONDITIONS + 1)),
        *(
            ("filters", [condition])
            for condition in (
                "width:>8",
                {},
                {"field": "width"},
                {"field": "width", "gte": 1, "gt": 2},
                {"field": "width", "lte": 1, "lt": 2, "gt": 0},
                {"field": "width", "any": []},
                {"field": "width", "any": "8"},
                {"field": "width", "any": [None]},
                {"field": "width", "any": [{"a": 1}]},
                {"field": "width", "any": [8] * (MAX_CONDITION_VALUES + 1)},
                {"field": "uri", "any": ["x" * (MAX_VALUE_CHARS + 1)]},
                {"field": "width", "gte": True},
                {"field": "width", "gte": [1]},
                {"field": "width", "gte": 1, "any": [2]},
                {"field": "width", "any": [1], "all": [1]},
                {"field": "width", "above": 1},
                {"field": "", "any": [1]},
                {"field": 7, "any": [1]},
            )
        ),
        ("filter", []),
        ("k", 0),
        ("k", MAX_K + 1),
        ("k", 2.0),
        ("k", "3"),
        ("k", True),
        ("after", "x"),
        ("after", {"a": 1}),
        ("method", "dense"),
        ("method", ["bag"]),
    ],
)
def test_values_of_another_kind_or_size_are_rejected_by_name(name: str, value: object) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_search_params(encode_body(**{name: value}))
    assert caught.value.response.error.startswith(f"`{name}")


@pytest.mark.parametrize(
    ("fields", "error", "remedy"),
    [
        ({"txt": None}, "unknown field 'txt'", "text"),
        ({"k": 0}, "integer", "`after`"),
        ({"method": "m" * 2000}, "mmm", "bag"),
        ({"after": 3}, "integer", "previous page"),
        ({"text": "x" * (MAX_TEXT_CHARS + 1)}, "2000", "Shorten"),
        ({"filters": [{"field": "width", "any": [1], "x": 2}]}, "`filters[0]`: unknown field 'x'", '"gte": 800'),
        ({"filters": [{"field": "width", "any": []}]}, "`filters[0].any`", '"any": ["JPEG"]'),
    ],
)
def test_frequent_mistakes_have_a_remedy(fields: dict[str, object], error: str, remedy: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_search_params(encode_body(**fields))
    response = caught.value.response
    assert (error in response.error, remedy in response.remedy, len(response.error) < 1100) == (True, True, True)
