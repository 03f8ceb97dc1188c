"""Bodies of `_search` requests."""

import json
from dataclasses import replace
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.errors import QueryError
from stair_es.model.base import MatchThresholds
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.mapped_fields import list_mapped_fields
from stair_es.search.dsl.pagination import build_cursor, build_field_order
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.query import CaptionWord, SearchQuery
from stair_es.search.request import build_match_clause, build_search_request, build_token_clause
from stair_es.search.results import parse_search_response
from stair_es.types import SparseVector

VECTOR = SparseVector.from_mapping({"dog": 2.0, "beach": 1.0, "sand": 0.5})
SPARSE = {
    "bool": {
        "should": [
            {"rank_feature": {"field": "tokens.dog", "boost": 2.0, "linear": {}}},
            {"rank_feature": {"field": "tokens.beach", "boost": 1.0, "linear": {}}},
            {"rank_feature": {"field": "tokens.sand", "boost": 0.5, "linear": {}}},
        ]
    }
}
PNG = {"term": {"format": "png"}}


def build_body(query: SearchQuery, **more: Any) -> dict[str, Any]:  # noqa: ANN401  what request_body takes
    built: dict[str, Any] = build_search_request(query, "rank_features", max_clauses=1024, **more).body
    json.dumps(built, allow_nan=False)
    return built


def test_a_vector_alone_is_one_clause_in_a_total_order() -> None:
    assert build_body(SearchQuery(vector=VECTOR), k=3) == {
        "size": 3,
        "track_total_hits": False,
        "_source": {"excludes": ["thumbnail", "policy_undo", "labels_undo", "text_boxes"]},
        "query": SPARSE,
        "sort": [
            {"_score": {"order": "desc"}},
            {"uri": {"order": "asc", "unmapped_type": "keyword"}},
            {"sha256": {"order": "asc", "unmapped_type": "keyword"}},
            {"_index": {"order": "asc"}},
        ],
    }


def test_conditions_never_make_the_words_optional() -> None:
    built = build_body(SearchQuery(vector=VECTOR, filters=[PNG], required=[("dog",)], excluded=[("tab", "##by")]))
    assert built["query"] == {
        "bool": {
            "should": [SPARSE],
            "minimum_should_match": 1,
            "filter": [PNG, build_token_clause(("dog",), "rank_features")],
            "must_not": [
                {
                    "bool": {
                        "filter": [build_token_clause(("tab",), "rank_features"), build_token_clause(("##by",), "rank_features")]
                    }
                }
            ],
        }
    }


def test_words_below_the_minimum_are_ignored() -> None:
    assert build_token_clause(("dog",), "rank_features", min_weight=0.5) == {
        "function_score": {"query": build_token_clause(("dog",), "rank_features"), "min_score": 0.5}
    }


@pytest.mark.parametrize(("min_weight", "bound"), [(0.5, 0.4995), (0.0104, 0.0095), (0.0001, 0.0005)])
def test_min_weight_of_impacts_is_rounded_to_thousandths(min_weight: float, bound: float) -> None:
    assert build_token_clause(("dog",), "impacts", min_weight=min_weight)["function_score"]["min_score"] == pytest.approx(bound)


def test_a_caption_adds_its_score() -> None:
    built = build_body(SearchQuery(vector=VECTOR, caption="a dog", caption_weight=0.25))
    assert built["query"] == {"bool": {"should": [SPARSE, {"match": {"caption": {"query": "a dog", "boost": 0.25}}}]}}
    assert build_body(SearchQuery(caption="a dog", caption_weight=1))["query"] == {
        "match": {"caption": {"query": "a dog", "boost": 1}}
    }
    words = build_body(SearchQuery(vector=VECTOR, caption="dog", caption_words=[CaptionWord("dog", 0.5)], caption_weight=0.5))
    [clause] = words["query"]["bool"]["should"][1:]
    assert clause["constant_score"] == {"filter": {"match_phrase": {"caption": "dog"}}, "boost": 0.25, "_name": "caption:dog"}
    assert build_body(SearchQuery(vector=VECTOR, caption="a dog", caption_weight=0))["query"] == SPARSE


def test_the_next_page_and_the_least_score() -> None:
    built = build_body(SearchQuery(vector=VECTOR, min_score=0.5), after=[1.5, "file:///a.jpg", "ab", "images-1"])
    assert (built["search_after"], built["min_score"]) == ([1.5, "file:///a.jpg", "ab", "images-1"], 0.5)


def test_an_index_without_keywords_has_hits_and_no_pages() -> None:
    assert "sort" not in build_body(SearchQuery(vector=VECTOR), ordered=False)
    with expect_error("index-not-pageable", QueryError):
        build_body(SearchQuery(vector=VECTOR), ordered=False, after=[1.5, "file:///a.jpg", "ab", "i"])


FIELDS = list_mapped_fields(
    {
        "images-1": {
            "mappings": {
                "properties": {
                    "price": {"type": "float"},
                    "tax": {"type": "scaled_float"},
                    "shot_at": {"type": "date"},
                    "title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
                    "note": {"type": "text"},
                }
            }
        }
    }
)


