"""A weighed question -> request bodies."""

import pytest

from stair_es.errors import QueryError
from stair_es.search.question import Question
from stair_es.types import SparseVector
from stair_es.web.asked import Asked
from stair_es.web.weighed import Way, bag_why, facets_of, sent_of

WAY = Way(shape="rank_features", max_clauses=1024)
CAR = SparseVector.from_mapping({"car": 2.0, "a.b": 1.0})


def test_stair_asks_for_escaped_words_with_their_weights() -> None:
    sent = sent_of(Question(vector=CAR), Asked(k=3), WAY)
    clauses = [clause["rank_feature"] for clause in sent.body["query"]["bool"]["should"]]
    assert [(clause["field"], clause["boost"]) for clause in clauses] == [("tokens.car", 2.0), ("tokens.a%2Eb", 1.0)]
    assert (sent.body["size"], sent.words, len(sent.cut)) == (3, CAR, 0)


def test_bag_counts_each_word_once_as_it_stands_in_the_documents() -> None:
    question = Question(vector=CAR, required=[("dog",)], excluded=[("cat",)], filters=[{"term": {"format": "JPEG"}}])
    sent = sent_of(question, Asked(method="bag", after=(1.0, "u", "s", "i")), WAY)
    around = sent.body["query"]["bool"]
    assert around["must"][0]["bool"]["should"] == [
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
    sent = sent_of(Question(vector=many, required=[("w01",)]), Asked(method=method), Way(shape="rank_features", max_clauses=31))  # type: ignore[arg-type]
    assert sent.words.features == many.features[:30]
    assert sent.cut.features == many.features[30:]


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
            sent_of(Question(vector=CAR), Asked(method=method, after=after), WAY)  # type: ignore[arg-type]
    unordered = Way(shape="rank_features", max_clauses=1024, ordered=False)
    with pytest.raises(QueryError, match="total order"):
        sent_of(Question(vector=CAR), Asked(method=method, after=(1.0, "u", "s", "i")), unordered)  # type: ignore[arg-type]
    assert "sort" not in sent_of(Question(vector=CAR), Asked(method=method), unordered).body  # type: ignore[arg-type]


def test_bag_explains_by_the_words_that_a_document_lists() -> None:
    reasons = bag_why(Question(vector=CAR), {"top_tokens": ["car", "dog"]})
    assert [(reason.feature, reason.contribution) for reason in reasons] == [("car", 1.0)]
    for odd in (None, 7, {"car": 1}, [None, 1], []):
        assert bag_why(Question(vector=CAR), {"top_tokens": odd}) == ()
    assert len(bag_why(Question(vector=CAR), {"top_tokens": "car"})) == 1


def test_facets_are_of_everything_that_matches() -> None:
    body = facets_of({"match_all": {}}, colours=True)
    assert (body["size"], body["track_total_hits"]) == (0, True)
    assert {name: agg["terms"]["field"] for name, agg in body["aggs"].items()} == {
        "words": "top_tokens",
        "colours": "colours",
        "sources": "source",
        "indices": "_index",
    }
    without = facets_of({"match_all": {}}, colours=False)  # where they are text, the engine refuses to count them
    assert set(body["aggs"]) - set(without["aggs"]) == {"colours"}
