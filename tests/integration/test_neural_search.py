"""neural-search on a real node: both forms of two-phase beside conditions, and SEISMIC on a segment that is approximate."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.corpora import photo_vectors
from support.corpora.unicode_vectors import create_index, draw_images, draw_queries
from support.oracles.search_oracle import ROUNDING, TRUNCATION

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.mappings import merge_bodies
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.cluster.metadata.token_fields import TokenIds
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.search.diagnose import explain_rank
from stair_es.search.dsl import neural_sparse
from stair_es.search.options import SearchOptions
from stair_es.search.query import SearchQuery
from stair_es.search.request import TwoPhase, build_search_request
from stair_es.search.searcher import Searcher
from stair_es.types import SparseVector

PIPELINE = "test-two-phase"
PRUNE_RATIO = 0.4
"""Of `pipelines/two-phase.json`: tokens lighter than this share of the heaviest don't find."""


@pytest.fixture(scope="module")
def plugin_client(plugin_url: str) -> Iterator[OpenSearch]:
    with Cluster(Connection(url=plugin_url)) as cluster:
        yield cluster.client


@pytest.fixture(scope="module")
def unicode_index(plugin_client: OpenSearch, plugin_url: str) -> Iterator[tuple[str, dict[str, SparseVector]]]:
    index, images = f"test-{uuid.uuid4().hex[:12]}", draw_images()
    create_index(plugin_client, index, DocumentSettings(), plugin_url, images)
    plugin_client.transport.perform_request(
        "PUT", f"/_search/pipeline/{PIPELINE}", body=resources.load_json_resource("pipelines", "two-phase")
    )
    yield index, images
    plugin_client.transport.perform_request("DELETE", f"/_search/pipeline/{PIPELINE}")
    plugin_client.indices.delete(index=index)


CONDITIONS: Mapping[str, dict[str, Any]] = {
    "alone": {},
    "filter": {"filters": [{"range": {"uri": {"lt": "100"}}}]},
    "require": {"required": [("word7",)]},
    "exclude": {"excluded": [("word8",), ("word9", "a.b")]},
    "all": {"filters": [{"range": {"uri": {"gte": "020"}}}], "required": [("##ing",)], "excluded": [("word8",)]},
}


def meets(query: SearchQuery, name: str, image: SparseVector) -> bool:
    """Whether a document meets the conditions, which only the tests above have."""
    bounds = query.filters[0]["range"]["uri"] if query.filters else {}
    has = set(image.tokens)
    return (
        name < bounds.get("lt", "~")
        and name >= bounds.get("gte", "")
        and all(has.issuperset(word) for word in query.required)
        and not any(has.issuperset(word) for word in query.excluded)
    )


@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("form", ["exact", "rescore", "pipeline"])
def test_neural_sparse_and_two_phase_beside_conditions(
    plugin_client: OpenSearch, unicode_index: tuple[str, dict[str, SparseVector]], form: str, conditions: dict[str, Any]
) -> None:
    index, images = unicode_index
    compared = pruned = 0
    for vector in draw_queries()[:: 2 if conditions else 1]:
        query = SearchQuery(vector=vector, **conditions)
        heavy = {
            "exact": set(vector.tokens),
            "rescore": set(vector.tokens[:8]),
            "pipeline": {word for word, weight in vector if weight >= PRUNE_RATIO * vector.weights[0]},
        }[form]
        two_phase = TwoPhase(top_k=8, window_size=1000) if form == "rescore" else None
        body = build_search_request(
            query, "neural_sparse", max_clauses=1024, k=1000, two_phase=two_phase, ordered=form != "pipeline"
        ).body
        params = {"search_pipeline": PIPELINE} if form == "pipeline" else {}
        hits = plugin_client.search(index=index, body={**body, "_source": False}, params=params)["hits"]["hits"]
        part = {name: image for name, image in images.items() if meets(query, name, image)}
        wanted = {name for name, image in part.items() if heavy & set(image.tokens)}
        assert {hit["_id"] for hit in hits} == wanted, vector
        for hit in hits:
            exact = vector.dot(images[hit["_id"]])
            assert exact * (1 - TRUNCATION) <= hit["_score"] <= exact * (1 + ROUNDING), (vector, hit["_id"])
        compared += len(hits)
        pruned += sum(bool(set(vector.tokens) & set(image.tokens)) for image in part.values()) - len(hits)
    assert compared > 20
    assert (pruned > 20) == (form != "exact")


