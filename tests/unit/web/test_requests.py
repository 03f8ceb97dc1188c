"""Weighted query -> request bodies."""

import pytest

from stair_es.errors import QueryError
from stair_es.search.query import SearchQuery
from stair_es.types import SparseVector
from stair_es.web.search.query import QueryPlan, build_facets_request, build_page_request, explain_bag_score
from stair_es.web.search.schemas import SearchParams

PLAN = QueryPlan(query_type="rank_features", max_clauses=1024)
CAR = SparseVector.from_mapping({"car": 2.0, "a.b": 1.0})


def test_stair_queries_have_escaped_words_and_weights() -> None:
    request = build_page_request(SearchQuery(vector=CAR), SearchParams(k=3), PLAN)
    clauses = [clause["rank_feature"] for clause in request.body["query"]["bool"]["should"]]
    assert [(clause["field"], clause["boost"]) for clause in clauses] == [("tokens.car", 2.0), ("tokens.a%2Eb", 1.0)]
    assert (request.body["size"], request.vector, len(request.truncated)) == (3, CAR, 0)


def test_bag_counts_each_document_word_once() -> None:
    query = SearchQuery(vector=CAR, required=[("dog",)], excluded=[("cat",)], filters=[{"term": {"format": "JPEG"}}])
    request = build_page_request(query, SearchParams(method="bag", after=(1.0, "u", "s", "i")), PLAN)
    bool_clause = request.body["query"]["bool"]
    assert bool_clause["should"][0]["bool"]["should"] == [
        {"constant_score": {"filter": {"term": {"top_tokens": "car"}}, "boost": 1.0}},
        {"constant_score": {"filter": {"term": {"top_tokens": "a.b"}}, "boost": 1.0}},
    ]
    assert bool_clause["filter"][0] == {"term": {"format": "JPEG"}}
    assert bool_clause["filter"][1]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.dog"
    assert bool_clause["must_not"][0]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.cat"
    assert request.body["search_after"] == [1.0, "u", "s", "i"]


@pytest.mark.parametrize("method", ["stair", "bag"])
def test_words_beyond_the_clause_limit_are_truncated_and_reported(method: str) -> None:
    many = SparseVector.from_mapping({f"w{i:02}": 100.0 - i for i in range(40)})
    request = build_page_request(
        SearchQuery(vector=many, required=[("w01",)]),
        SearchParams(method=method),  # type: ignore[arg-type]
        QueryPlan(query_type="rank_features", max_clauses=31),
    )
    assert request.vector.tokens == many.tokens[:30]
    assert request.truncated.tokens == many.tokens[30:]


@pytest.mark.parametrize("method", ["stair", "bag"])
def test_invalid_cursors_and_unordered_pages_are_rejected(method: str) -> None:
    invalid: list[tuple[object, ...]] = [
        (),
        (1,),
        ("a", "b", "c", "d"),
        (1.0, {}, "s", "i"),
        (True, "u", "s", "i"),
        (1.0, None, None, "i"),
    ]
    for after in invalid:
        with pytest.raises(QueryError):
            build_page_request(SearchQuery(vector=CAR), SearchParams(method=method, after=after), PLAN)  # type: ignore[arg-type]
    unordered = QueryPlan(query_type="rank_features", max_clauses=1024, sortable=False)
    with pytest.raises(QueryError, match="total order"):
        build_page_request(SearchQuery(vector=CAR), SearchParams(method=method, after=(1.0, "u", "s", "i")), unordered)  # type: ignore[arg-type]
    assert "sort" not in build_page_request(SearchQuery(vector=CAR), SearchParams(method=method), unordered).body  # type: ignore[arg-type]


def test_bag_explains_by_the_words_that_a_document_lists() -> None:
    contributions = explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": ["car", "dog"]})
    assert [(each.token, each.contribution) for each in contributions] == [("car", 1.0)]
    for invalid in (None, 7, {"car": 1}, [None, 1], []):
        assert explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": invalid}) == ()
    assert len(explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": "car"})) == 1


def test_facets_count_all_matches() -> None:
    body = build_facets_request({"match_all": {}}, colours=True)
    assert (body["size"], body["track_total_hits"]) == (0, True)
    assert {name: agg["terms"]["field"] for name, agg in body["aggs"].items()} == {
        "tokens": "top_tokens",
        "colours": "colours",
        "sources": "source",
        "indices": "_index",
    }
    without_colours = build_facets_request({"match_all": {}}, colours=False)  # the engine can't aggregate a text field
    assert set(body["aggs"]) - set(without_colours["aggs"]) == {"colours"}
