"""Searches on a cluster that adds to scores, as document-level security does: a model of it answers request bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support.strategies import ENGINE_WEIGHTS

from stair_es.model.base import MatchThresholds
from stair_es.search.query import SearchQuery
from stair_es.search.ranking import AddedScores
from stair_es.search.request import build_search_request
from stair_es.search.results import SearchResult, parse_search_response
from stair_es.types import SparseVector
from stair_es.web.search.content_facts import build_suggestions_request
from stair_es.web.search.facet_scales import build_profile_request
from stair_es.web.search.params import build_bag_clause

DOCUMENTS = {"a": {"cat": 0.75, "dog": 0.5}, "b": {"cat": 0.5}, "c": {"dog": 0.625}, "d": {"cat": 0.25, "fur": 1.0}}
QUERY = SearchQuery(
    vector=SparseVector.from_mapping({"cat": 0.8, "dog": 0.1}),
    match_thresholds=MatchThresholds(weak_cosine=0.5, weak_image_cosine=0.5, named_weight=0.25),
)
RAISED = [{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": 1, "b": 1, "c": 3, "d": 2}, {"a": 20, "b": 40, "c": 60, "d": 64}]
"""What the cluster adds: the same, and more to documents that several roles permit."""


def compute_score(clause: Mapping[str, Any], tokens: Mapping[str, float]) -> float:
    """Compute the score of a clause; 0 for no match."""
    [(kind, body)] = clause.items()
    if kind == "bool":
        return float(sum(compute_score(each, tokens) for each in body["should"]))
    if kind == "function_score":
        return compute_score(body["query"], tokens) * float(body["weight"])
    if kind == "match":
        return float(body["caption"]["boost"]) * tokens.get("cat", 0.0)
    return float(body["boost"]) * tokens.get(body["field"].removeprefix("tokens."), 0.0)


@dataclass
class Cluster:
    """A cluster with float32 scores."""

    added: Mapping[str, float] = field(default_factory=dict)
    bodies: list[Mapping[str, Any]] = field(default_factory=list)

    def answer_search(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        scores = {id_: compute_score(body["query"], tokens) for id_, tokens in DOCUMENTS.items()}
        raised = {id_: np.float32(np.float32(score) + self.added.get(id_, 0)) for id_, score in scores.items() if score}
        found = [(score, id_) for id_, score in raised.items() if score >= body.get("min_score", 0)]
        if "search_after" in body:
            found = [each for each in found if each[0] < np.float32(body["search_after"][0])]
        hits = [
            {
                "_id": id_,
                "_index": "x",
                "_score": float(str(score)),
                "sort": [float(str(score)), id_, "s", "x"],
                "_source": {"uri": id_, "tokens": DOCUMENTS[id_]},
            }
            for score, id_ in sorted(found, key=lambda each: (-each[0], each[1]))[: body["size"]]
        ]
        return {"took": 1, "hits": {"hits": hits}}

    def search_with(self, scores: AddedScores, query: SearchQuery = QUERY, k: int = 10, after: Any = None) -> SearchResult:  # noqa: ANN401
        def send_query(sent: SearchQuery) -> SearchResult:
            request = build_search_request(sent, "rank_features", max_clauses=1024, k=k, after=after)
            return parse_search_response(self.answer_search(request.body), request)

        return scores.search(query, send_query, by_tokens=not query.caption, is_first=after is None)


PLAIN = Cluster().search_with(AddedScores()).hits


def list_scores(result: SearchResult) -> list[tuple[str, float, bool]]:
    return [(hit.id, hit.score, hit.weak) for hit in result.hits]


@pytest.mark.parametrize("added", RAISED)
def test_scores_and_weak_matches_are_those_without_additions(added: dict[str, float]) -> None:
    assert [hit.weak for hit in PLAIN] == [False, True, True, True]
    cluster, scores = Cluster(added), AddedScores()
    for _ in range(2):
        assert cluster.search_with(scores).hits == PLAIN
    assert len(cluster.bodies) == 3  # the first search is repeated, later ones know


@pytest.mark.parametrize("added", RAISED)
@pytest.mark.parametrize(
    "min_score", [0.0, 0.2, PLAIN[1].score, np.nextafter(np.float32(PLAIN[1].score), np.float32(1)), 0.9, 3e38]
)
def test_min_score_compares_scores_without_additions(added: dict[str, float], min_score: float) -> None:
    expected = [hit.id for hit in PLAIN if hit.score >= min_score]
    result = Cluster(added).search_with(AddedScores(), replace(QUERY, min_score=float(min_score)))
    assert [hit.id for hit in result.hits] == expected


@pytest.mark.parametrize("added", RAISED)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_cursor_is_valid_in_a_new_process(added: dict[str, float], k: int) -> None:
    found, after = [], None
    for _ in range(6):
        result = Cluster(added).search_with(AddedScores(), k=k, after=after)
        found += list_scores(result)
        after = result.after
        if after is None:
            break
    assert found == [(hit.id, hit.score, hit.weak) for hit in PLAIN]


@pytest.mark.parametrize("added", RAISED)
@pytest.mark.parametrize("vector", [{"cat": 0.8}, {"nothing": 1.0}])
def test_captions_are_ranked_without_additions(added: dict[str, float], vector: dict[str, float]) -> None:
    query = SearchQuery(vector=SparseVector.from_mapping(vector), caption="a cat", caption_weight=2.0)
    assert Cluster(added).search_with(AddedScores(), query).hits == Cluster().search_with(AddedScores(), query).hits


def test_without_additions_a_search_by_tokens_is_one_request() -> None:
    cluster, scores = Cluster(), AddedScores()
    for after in (None, PLAIN[0].cursor):
        cluster.search_with(scores, after=after)
    cluster.search_with(scores, replace(QUERY, caption="a cat"))  # known by now
    assert len(cluster.bodies) == 3
    assert "function_score" not in str(cluster.bodies)


def test_a_pipeline_that_replaces_scores_is_left_alone() -> None:
    cluster = Cluster()

    def send_query(sent: SearchQuery) -> SearchResult:
        request = build_search_request(sent, "rank_features", max_clauses=1024)
        response = cluster.answer_search(request.body)
        reranked = [{**hit, "_score": 5.0 - rank, "sort": None} for rank, hit in enumerate(response["hits"]["hits"])]
        return parse_search_response({**response, "hits": {"hits": reranked}}, request)

    scores = AddedScores()
    for _ in range(2):
        result = scores.search(QUERY, send_query, by_tokens=True, is_first=True)
        assert [hit.score for hit in result.hits] == [5.0, 4.0, 3.0, 2.0]
    assert len(cluster.bodies) == 3


@given(heaviest=ENGINE_WEIGHTS)
def test_the_scale_is_a_power_of_two_within_float32(heaviest: float) -> None:
    scale = SearchQuery(vector=SparseVector.from_mapping({"a": heaviest, "b": heaviest / 2})).amplify().scale
    assert np.log2(scale) == int(np.log2(scale))
    assert 1 <= scale <= 2.0**100
    assert heaviest * scale >= min(2.0**64, heaviest * 2.0**100)
    assert np.isfinite(np.float32(heaviest * scale))


def test_the_scale_leaves_conditions_alone() -> None:
    query = replace(QUERY, required=[("dog",)], min_weight=0.3, filters=[{"term": {"format": "JPEG"}}], caption="a cat")
    plain, scaled = (
        build_search_request(each, "rank_features", max_clauses=1024, after=[1e308, "u", "s", "x"]).body
        for each in (query, replace(query, min_score=1e300).amplify())
    )
    assert scaled["query"]["bool"]["filter"] == plain["query"]["bool"]["filter"]
    [clause] = scaled["query"]["bool"]["should"]
    assert clause["function_score"]["query"]["bool"]["should"] == plain["query"]["bool"]["should"]
    largest = float(np.finfo(np.float32).max)
    assert (scaled["min_score"], scaled["search_after"][0]) == (largest, largest)


def test_a_bag_of_words_is_scaled() -> None:
    query = QUERY.amplify()
    after = (2.0, "u", "s", "x")
    body = build_search_request(query, "rank_features", max_clauses=9, after=after, build_clause=build_bag_clause).body
    assert body["search_after"][0] / 2 == query.scale


@pytest.mark.parametrize("body", [build_suggestions_request(), build_profile_request([])])
def test_a_sample_does_not_prefer_documents_of_more_roles(body: Mapping[str, Any]) -> None:
    [function] = body["query"]["function_score"]["functions"]
    least = np.float32(2.0**-12 * function["weight"])
    assert least + np.float32(64) == least