@dataclass(frozen=True)
class SeismicSearches:
    """3,000 views of photos, a tenth deleted, in one segment that SEISMIC searches approximately."""

    index: str
    searcher: Searcher
    images: dict[str, SparseVector]
    words: list[str]
    queries: list[SparseVector]


CEILING = {"approximate_threshold": 100, "quantization_ceiling_ingest": 1}


@pytest.fixture(scope="module")
def photos(plugin_client: OpenSearch, plugin_url: str) -> Iterator[SeismicSearches]:
    views = photo_vectors.load_vectors()
    words = sorted({word for vector in views.values() for word in vector.tokens})
    ids = TokenIds.from_tokens(words)
    queries = [vector for name, vector in views.items() if name.endswith("-07")]
    views = {name: vector for name, vector in views.items() if len(vector) and not name.endswith("-07")}
    index = f"test-{uuid.uuid4().hex[:12]}"
    own = {"token_ids": {"method": {"parameters": CEILING}}}
    image = {"uri": {"type": "keyword"}, "sha256": {"type": "keyword"}, "tokens": {"type": "rank_features"}}
    meta = {"stair_es": {"format_version": INDEX_FORMAT, "model": "drawn", "token_ids": words}}
    body = merge_bodies(
        resources.load_json_resource("mappings", "seismic"),
        {"settings": {"number_of_shards": 1}, "mappings": {"_meta": meta, "properties": {**image, **own}}},
    )
    plugin_client.indices.create(index=index, body=body)
    lines: list[dict[str, Any]] = []
    for name, vector in views.items():
        facts = {"uri": name, "sha256": name, "caption": name.replace("-", " ")}
        tokens = {escape_feature(word): weight for word, weight in vector}
        lines += [{"index": {"_id": name}}, {**facts, "tokens": tokens, "token_ids": ids.convert_weights(vector)}]
    answer = plugin_client.bulk(body=lines, index=index)
    assert not answer["errors"], json.dumps(answer)[:500]
    plugin_client.indices.forcemerge(index=index, params={"max_num_segments": "1"})
    deleted = {name for name in views if name.endswith("3")}
    plugin_client.bulk(body=[{"delete": {"_id": name}} for name in deleted], index=index, params={"refresh": "true"})
    left = {name: vector for name, vector in views.items() if name not in deleted}
    with Searcher(Connection(url=plugin_url), index, "drawn") as searcher:
        yield SeismicSearches(index=index, searcher=searcher, images=left, words=words, queries=queries)
    plugin_client.indices.delete(index=index)


SEISMIC = SearchOptions(query_type="seismic")
REFUSED: Mapping[str, dict[str, Any]] = {
    "filter": {"filters": [{"range": {"uri": {"lt": "m"}}}]},
    "require": {"required": [("animal",)]},
    "exclude": {"excluded": [("cat",)]},
    "caption": {"caption": "cat"},
    "min_score": {"min_score": 0.2},
}


def test_seismic_finds_the_best_of_a_segment_and_scores_them_exactly(photos: SeismicSearches) -> None:
    shares = []
    for vector in photos.queries:
        found = photos.searcher.search(vector, options=SEISMIC)
        exact = photos.searcher.search(vector, options=SearchOptions(query_type="rank_features"))
        scores = {hit.id: hit.score for hit in exact.hits}
        assert found.query_type == "seismic"
        assert found.after is None
        assert len(found.hits) == 10
        for hit in found.hits:
            product = vector.dot(photos.images[hit.id])  # a deleted document would be a KeyError
            assert product * (1 - TRUNCATION) <= hit.score <= product * (1 + ROUNDING)
            assert sum(reason.contribution for reason in hit.contributions) == pytest.approx(product)
            assert hit.score == scores.get(hit.id, hit.score)
        assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
        shares.append(sum(hit.score >= exact.hits[-1].score for hit in found.hits) / 10)
    assert sum(shares) / len(shares) > 0.9


