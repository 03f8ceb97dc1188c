"""Random query strings, filters and vectors without a cluster: a QueryError, or a valid request."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from support import fuzz_inputs

from stair_es.errors import QueryError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.diagnose import list_failed_tokens
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.pagination import validate_cursor
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import QueryInputs, build_search_query, combine_vectors
from stair_es.search.query_parser import parse_query
from stair_es.search.request import build_search_request, quantize_weight
from stair_es.types import QueryType, SparseVector

SEED = 20261124
QUERY_STRINGS = (
    *("", "-", "+", "^", "--", "++", "-+", "+-", "^2", "-^2", "+^2", "dog^", "dog^^2", "dog^1e999", "dog^-1", "dog^nan"),
    *("dog^1e308", "dog^1e-320", "dog^0", "-dog", "+dog", "dog -dog", "dog +dog -dog", "-dog^2", "+the", "-the", "dog -the"),
    *("dog^2 dog^3", "dogs^2 dog", "dog^٣", "dog\x00", "犬 -猫", "dog -\u202egod", "a" * 10_000, "-" + "a" * 10_000),
    *(
        "dog " * 10_000,
        "-cat " * 10_000 + "dog",
        "+dog " * 3000,
        "dog^1.5 " * 3000,
        "dog ^ 2",
        "dog\u00a0-cat",
        "\ud800",
        "dog \ud800",
    ),
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", text_tower="table"))


def draw_query_string(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randint(0, 6)):
        odd_words = (fuzz_inputs.draw_word(rng), fuzz_inputs.draw_word(rng), fuzz_inputs.draw_broken_text(rng))
        word = rng.choice(("dog", "beach", "cat", "the", "macaw", "##ing") if rng.random() < 0.85 else odd_words)
        boost = "" if rng.random() < 0.7 else rng.choice(("^2", "^0.5", "^2", "^0", "^", "^-1", "^1e999", f"^{odd_words[0]}"))
        parts.append(rng.choice(("", "", "", "-", "+", "--")) + word + boost)
    return rng.choice((" ", "\t", "  ")).join(parts)


def build_or_none(encoder: Encoder, inputs: QueryInputs) -> SearchQuery | None:
    try:
        return build_search_query(encoder, inputs)
    except QueryError:
        return None


def test_query_strings_of_any_kind(encoder: Encoder) -> None:
    rng = random.Random(SEED)
    count = 0
    for case, query_string in enumerate((*QUERY_STRINGS, *(draw_query_string(rng) for _ in range(600)))):
        query = build_or_none(encoder, QueryInputs(query_string=query_string))
        if query is None:
            continue
        count += 1
        parsed = parse_query(query_string)
        weights = dict(encoder.encode_texts([parsed.text])[0])
        assert all(0 <= boost < math.inf for boost in parsed.boosts.values()), (case, query_string[:80])
        for word, weight in query.vector:  # without a boost the weight is that of the model
            factors = [boost for boosted, boost in parsed.boosts.items() if word in tokenize(encoder, boosted)]
            assert any(weight == pytest.approx(weights[word] * factor) for factor in factors or [1.0]), (case, query_string[:80])
        assert len(query.excluded) == len(set(parsed.excluded)), (case, query_string[:80])
        check_request_json(query, case)
    assert count > 120


def tokenize(encoder: Encoder, word: str) -> tuple[str, ...]:
    found: tuple[str, ...] = encoder.tokenize_word(word)
    return found


def check_request_json(query: SearchQuery, case: object) -> None:
    """Check that a query can be sent as JSON."""
    query_types: tuple[QueryType, ...] = ("rank_features", "sparse_vector", "neural_sparse")
    for query_type in query_types:
        try:
            request = build_search_request(query, query_type, max_clauses=1024)
        except QueryError:
            continue
        json.dumps(request.body, allow_nan=False, ensure_ascii=False).encode()
        assert len(request.vector) <= query.count_vector_clauses(1024), case


def test_literal_words_are_the_text(encoder: Encoder) -> None:
    rng = random.Random(SEED)
    for _ in range(200):
        query_string = draw_query_string(rng)
        query = build_or_none(encoder, QueryInputs(query_string=query_string, literal=True))
        if query is not None:
            assert query.vector == encoder.encode_texts([query_string.strip()])[0]
            assert not query.required
            assert not query.excluded


def test_filters_of_any_kind() -> None:
    rng = random.Random(SEED)
    pieces = (
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        '{"term":',
        '{"bool":{"filter":[',
        "NaN",
        "1e999",
        "null",
        "a",
        "width:>8",
        "\x00",
    )
    clauses = 0
    for _ in range(2000):
        text = "".join(rng.choice((*pieces, fuzz_inputs.draw_word(rng))) for _ in range(rng.randint(0, 12)))
        try:
            clause = parse_filter(text)
            query = SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), filters=[clause])
        except QueryError:
            continue
        clauses += 1
        assert len(clause) == 1
        check_request_json(query, text)
    assert clauses > 500


@pytest.mark.parametrize("depth", [40, 96, 105, 1000, 100_000])
def test_a_deep_filter_is_rejected_not_a_recursion(depth: int) -> None:
    text = '{"bool":{"filter":[' * (depth // 3) + '{"match_all":{}}' + "]}}" * (depth // 3)
    vector = SparseVector.from_mapping({"a": 1.0})
    if depth < 100:
        SearchQuery(vector=vector, filters=[parse_filter(text)])
        return
    with pytest.raises(QueryError, match=r"deep|not JSON"):
        SearchQuery(vector=vector, filters=[parse_filter(text)])


@pytest.mark.parametrize("depth", [120, 450, 100_000])
def test_a_deep_clause_is_rejected(depth: int) -> None:
    clause: dict[str, Any] = {"match_all": {}}
    for _ in range(depth // 3):
        clause = {"bool": {"filter": [clause]}}
    with pytest.raises(QueryError, match=r"deep|as JSON"):
        SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), filters=[clause])


def test_recursive_filters_are_rejected() -> None:
    clause: dict[str, Any] = {"bool": {}}
    clause["bool"]["filter"] = [clause]
    with pytest.raises(QueryError, match="as JSON"):
        SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), filters=[clause])


def test_overflowing_weights_are_rejected() -> None:
    heavy = SparseVector.from_mapping({"a": 1e300, "b": 1.0})
    with pytest.raises(QueryError, match="too large"):
        combine_vectors([(heavy, 1e300)])
    for weight in (math.nan, math.inf, -math.inf):
        with pytest.raises(QueryError, match="finite"):
            combine_vectors([(heavy, weight)])


@pytest.mark.parametrize("min_weight", [0.3, 0.1, 1.0, 1e-300, 5e-324, 1e39, 3.4e38, 0.77777])
def test_the_least_weight_is_cut_as_the_weights_are(min_weight: float) -> None:
    assert quantize_weight(min_weight) <= min_weight
    assert quantize_weight(min_weight) >= min(min_weight, 3.4e38) * (1 - 2**-8) or min_weight < 1e-37
    assert quantize_weight(quantize_weight(min_weight)) == quantize_weight(min_weight)


@pytest.mark.parametrize(
    "values",
    [[], [1.0], ["1", "a", "b", "c"], [True, "a", "b", "c"], [None] * 4, [1.0, 2, "b", "c"], [math.nan, "a", "b", "c"], "abcd"],
    ids=str,
)
def test_an_invalid_cursor_is_rejected(values: Any) -> None:  # noqa: ANN401  anything
    with pytest.raises(QueryError, match="not a cursor"):
        validate_cursor(values)
    with pytest.raises(QueryError, match="neither"):
        validate_cursor([1.0, None, None, "images"])
    assert validate_cursor([1, "a", None, "images"]) == [1, "a", None, "images"]


def test_failed_tokens_agree_with_the_engine() -> None:
    """0.3 is not a 9-bit number: with a minimum of 0.3 the engine also finds 0.2999, which it stores as the same value."""
    vector = SparseVector.from_mapping({"a": 1.0})
    required = SearchQuery(vector=vector, required=[("a",)], min_weight=0.3)
    excluded = SearchQuery(vector=vector, excluded=[("a",)], min_weight=0.3)
    for weight, has in ((0.3, True), (0.2999, True), (0.298, False), (0.5, True)):
        assert bool(list_failed_tokens(required, {"a": weight})) != has
        assert bool(list_failed_tokens(excluded, {"a": weight})) == has