@pytest.mark.parametrize("scale", [1.0, 2.0**40])
def test_an_order_by_a_field_has_matches_alone(scale: float) -> None:
    query = SearchQuery(
        vector=VECTOR, match_thresholds=MatchThresholds(weak_cosine=0.5, weak_image_cosine=0.5, named_weight=0.1), scale=scale
    )
    order = build_field_order("price:desc", FIELDS)
    after = ["-Infinity", "file:///a.jpg", None, "images-1"]
    request = build_search_request(query, "rank_features", max_clauses=1024, order=order, after=after)
    ranked = build_search_request(query, "rank_features", max_clauses=1024)
    cut = build_match_clause(ranked, query)
    assert (ranked.match_cut is None, cut is None) == (False, False)
    assert request.body["query"] == {"bool": {"must": [ranked.body["query"]], "filter": [cut]}}
    assert request.body["sort"][0] == {"price": {"order": "desc", "missing": "_last", "unmapped_type": "float"}}
    assert [next(iter(key)) for key in request.body["sort"]] == ["price", "uri", "sha256", "_index"]
    assert (request.body["search_after"], request.body["track_scores"], request.match_cut) == (after, True, None)
    raw_hit = {"_id": "a", "_score": 0.5 * scale, "sort": [12.5, "file:///a.jpg", None, "images-1"]}
    [hit] = parse_search_response({"took": 1, "hits": {"hits": [raw_hit]}}, request).hits
    assert (hit.score, hit.weak, hit.cursor) == (0.5, False, raw_hit["sort"])
    without_cut = build_body(replace(query, match_thresholds=None), order=order)
    assert without_cut["query"] == build_body(replace(query, match_thresholds=None))["query"]


@pytest.mark.parametrize(
    ("sort", "first", "sent"),
    [
        ("shot_at:asc", 2**63 - 1, 2**63 - 1),
        ("shot_at:desc", -(2**63), -(2**63)),
        ("shot_at:asc", 1_700_000_000_000, 1_700_000_000_000),
        ("shot_at:asc", "Infinity", None),
        ("shot_at:asc", 2**63, None),
        ("shot_at:asc", 9.223372036854776e18, 2**63 - 1),  # as a browser reads what the engine has
        ("shot_at:desc", -9.223372036854776e18, -(2**63)),
        ("price:asc", 10**400, None),
        ("tax:asc", "Infinity", "Infinity"),
        ("price:asc", 12.5, 12.5),
        ("price:asc", "12.5", None),
        ("price:asc", None, None),
    ],
)
def test_cursors_of_fields_are_exact_in_every_reader_of_json(sort: str, first: Any, sent: Any) -> None:  # noqa: ANN401  JSON
    cursor = build_cursor([first, "file:///a.jpg", None, "images-1"])
    assert not isinstance(cursor[0], int) or abs(cursor[0]) <= 2**53
    query, order = SearchQuery(vector=VECTOR), build_field_order(sort, FIELDS)
    if sent is None:
        with expect_error("invalid-cursor", QueryError):
            build_body(query, order=order, after=cursor)
    else:
        assert build_body(query, order=order, after=cursor)["search_after"][0] == sent


@pytest.mark.parametrize(
    ("sort", "code"),
    [
        ("price", "invalid-sort"),
        ("price:up", "invalid-sort"),
        (":asc", "invalid-sort"),
        ("cost:asc", "field-not-usable"),
        ("note:asc", "field-not-usable"),
        ("title:asc", "field-not-sortable"),
        ("title.keyword:asc", "field-not-usable"),
    ],
)
def test_only_numbers_and_dates_are_sorted(sort: str, code: str) -> None:
    with expect_error(code, QueryError):
        build_field_order(sort, FIELDS)
    with expect_error("index-not-sortable", QueryError):
        build_body(SearchQuery(vector=VECTOR), order=build_field_order("price:asc", FIELDS), ordered=False)


def test_filters_and_captions_share_the_clause_limit() -> None:
    many = SparseVector.from_pairs((f"w{i:04}", 1.0 + i) for i in range(1024))
    for more, left in (({}, 1024), ({"caption": "one"}, 960), ({"filters": [PNG], "required": [("dog", "s")]}, 958)):
        query = SearchQuery(vector=many, **more)
        request = build_search_request(query, "rank_features", max_clauses=1024)
        assert (len(request.vector), len(request.truncated)) == (left, 1024 - left)
        assert len(build_search_request(query, "rank_features", max_clauses=1).vector) == 1


def test_an_empty_query_is_rejected() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("query-empty", {}),
        ("query-empty", {"caption": " "}),
        ("invalid-number", {"vector": VECTOR, "min_score": float("nan")}),
        ("invalid-number", {"vector": VECTOR, "min_weight": -1.0}),
    ]
    for code, fields in cases:
        with expect_error(code, QueryError):
            SearchQuery(**fields)
    with expect_error("query-empty", QueryError):
        build_body(SearchQuery(caption="a dog", caption_weight=0))
    with expect_error("word-without-token", QueryError):
        SearchQuery(vector=VECTOR, required=[()])


def test_a_string_in_place_of_a_list_is_rejected() -> None:
    for wrong in ({"required": ["dog"]}, {"excluded": "dog"}):
        with expect_error("words-not-in-groups", QueryError):
            SearchQuery(vector=VECTOR, **wrong)
    for name in ("texts", "images", "required", "excluded", "muted", "filters"):
        with expect_error("string-instead-of-list", QueryError) as caught:
            QueryInputs(query_string="dog", **{name: "dog"})  # type: ignore[arg-type]
        assert name in caught.value.message
    with expect_error("unknown-query-type", QueryError):
        build_search_request(SearchQuery(vector=VECTOR), "nope", max_clauses=9)  # type: ignore[arg-type]


def test_filters_as_people_write_them() -> None:
    assert parse_filter("width:>800") == {"query_string": {"query": "width:>800", "default_field": "caption"}}
    assert parse_filter(' {"term": {"format": "png"}} ') == PNG
    for text, code in (("", "filter-empty"), ("{", "filter-not-json")):
        with expect_error(code, QueryError):
            parse_filter(text)
    for text in ("[]", "{}", '{"term": 3}', '{"term": {}, "range": {}}', '[{"term": {"format": "png"}}]'):
        with expect_error("filter-not-one-clause", QueryError):
            parse_filter(text)