def test_the_segment_is_approximate(photos: SeismicSearches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests of this file would prove nothing."""
    for name, value in (
        ("SEISMIC_CANDIDATES_PER_HIT", 1),
        ("MIN_SEISMIC_CANDIDATES", 1),
        ("SEISMIC_TOP_N", 1),
        ("SEISMIC_HEAP_FACTOR", 0.01),
    ):
        monkeypatch.setattr(neural_sparse, name, value)
    missed = []
    for vector in photos.queries:
        found = {hit.id for hit in photos.searcher.search(vector, options=SEISMIC).hits}
        missed += [
            (vector, hit.id, rank) for rank, hit in enumerate(photos.searcher.search(vector).hits, start=1) if hit.id not in found
        ]
    assert len(missed) > 20
    vector, name, rank = missed[0]
    explanation = explain_rank(photos.searcher, SearchQuery(vector=vector), name, options=SEISMIC)
    assert explanation.rank is not None
    assert explanation.rank <= rank
    assert [reason for reason in explanation.failed_conditions if "SEISMIC" in reason]
    assert not explain_rank(photos.searcher, SearchQuery(vector=vector), name).failed_conditions


@pytest.mark.parametrize("conditions", REFUSED.values(), ids=REFUSED)
def test_queries_that_seismic_does_not_support_are_rejected_or_exact(photos: SeismicSearches, conditions: dict[str, Any]) -> None:
    query = SearchQuery(vector=photos.queries[0], **conditions)
    with pytest.raises(QueryError, match="seismic can't answer") as failure:
        photos.searcher.search(query, options=SEISMIC)
    assert "exact" in failure.value.remedy
    found = photos.searcher.search(query, options=SearchOptions(approximate=True))
    assert found.query_type == "rank_features"
    assert "not with SEISMIC" in found.remarks[0]
    assert found.hits == photos.searcher.search(query, options=SearchOptions(query_type="rank_features")).hits
    assert photos.searcher.count(query, options=SEISMIC) == photos.searcher.count(query)


def test_pages_are_exact_or_rejected(photos: SeismicSearches) -> None:
    vector = photos.queries[0]
    first = photos.searcher.search(vector, 5)
    with pytest.raises(QueryError, match="no further pages"):
        photos.searcher.search(vector, 5, after=first.after, options=SEISMIC)
    with pytest.raises(QueryError, match="two-phase"):
        photos.searcher.search(vector, options=SearchOptions(query_type="seismic", two_phase=TwoPhase(top_k=100)))
    second = photos.searcher.search(vector, 5, after=first.after, options=SearchOptions(approximate=True))
    assert second.query_type == "rank_features"
    assert (*first.hits, *second.hits) == photos.searcher.search(vector, 10).hits


def test_approximate_uses_seismic(photos: SeismicSearches) -> None:
    vector = photos.queries[0]
    found = photos.searcher.search(vector, options=SearchOptions(approximate=True))
    assert found.query_type == "seismic"
    assert "can miss hits" in found.remarks[0]
    assert found.hits == photos.searcher.search(vector, options=SEISMIC).hits
    unicode_index = SparseVector.from_pairs([*vector, ("no token of the index", 0.1)])
    for query, how in ((vector, SearchOptions()), (unicode_index, SearchOptions(approximate=True))):
        exact = photos.searcher.search(query, options=how)
        assert (exact.query_type, exact.remarks) == ("rank_features", ())


def test_explain_shows_exact_rank_and_score(photos: SeismicSearches) -> None:
    vector = photos.queries[3]
    hits = photos.searcher.search(vector, options=SearchOptions(query_type="seismic", explain_engine=True)).hits
    for place in (0, 4, 9):
        explanation = explain_rank(photos.searcher, SearchQuery(vector=vector), hits[place].id, options=SEISMIC)
        exact = explain_rank(photos.searcher, SearchQuery(vector=vector), hits[place].id)
        assert (explanation.score, explanation.rank, explanation.contributions) == (
            exact.score,
            exact.rank,
            hits[place].contributions,
        )
        assert not explanation.failed_conditions
        assert hits[place].engine_scores == {
            reason.token: pytest.approx(reason.contribution, rel=TRUNCATION) for reason in hits[place].contributions
        }


def test_ranks_of_seismic_and_of_captions_are_fused(photos: SeismicSearches) -> None:
    query = SearchQuery(vector=photos.queries[0], caption="cat")
    found = photos.searcher.search(query, options=SearchOptions(query_type="seismic", fusion="rrf"))
    assert found.query_type == "seismic"
    assert {name for hit in found.hits for name in hit.ranks} == {"tokens", "caption"}
    assert photos.searcher.search(query, options=SearchOptions(approximate=True, fusion="rrf")).query_type == "rank_features"


def test_queries_may_use_all_clauses(plugin_client: OpenSearch, photos: SeismicSearches) -> None:
    vector = SparseVector.from_pairs((word, 1 + 1 / (1 + place)) for place, word in enumerate(photos.words))
    ids = TokenIds.from_tokens(photos.words)
    query = build_search_request(SearchQuery(vector=vector), "seismic", max_clauses=1024, token_ids=ids)
    assert (len(query.vector), len(query.truncated)) == (1024, len(photos.words) - 1024)
    assert "hits" in plugin_client.search(index=photos.index, body=query.body)
