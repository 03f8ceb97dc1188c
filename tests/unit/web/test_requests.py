"""A weighed query -> request bodies."""

import pytest

from stair_es.errors import QueryError
from stair_es.search.query import SearchQuery
from stair_es.types import SparseVector
from stair_es.web.query import QueryPlan, build_facets_request, build_page_request, explain_bag_score
from stair_es.web.schemas import SearchParams

WAY = QueryPlan(query_type="rank_features", max_clauses=1024)
CAR = SparseVector.from_mapping({"car": 2.0, "a.b": 1.0})


def test_stair_asks_for_escaped_words_with_their_weights() -> None:
    sent = build_page_request(SearchQuery(vector=CAR), SearchParams(k=3), WAY)
    clauses = [clause["rank_feature"] for clause in sent.body["query"]["bool"]["should"]]
    assert [(clause["field"], clause["boost"]) for clause in clauses] == [("tokens.car", 2.0), ("tokens.a%2Eb", 1.0)]
    assert (sent.body["size"], sent.vector, len(sent.truncated)) == (3, CAR, 0)


def test_bag_counts_each_word_once_as_it_stands_in_the_documents() -> None:
    query = SearchQuery(vector=CAR, required=[("dog",)], excluded=[("cat",)], filters=[{"term": {"format": "JPEG"}}])
    sent = build_page_request(query, SearchParams(method="bag", after=(1.0, "u", "s", "i")), WAY)
    around = sent.body["query"]["bool"]
    assert around["should"][0]["bool"]["should"] == [
        {"constant_score": {"filter": {"term": {"top_tokens": "car"}}, "boost": 1.0}},
        {"constant_score": {"filter": {"term": {"top_tokens": "a.b"}}, "boost": 1.0}},
    ]
    assert around["filter"][0] == {"term": {"format": "JPEG"}}
    assert around["filter"][1]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.dog"
    assert around["must_not"][0]["bool"]["should"][0]["rank_feature"]["field"] == "tokens.cat"
    assert sent.body["search_after"] == [1.0, "u", "s", "i"]


@pytest.mark.parametrize("method", ["stair", "bag"])
def test_words_beyond_the_cluster_s_limit_are_cut_and_told(method: str) -> None:
    many = SparseVector.from_mapping({f"w{i:02}": 100.0 - i for i in range(40)})
    sent = build_page_request(
        SearchQuery(vector=many, required=[("w01",)]),
        SearchParams(method=method),  # type: ignore[arg-type]
        QueryPlan(query_type="rank_features", max_clauses=31),
    )
    assert sent.vector.tokens == many.tokens[:30]
    assert sent.truncated.tokens == many.tokens[30:]


@pytest.mark.parametrize("method", ["stair", "bag"])
def test_a_cursor_that_is_none_and_pages_without_an_order_are_refused(method: str) -> None:
    odd: list[tuple[object, ...]] = [
        (),
        (1,),
        ("a", "b", "c", "d"),
        (1.0, {}, "s", "i"),
        (True, "u", "s", "i"),
        (1.0, None, None, "i"),
    ]
    for after in odd:
        with pytest.raises(QueryError):
            build_page_request(SearchQuery(vector=CAR), SearchParams(method=method, after=after), WAY)  # type: ignore[arg-type]
    unordered = QueryPlan(query_type="rank_features", max_clauses=1024, sortable=False)
    with pytest.raises(QueryError, match="total order"):
        build_page_request(SearchQuery(vector=CAR), SearchParams(method=method, after=(1.0, "u", "s", "i")), unordered)  # type: ignore[arg-type]
    assert "sort" not in build_page_request(SearchQuery(vector=CAR), SearchParams(method=method), unordered).body  # type: ignore[arg-type]


def test_bag_explains_by_the_words_that_a_document_lists() -> None:
    reasons = explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": ["car", "dog"]})
    assert [(reason.token, reason.contribution) for reason in reasons] == [("car", 1.0)]
    for odd in (None, 7, {"car": 1}, [None, 1], []):
        assert explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": odd}) == ()
    assert len(explain_bag_score(SearchQuery(vector=CAR), {"top_tokens": "car"})) == 1


def test_facets_are_of_everything_that_matches() -> None:
    body = build_facets_request({"match_all": {}}, colours=True)
    assert (body["size"], body["track_total_hits"]) == (0, True)
    assert {name: agg["terms"]["field"] for name, agg in body["aggs"].items()} == {
        "tokens": "top_tokens",
        "colours": "colours",
        "sources": "source",
        "indices": "_index",
    }
    without = build_facets_request({"match_all": {}}, colours=False)  # where they are text, the engine refuses to count them
    assert set(body["aggs"]) - set(without["aggs"]) == {"colours"}
