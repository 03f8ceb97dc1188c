"""The engines' rankings against the exact dot products: 3,000 vectors of real photos, hundreds of queries, each engine.

`tests/support/oracles/search_oracle.py` defines what "equal" means.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support.corpora import photo_vectors
from support.oracles.search_oracle import ROUNDING, Bounds, Oracle, Ranking

from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import IMPACT_SCALE, DocumentSettings, encode_impacts, is_single_term
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.feature_names import escape_feature
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.options import SearchOptions, prune_vector
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import combine_vectors
from stair_es.search.request import build_search_request
from stair_es.search.searcher import Searcher
from stair_es.types import QueryType, SparseVector

SEED = 20261124
MODEL_ID = "stair-mini-3"
IMPACT_SLACK = 0.5 / IMPACT_SCALE
SORT_ONLY = {"stored_fields": "_none_", "_source": False}
FILTER_PATH = "responses.status,responses.error,responses.hits.hits.sort,responses.hits.hits._id,responses.hits.hits._score"
FORMATS = ("jpeg", "png", "webp")


@dataclass(frozen=True)
class Engine:
    """A node with the vectors in an index of its own."""

    cluster: Cluster
    cluster_info: ClusterInfo
    index: str
    query_type: QueryType

    def rank_queries(self, search_queries: Sequence[SearchQuery], k: int, query_type: QueryType | None = None) -> list[Ranking]:
        """Send the request bodies, many in one request. Only the sort values of a hit are read, which contain its URI."""
        rankings: list[Ranking] = []
        for start in range(0, len(search_queries), 50):
            lines: list[dict[str, Any]] = []
            for query in search_queries[start : start + 50]:
                request = build_search_request(
                    query, query_type or self.query_type, max_clauses=self.cluster_info.max_clauses, k=k
                )
                assert not len(request.truncated) or query_type == "impacts"
                lines += [
                    {"index": self.index},
                    {**request.body, **(SORT_ONLY if "sort" in request.body else {"_source": False})},
                ]
            response = self.cluster.client.msearch(body=lines, params={"filter_path": FILTER_PATH})
            for result in response["responses"]:
                assert result["status"] == 200, result
                hits = result.get("hits", {}).get("hits", [])
                rankings.append([parse_hit(hit) for hit in hits])
        return rankings


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", text_tower="table"))


@pytest.fixture(scope="session")
def documents() -> dict[str, SparseVector]:
    return photo_vectors.load_vectors()


@pytest.fixture(scope="session")
def oracle(documents: dict[str, SparseVector]) -> Oracle:
    return Oracle(documents)


@pytest.fixture(scope="session")
def query_vectors(encoder: Encoder, documents: dict[str, SparseVector], oracle: Oracle) -> list[SparseVector]:
    """Captions, tokens alone and with the model's expansion, phrases, images, sums of several, long ones."""
    rng = random.Random(SEED)
    lines = (photo_vectors.PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    captions = encoder.encode_texts([json.loads(line)["caption"] for line in lines])
    words = sorted(oracle.columns)
    whole = [word for word in words if word.isalpha()]
    phrases = [" ".join(rng.sample(whole, rng.randint(2, 5))) for _ in range(60)]
    images = rng.sample(list(documents.values()), 60)
    expanded = encoder.encode_texts([*rng.sample(whole, 80), *phrases])
    bare = [SparseVector.from_mapping({word: rng.uniform(0.01, 5)}) for word in rng.sample(words, 60)]
    summed = [
        combine_vectors([(rng.choice(images), rng.uniform(0.2, 2)), (rng.choice(captions), rng.uniform(-0.5, 2))])
        for _ in range(40)
    ]
    long = [combine_vectors((image, rng.uniform(0.1, 1)) for image in rng.sample(images, 40)) for _ in range(20)]
    vectors = [vector for vector in (*captions, *expanded, *bare, *images, *summed, *long) if len(vector)]
    assert len(vectors) > 300
    assert max(map(len, vectors)) > 250
    return vectors


_ENGINES: dict[str, tuple[QueryType, DocumentSettings]] = {
    "node_url": ("rank_features", DocumentSettings(impacts=True)),
    "elasticsearch7_url": ("rank_features", DocumentSettings()),
    "elasticsearch8_url": ("sparse_vector", DocumentSettings(vector="sparse_vector")),
    "elasticsearch9_url": ("sparse_vector", DocumentSettings(vector="sparse_vector")),
}


@pytest.fixture(scope="module", params=list(_ENGINES), ids=["opensearch", "elasticsearch7", "elasticsearch8", "elasticsearch9"])
def engine(request: pytest.FixtureRequest, documents: dict[str, SparseVector]) -> Iterator[Engine]:
    connection = Connection(url=request.getfixturevalue(request.param))
    query_type, settings = _ENGINES[request.param]
    cluster = Cluster(connection)
    cluster_info = get_cluster_info(cluster)
    index = "test-search-oracle"
    try:
        body = build_index_body(cluster_info, settings)
        body["mappings"]["_meta"] = {"stair_es": {"format_version": INDEX_FORMAT, "model": MODEL_ID, "model_name": "stair-mini"}}
        cluster.client.indices.create(index=index, body=body)
        lines: list[dict[str, Any]] = []
        for number, (id_, vector) in enumerate(documents.items()):
            source = {
                "tokens": {escape_feature(word): weight for word, weight in vector},
                "uri": build_uri(id_),
                "width": number,
                "format": FORMATS[number % 3],
                "thumbnail": "data:,",
                **({"impacts": encode_impacts(vector)} if settings.impacts else {}),
            }
            lines += [{"index": {"_id": id_}}, source]
        for start in range(0, len(lines), 1000):
            response = cluster.client.bulk(body=lines[start : start + 1000], index=index)
            assert not response["errors"], response
        cluster.client.indices.refresh(index=index)
        yield Engine(cluster, cluster_info, index, query_type)
        cluster.client.indices.delete(index=index)
    finally:
        cluster.close()


def build_uri(id_: str) -> str:
    return f"file:///{id_}.jpg"


def parse_hit(hit: dict[str, Any]) -> tuple[str, float]:
    """Return id and score, from the sort values of the hit if it has some."""
    if "sort" not in hit:
        return hit["_id"], hit["_score"]
    score, location, *_ = hit["sort"]
    return location.removeprefix("file:///").removesuffix(".jpg"), score


def check_rankings(oracle: Oracle, rankings: Sequence[Ranking], bounds: Sequence[Bounds], k: int) -> None:
    faults = [
        f"query {number}: {fault}"
        for number, (ranking, bound) in enumerate(zip(rankings, bounds, strict=True))
        for fault in oracle.find_errors(ranking, bound, k)
    ]
    assert not faults, faults[:10]


def build_queries(vectors: Sequence[SparseVector]) -> list[SearchQuery]:
    return [SearchQuery(vector=vector) for vector in vectors]


def test_every_document_has_its_exact_score_less_the_truncation(
    engine: Engine, oracle: Oracle, query_vectors: list[SparseVector]
) -> None:
    """All documents of each query, in a total order; the scores are those of truncated weights, to the last bits of float32."""
    sample = query_vectors[::4]
    rankings = engine.rank_queries(build_queries(sample), 10_000)
    check_rankings(oracle, rankings, [oracle.compute_bounds(query) for query in sample], 10_000)
    for query, ranking in zip(sample, rankings, strict=True):
        places = [oracle.places[id_] for id_, _ in ranking]
        np.testing.assert_allclose([score for _, score in ranking], oracle.compute_truncated(query)[places], rtol=ROUNDING)
        assert list(ranking) == sorted(ranking, key=lambda hit: (-hit[1], build_uri(hit[0])))
    assert sum(map(len, rankings)) > 50_000


@pytest.mark.parametrize(("k", "first"), [(10, 0), (100, 1)])
def test_the_best_hits_are_exact_if_the_engine_skips_the_rest(
    engine: Engine, oracle: Oracle, query_vectors: list[SparseVector], k: int, first: int
) -> None:
    sample = query_vectors[first::2]
    check_rankings(oracle, engine.rank_queries(build_queries(sample), k), [oracle.compute_bounds(query) for query in sample], k)


def test_pages_equal_one_large_page(engine: Engine, oracle: Oracle, query_vectors: list[SparseVector]) -> None:
    sample = [*query_vectors[::90], max(query_vectors, key=len)]
    with Searcher(engine.cluster.connection, engine.index, MODEL_ID) as searcher:
        for query, whole in zip(sample, engine.rank_queries(build_queries(sample), 10_000), strict=True):
            size = max(1, len(whole) // 3 - 1)
            result = searcher.search(query, size)
            paged = [(hit.id, hit.score) for hit in result.hits]
            while result.after is not None:
                result = searcher.search(query, size, after=result.after)
                paged += [(hit.id, hit.score) for hit in result.hits]
            assert paged == list(whole)
            assert len(whole) == oracle.find_matches(query).sum()


def test_hits_have_common_words(engine: Engine, documents: dict[str, SparseVector], query_vectors: list[SparseVector]) -> None:
    with Searcher(engine.cluster.connection, engine.index, MODEL_ID) as searcher:
        for query in query_vectors[::12]:
            for hit in searcher.search(query, 5, options=SearchOptions(explain_engine=True)).hits:
                image = documents[hit.id]
                assert hit.uri == build_uri(hit.id)
                assert "thumbnail" not in hit.source
                assert {reason.token for reason in hit.contributions} == set(query.tokens) & set(image.tokens)
                assert sum(reason.contribution for reason in hit.contributions) == pytest.approx(query.dot(image), rel=1e-6)
                assert hit.engine_scores == pytest.approx(
                    {reason.token: reason.contribution for reason in hit.contributions}, rel=2**-8
                )
                assert sum(hit.engine_scores.values()) == pytest.approx(hit.score, rel=1e-5)


def draw_conditions(rng: random.Random, query: SparseVector, documents: dict[str, SparseVector]) -> SearchQuery:
    """Return a query with conditions that some documents meet."""
    words = list(rng.choice(list(documents.values())).tokens)
    min_weight = rng.choice([0.0, 0.0, rng.uniform(0.01, 0.3)])
    first = rng.randrange(3000)
    clauses: list[dict[str, Any]] = [
        {"range": {"width": {"gte": first, "lt": first + 1500}}},
        {"terms": {"format": rng.sample(FORMATS, 2)}},
        {"query_string": {"query": f"width:<{first} OR format:png"}},
    ]
    return SearchQuery(
        vector=query,
        required=[(rng.choice(query.tokens),) for _ in range(rng.randint(0, 1))],
        excluded=[tuple(rng.sample(words, min(len(words), rng.randint(1, 2)))) for _ in range(rng.randint(0, 2))],
        min_weight=min_weight,
        filters=rng.sample(clauses, rng.randint(0, 2)),
    )


def select_matching(oracle: Oracle, query: SearchQuery, min_weight: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which documents meet the conditions, computed without an engine."""
    numbers_N = np.arange(len(oracle.ids))
    formats_N = np.array(FORMATS)[numbers_N % 3]
    part_N = np.ones(len(oracle.ids), bool)

    def has_tokens(group: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        weights = [oracle.get_weights(feature) for feature in group]
        return np.asarray(np.logical_and.reduce([(weight > 0) & (weight >= min_weight) for weight in weights]))

    for group in query.required:
        part_N &= has_tokens(group)
    for group in query.excluded:
        part_N &= ~has_tokens(group)
    for clause in query.filters:
        [(kind, inner)] = clause.items()
        assert isinstance(inner, dict)
        given: Any = next(iter(inner.values()))
        if kind == "range":
            part_N &= (numbers_N >= given["gte"]) & (numbers_N < given["lt"])
        elif kind == "terms":
            part_N &= np.isin(formats_N, given)
        else:
            part_N &= (numbers_N < int(given.split("<")[1].split()[0])) | (formats_N == "png")
    return part_N


def test_conditions_select_exactly_their_documents(
    engine: Engine, oracle: Oracle, documents: dict[str, SparseVector], query_vectors: list[SparseVector]
) -> None:
    """A weight of `min_weight` or more always counts, one below it never by more than the truncation."""
    rng = random.Random(SEED)
    search_queries = [draw_conditions(rng, rng.choice(query_vectors), documents) for _ in range(80)]
    rankings = engine.rank_queries(search_queries, 10_000)
    sizes = []
    for query, ranking in zip(search_queries, rankings, strict=True):
        bounds = oracle.compute_bounds(query.vector)
        strict_N, loose_N = (select_matching(oracle, query, query.min_weight * factor) for factor in (1, 1 - 2**-8))
        unsure_N = strict_N != loose_N
        sure = [hit for hit in ranking if not unsure_N[oracle.places[hit[0]]]]
        faults = oracle.find_errors(sure, bounds.select(strict_N & ~unsure_N), 10_000)
        assert not faults, (query, faults[:5])
        sizes.append(len(ranking))
    assert sum(0 < size < 1500 for size in sizes) > 40


def test_min_weight_includes_an_equal_weight(engine: Engine, oracle: Oracle) -> None:
    """The engine stores 9 bits of a weight, which may be less than the weight: it must be found nevertheless."""
    rng = random.Random(SEED)
    search_queries = []
    for word in rng.sample(sorted(oracle.columns), 30):
        weights = oracle.get_weights(word)
        min_weight = float(np.median(weights[weights > 0]))
        search_queries.append(
            SearchQuery(vector=SparseVector.from_mapping({word: 1.0}), required=[(word,)], min_weight=min_weight)
        )
    for query, ranking in zip(search_queries, engine.rank_queries(search_queries, 10_000), strict=True):
        weights = oracle.get_weights(query.required[0][0])
        found = {oracle.places[id_] for id_, _ in ranking}
        assert set(np.flatnonzero(weights >= query.min_weight)) <= found
        assert found <= set(np.flatnonzero(weights >= query.min_weight * (1 - 2**-8)))


def test_min_score_excludes_lower_scores(engine: Engine, query_vectors: list[SparseVector]) -> None:
    sample = query_vectors[::8]
    whole = engine.rank_queries(build_queries(sample), 10_000)
    min_scores = [ranking[len(ranking) // 3][1] for ranking in whole]
    search_queries = [SearchQuery(vector=query, min_score=score) for query, score in zip(sample, min_scores, strict=True)]
    for ranking, every, score in zip(engine.rank_queries(search_queries, 10_000), whole, min_scores, strict=True):
        assert list(ranking) == [hit for hit in every if hit[1] >= score]


def test_pruned_queries_rank_exactly(engine: Engine, oracle: Oracle, query_vectors: list[SparseVector]) -> None:
    options = SearchOptions(weight_mass=0.8)
    with Searcher(engine.cluster.connection, engine.index, MODEL_ID) as searcher:
        for query in query_vectors[::8]:
            left = prune_vector(query, options.weight_mass)
            assert sum(left.kept.weights) >= 0.8 * sum(query.weights)
            result = searcher.search(query, 20, options=options)
            ranking = [(hit.id, hit.score) for hit in result.hits]
            assert result.pruned == left.pruned
            assert not oracle.find_errors(ranking, oracle.compute_bounds(left.kept), 20)


@pytest.mark.parametrize("engine", ["node_url"], indirect=True, ids=["opensearch"])
def test_impacts_rank_as_the_vectors_within_half_a_step(
    engine: Engine, oracle: Oracle, query_vectors: list[SparseVector]
) -> None:
    sample = [query for query in query_vectors if any(map(is_single_term, query.tokens))][::2]
    bounds = []
    for query in sample:
        vector = SparseVector.from_pairs(pair for pair in query if is_single_term(pair[0]))
        exact_N = oracle.compute_scores(vector)
        slack_N = np.zeros(len(oracle.ids))
        for word, weight in vector:
            weights_N = oracle.get_weights(word)
            # Below half a step an impact is 1 all the same: off by less than a whole one.
            steps_N = np.where(weights_N < IMPACT_SLACK, 2.0, 1.0) * (weights_N > 0)
            slack_N += weight * IMPACT_SLACK * steps_N
        rounding_N = exact_N * ROUNDING + 1e-9
        bounds.append(Bounds(exact_N - slack_N - rounding_N, exact_N + slack_N + rounding_N, oracle.find_matches(vector)))
    check_rankings(oracle, engine.rank_queries(build_queries(sample[::4]), 10_000, "impacts"), bounds[::4], 10_000)
    check_rankings(oracle, engine.rank_queries(build_queries(sample), 10, "impacts"), bounds, 10)


def test_stored_vectors_match_the_model(encoder: Encoder, documents: dict[str, SparseVector]) -> None:
    """Other processors round otherwise in the last digit: not the bits, the angle is compared."""
    assert len(documents) == 3000
    rng = random.Random(SEED)
    photos = sorted(photo_vectors.PHOTOS.glob("*.jpg"))
    for _ in range(12):
        path, number = rng.choice(photos), rng.randrange(photo_vectors.VIEWS)
        stored_vector = documents[f"{path.stem}-{number:02}"]
        current_vector = photo_vectors.encode_view(encoder, photo_vectors.crop_view(path, number))
        assert current_vector.dot(stored_vector) == pytest.approx(1.0, abs=1e-3)
