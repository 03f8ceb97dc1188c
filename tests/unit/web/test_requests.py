"""Requests that only the page sends."""

from typing import Any

from support.errors import expect_error

from stair_es.errors import QueryError
from stair_es.search.query import SearchQuery
from stair_es.search.request import SearchRequest, build_search_request
from stair_es.types import SparseVector
from stair_es.web.search.params import SearchParams, build_bag_clause
from stair_es.web.search.service import (
    build_browsing_request,
    build_dates_request,
    explain_bag_score,
    parse_browsing_response,
    parse_oldest_date,
)

CAR = SparseVector.from_mapping({"car": 2.0, "a.b": 1.0})


def build_bag_request(query: SearchQuery, max_clauses: int = 1024, **more: Any) -> SearchRequest:  # noqa: ANN401
    return build_search_request(query, "rank_features", max_clauses=max_clauses, build_clause=build_bag_clause, **more)


def test_bag_counts_each_document_word_once() -> None:
    query = SearchQuery(vector=CAR, required=[("dog",)], excluded=[("cat",)], filters=[{"term": {"format": "JPEG"}}])
    request = build_bag_request(query, after=(1.0, "u", "s", "i"))
    bool_clause = request.body["query"]["bool"]
    assert bool_clause["should"][0]["bool"]["should"] == [
        {"constant_score": {"filter": {"term": {"top_tokens": "car"}}, "boost": 1.0}},
        {"constant_score": {"filter": {"term": {"top_tokens": "a.b"}}, "boost": 1.0}},
    ]
    assert bool_clause["filter"][0] == {"term": {"format": "JPEG"}}
    assert bool_clause["filter"][1]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.dog"
    assert bool_clause["must_not"][0]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.cat"
    assert request.body["search_after"] == [1.0, "u", "s", "i"]


def test_bag_words_beyond_the_clause_limit_are_reported() -> None:
    many = SparseVector.from_mapping({f"w{i:02}": 100.0 - i for i in range(40)})
    request = build_bag_request(SearchQuery(vector=many, required=[("w01",)]), 31)
    assert request.vector.tokens == many.tokens[:30]
    assert request.truncated.tokens == many.tokens[30:]


def test_bag_explains_by_the_words_that_a_document_lists() -> None:
    contributions = explain_bag_score(CAR, {"top_tokens": ["car", "dog"]})
    assert [(each.token, each.contribution) for each in contributions] == [("car", 1.0)]
    for invalid in (None, 7, {"car": 1}, [None, 1], []):
        assert explain_bag_score(CAR, {"top_tokens": invalid}) == ()
    assert len(explain_bag_score(CAR, {"top_tokens": "car"})) == 1


def test_browsing_requests_are_ordered_by_date_with_a_cursor() -> None:
    query: dict[str, Any] = {"bool": {"filter": []}}
    request = build_browsing_request(query, SearchParams(k=3, after=(1.7e12, "u", "s", "i")), True, 0)
    assert [next(iter(order)) for order in request.body["sort"]] == ["ingested_at", "uri", "sha256", "_index"]
    assert (request.body["query"], request.body["size"]) == (query, 3)
    assert request.body["search_after"] == [1.7e12, "u", "s", "i"]
    with expect_error("invalid-cursor", QueryError):
        build_browsing_request(query, SearchParams(after=("a", "b")), True, 0)
    by_date = build_browsing_request(query, SearchParams(k=1), False, 0)
    assert [list(order) for order in by_date.body["sort"]] == [["ingested_at"]]
    for body, cursor in (
        (by_date, [1.7e12]),
        (build_browsing_request(query, SearchParams(k=1), True, 0), [1.7e12, "u", "s", "i"]),
    ):
        response = {"took": 1, "hits": {"hits": [{"_id": "a", "sort": cursor}]}}
        assert parse_browsing_response(response, body).after == (None if body is by_date else cursor)
    with expect_error("index-not-pageable", QueryError):
        build_browsing_request(query, SearchParams(after=(1.7e12, "u", "s", "i")), False, 0)


def test_a_page_is_bounded_by_the_dates_of_its_images() -> None:
    query: dict[str, Any] = {"bool": {"filter": []}}
    first = build_dates_request(query, SearchParams(k=2))
    assert (first["size"], first["query"]["bool"]["filter"], first["_source"]) == (2, [query], False)
    later = build_dates_request(query, SearchParams(k=2, after=(1.7e12, "u", "s", "i")))
    assert later["query"]["bool"]["filter"][1]["range"]["ingested_at"]["lt"] == 1_700_000_000_000
    dates = {"hits": {"hits": [{"sort": [1_600_000_000_000]}, {"sort": [1_500_000_000_000]}]}}
    assert (parse_oldest_date(dates, 2), parse_oldest_date(dates, 3)) == (1_500_000_000_000, 0)
    assert parse_oldest_date({"hits": {"hits": [{"sort": [-1]}]}}, 1) == 0
    bounded = build_browsing_request(query, SearchParams(k=2), True, 1_500_000_000_000).body["query"]["bool"]["filter"]
    assert bounded == [query, {"range": {"ingested_at": {"gte": 1_500_000_000_000, "format": "epoch_millis"}}}]
