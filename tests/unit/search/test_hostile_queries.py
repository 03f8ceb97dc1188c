"""Queries, filters and cursors of any kind without a cluster: a QueryError, or a valid request."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.errors import expect_error
from support.strategies import FILTER_TEXTS, JSON_VALUES, QUERY_STRINGS, TOKENS, limit_examples, mix_rarely

from stair_es.errors import QueryError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.diagnose import list_failed_tokens
from stair_es.search.dsl.filters import list_filter_fields, parse_filter
from stair_es.search.dsl.pagination import validate_cursor
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_parser import parse_query
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import build_search_query
from stair_es.search.request import build_search_request, quantize_weight
from stair_es.types import QueryType, SparseVector

VECTOR = SparseVector.from_mapping({"a": 1.0})
HOSTILE_QUERY_STRINGS = (
    *("", "-", "+", "^", "--", "++", "-+", "+-", "^2", "-^2", "+^2", "dog^", "dog^^2", "dog^1e999", "dog^-1", "dog^nan"),
    *("dog^1e308", "dog^1e-320", "dog^0", "-dog", "+dog", "dog -dog", "dog +dog -dog", "-dog^2", "+the", "-the", "dog -the"),
    *("dog^2 dog^3", "dogs^2 dog", "dog^٣", "dog\x00", "犬 -猫", "dog -\u202egod", "a" * 10_000, "-" + "a" * 10_000),
    *("dog " * 10_000, "-cat " * 10_000 + "dog", "+dog " * 3000, "dog^1.5 " * 3000, "dog ^ 2", "dog\u00a0-cat"),
    *("\ud800", "dog \ud800"),
)


@pytest.fixture(scope="module")
def mini_encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", text_tower="table"))


def build_or_none(encoder: Encoder, inputs: QueryInputs) -> SearchQuery | None:
    try:
        return build_search_query(encoder, inputs)
    except QueryError:
        return None


def check_request_json(query: SearchQuery) -> None:
    """Check that a query can be sent as JSON."""
    query_types: tuple[QueryType, ...] = ("rank_features", "sparse_vector", "neural_sparse")
    for query_type in query_types:
        try:
            request = build_search_request(query, query_type, max_clauses=1024)
        except QueryError:
            continue
        json.dumps(request.body, allow_nan=False, ensure_ascii=False).encode()
        assert len(request.vector) <= query.count_vector_clauses(1024)


def check_query(encoder: Encoder, query_string: str, query: SearchQuery) -> None:
    """Check that a query has the words, boosts and weights of its query string."""
    parsed = parse_query(query_string)
    weights = dict(encoder.encode_texts([parsed.text])[0])
    for token, weight in query.vector:  # without a boost the weight is that of the model
        factors = [boost for word, boost in parsed.boosts.items() if token in encoder.tokenize_word(word)]
        assert any(weight == pytest.approx(weights[token] * factor) for factor in factors or [1.0])
    assert len(query.excluded) == len(set(parsed.excluded))
    check_request_json(query)


def test_query_strings_of_any_kind(mini_encoder: Encoder) -> None:
    tried = accepted = 0

    @limit_examples(2)
    @given(query_string=QUERY_STRINGS)
    def check_query_string(query_string: str) -> None:
        nonlocal tried, accepted
        query = build_or_none(mini_encoder, QueryInputs(query_string=query_string))
        tried += 1
        if query is not None:
            check_query(mini_encoder, query_string, query)
            accepted += 1

    check_query_string()
    assert accepted > tried / 10


@pytest.mark.parametrize("query_string", HOSTILE_QUERY_STRINGS, ids=range(len(HOSTILE_QUERY_STRINGS)))
def test_hostile_query_strings(mini_encoder: Encoder, query_string: str) -> None:
    query = build_or_none(mini_encoder, QueryInputs(query_string=query_string))
    if query is not None:
        check_query(mini_encoder, query_string, query)


@given(query_string=QUERY_STRINGS)
def test_literal_words_are_the_text(mini_encoder: Encoder, query_string: str) -> None:
    query = build_or_none(mini_encoder, QueryInputs(query_string=query_string, literal=True))
    if query is not None:
        assert query.vector == mini_encoder.encode_texts([query_string.strip()])[0]
        assert not query.required
        assert not query.excluded


def test_filters_of_any_kind() -> None:
    """A query string is sent as it is, a clause with its values."""
    tried = accepted = 0

    @limit_examples(3)
    @given(text=FILTER_TEXTS)
    def check_filter(text: str) -> None:
        nonlocal tried, accepted
        tried += 1
        try:
            clause = parse_filter(text)
            query = SearchQuery(vector=VECTOR, filters=[clause])
        except QueryError:
            return
        is_clause = text.strip().startswith("{")
        query_string = {"query_string": {"query": text.strip(), "default_field": "caption"}}
        assert clause == (json.loads(text) if is_clause else query_string)
        assert all(each.name for each in list_filter_fields(clause))
        check_request_json(query)
        accepted += 1

    check_filter()
    assert accepted > tried / 10


_NAMES = st.sampled_from(("term", "range", "bool", "exists", "query_string")) | st.text()
_CLAUSE_BODIES = mix_rarely(st.dictionaries(TOKENS, JSON_VALUES, max_size=3), JSON_VALUES)


@example(clause={"term": {"width": math.nan}})
@example(clause={"range": {"width": {"lt": math.inf}}})
@given(
    clause=mix_rarely(st.dictionaries(_NAMES, _CLAUSE_BODIES, min_size=1, max_size=1), st.dictionaries(_NAMES, _CLAUSE_BODIES))
)
def test_clauses_of_any_kind(clause: dict[str, Any]) -> None:
    text = json.dumps(clause)
    try:
        parsed = parse_filter(text)
    except QueryError:
        assert len(clause) != 1 or not isinstance(next(iter(clause.values())), dict)
        return
    assert json.dumps(parsed) == text
    list(list_filter_fields(parsed))
    infinite_numbers: list[str] = []
    json.loads(text, parse_constant=infinite_numbers.append)
    if infinite_numbers:
        with pytest.raises(QueryError):
            SearchQuery(vector=VECTOR, filters=[parsed])
    else:
        check_request_json(SearchQuery(vector=VECTOR, filters=[parsed]))


@pytest.mark.parametrize("depth", [40, 96, 105, 450, 1000, 100_000])
def test_deep_filters_are_rejected(depth: int) -> None:
    text = '{"bool":{"filter":[' * (depth // 3) + '{"match_all":{}}' + "]}}" * (depth // 3)
    clause: dict[str, Any] = {"match_all": {}}
    for _ in range(depth // 3):
        clause = {"bool": {"filter": [clause]}}
    if depth < 100:
        SearchQuery(vector=VECTOR, filters=[parse_filter(text), clause])
        return
    with expect_error("filter-not-json", QueryError):
        parse_filter(text)
    with expect_error("filter-not-sendable", QueryError):
        SearchQuery(vector=VECTOR, filters=[clause])


def test_recursive_clauses_are_rejected() -> None:
    clause: dict[str, Any] = {"bool": {}}
    clause["bool"]["filter"] = [clause]
    with expect_error("filter-not-sendable", QueryError):
        SearchQuery(vector=VECTOR, filters=[clause])


@example(least_weight=0.3)
@example(least_weight=0.77777)
@example(least_weight=1e39)
@given(least_weight=st.floats(0, allow_infinity=False))
def test_a_least_weight_is_quantized_as_weights_are(least_weight: float) -> None:
    quantized = quantize_weight(least_weight)
    assert min(least_weight, 3.4e38) * (1 - 2**-8) <= quantized <= least_weight or least_weight < 1e-37
    assert quantize_weight(quantized) == quantized <= least_weight


_CURSOR_VALUES = st.none() | st.text() | st.floats() | st.integers() | st.booleans() | st.just("\ud800")
CURSORS = st.lists(_CURSOR_VALUES, max_size=5) | st.tuples(st.floats(), *[st.none() | st.text()] * 3).map(list)


@example(cursor=[1.0, None, None, "images"])
@example(cursor=[1, "a", None, "images"])
@example(cursor=[])
@example(cursor=[1.0])
@example(cursor=["1", "a", "b", "c"])
@example(cursor=[True, "a", "b", "c"])
@example(cursor=[None] * 4)
@example(cursor=[1.0, 2, "b", "c"])
@example(cursor=[math.nan, "a", "b", "c"])
@given(cursor=CURSORS)
def test_cursors_of_any_kind(cursor: list[Any]) -> None:
    is_number = cursor[:1] != [] and type(cursor[0]) in (int, float) and math.isfinite(cursor[0])
    has_names = len(cursor) == 4 and all(name is None or (type(name) is str and name != "\ud800") for name in cursor[1:])
    is_unique = cursor[1:3] != [None, None]
    try:
        assert validate_cursor(cursor) == cursor
    except QueryError:
        assert not (is_number and has_names and is_unique)
    else:
        assert is_number
        assert has_names
        assert is_unique


def test_a_string_is_no_cursor() -> None:
    with expect_error("invalid-cursor", QueryError):
        validate_cursor("abcd")


def test_failed_tokens_agree_with_the_engine() -> None:
    """0.3 is not a 9-bit number: with a minimum of 0.3 the engine also finds 0.2999, which it stores as the same value."""
    required = SearchQuery(vector=VECTOR, required=[("a",)], min_weight=0.3)
    excluded = SearchQuery(vector=VECTOR, excluded=[("a",)], min_weight=0.3)
    for weight, has in ((0.3, True), (0.2999, True), (0.298, False), (0.5, True)):
        assert bool(list_failed_tokens(required, {"a": weight})) != has
        assert bool(list_failed_tokens(excluded, {"a": weight})) == has
