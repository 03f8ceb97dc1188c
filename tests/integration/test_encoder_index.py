"""The encoder of an index: model and token policy of a real index, also after its alias has moved; the same in the page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from support.corpora.web_corpus import NAMES, PHOTOS, Corpus, ingest_corpus, ingest_folder
from support.servers.encoder_command import run_encoder
from support.servers.hostile_http_server import PageClient, serve_encoder, serve_page

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.config.policy_file import parse_policy
from stair_es.search import index_cache
from stair_es.search.image_search import ImageSearch
from stair_es.search.index_cache import create_state_cache
from stair_es.search.index_encoder import load_query_encoder
from stair_es.search.searcher import create_query_runner
from stair_es.web.encoding.service import follow_index

if TYPE_CHECKING:
    from stair_es.web.encoding.service import EncodingTarget

POLICY = parse_policy({"stair_es_policy": 1, "name": "pets", "rename": {"cat": "feline.pet"}, "mute": ["dog"]}, "here")


@pytest.fixture(scope="module")
def pets_corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-encoder-index", tmp_path_factory.mktemp("photos"), policy=POLICY) as corpus:
        yield corpus


def search_tokens(corpus: Corpus, tokens: dict[str, float]) -> list[str]:
    """Search as an application does: with the clauses of the documentation, and without stair-es."""
    clauses = [
        {"rank_feature": {"field": f"tokens.{token.replace('.', '%2E')}", "linear": {}, "boost": weight}}
        for token, weight in tokens.items()
    ]
    hits = corpus.client.search(index=corpus.alias, body={"query": {"bool": {"should": clauses}}})["hits"]["hits"]
    return [hit["_source"]["caption"] for hit in hits]


def check_query(client: PageClient, corpus: Corpus) -> None:
    """The body that `/v1/query` returns is sent as it is, and finds what a search finds, in its order."""
    body = client.post("/v1/query", {"text": "cat", "k": 4}).json
    hits = corpus.client.search(index=corpus.alias, body=body)["hits"]["hits"]
    with ImageSearch(corpus.alias, url=corpus.url) as search:
        expected = [(hit.source["caption"], hit.score) for hit in search.search("cat", k=4).hits]
    assert hits
    assert [(hit["_source"]["caption"], hit["_score"]) for hit in hits] == expected
    unknown = client.post("/v1/query", {"text": "xqzzy", "hybrid": False}).json
    assert corpus.client.search(index=corpus.alias, body=unknown)["hits"]["hits"] == []
    assert client.post("/v1/query", {"text": ""}).json["code"] == "no-input"


def check_policy_tokens(client: PageClient, corpus: Corpus) -> None:
    encoded = client.post("/v1/encode", {"texts": "cat"}).json
    tokens = encoded["texts"][0]["tokens"]
    assert (encoded["policy"], "feline.pet" in tokens, "cat" in tokens) == (POLICY.digest, True, False)
    vocabulary = client.get("/v1/vocabulary").json["tokens"]
    [row] = client.post("/embed_sparse", {"inputs": "cat"}).json
    assert {vocabulary[pair["index"]]: pair["value"] for pair in row} == tokens
    assert (vocabulary.count("feline.pet"), "cat" in vocabulary) == (1, False)
    with ImageSearch(corpus.alias, url=corpus.url) as search:
        expected = [str(hit.source["caption"]) for hit in search.search("cat", k=10).hits]
    assert search_tokens(corpus, tokens)[: len(expected)] == expected


def test_tokens_have_the_policy_of_the_index_and_find_images(node_url: str, pets_corpus: Corpus) -> None:
    with Cluster(Connection(url=node_url)) as cluster:
        states = create_state_cache(cluster, pets_corpus.alias, partial(load_query_encoder, index=pets_corpus.alias))
        with serve_encoder(follow_index(states, create_query_runner(cluster, pets_corpus.alias))) as client:
            check_policy_tokens(client, pets_corpus)
            check_query(client, pets_corpus)


def test_the_command_applies_the_policy_of_the_index(node_url: str, pets_corpus: Corpus) -> None:
    with run_encoder("--index", pets_corpus.alias, "--url", node_url) as (_, url):
        response = requests.post(f"{url}/v1/encode", json={"texts": "cat"}, timeout=120).json()
    assert (response["model"], response["policy"]) == ("stair-mini-3", POLICY.digest)


def test_the_page_has_the_same_routes(node_url: str, pets_corpus: Corpus) -> None:
    with serve_page(Connection(url=node_url), pets_corpus.alias) as page:
        check_policy_tokens(page, pets_corpus)
        assert page.get("/info").json["model_id"] == page.get("/api/about").json["model"]


def test_encoders_follow_the_policy_until_the_index_is_gone(
    node_url: str, index_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_cache, "STATE_MAX_AGE_S", 0.0)
    (tmp_path / f"{NAMES[0]}.jpg").write_bytes((PHOTOS / f"{NAMES[0]}.jpg").read_bytes())
    ingest_folder(node_url, index_name, tmp_path, "stair-mini")
    with Cluster(Connection(url=node_url)) as cluster:
        states = create_state_cache(cluster, index_name, partial(load_query_encoder, index=index_name))
        targets: list[EncodingTarget] = []
        get_target = follow_index(states, create_query_runner(cluster, index_name))

        def record_target() -> EncodingTarget:
            targets.append(get_target())
            return targets[-1]

        with serve_encoder(record_target) as client:
            assert client.post("/v1/encode", {"texts": "cat"}).json["policy"] is None
            PolicyManager(cluster, index_name).apply_policy(POLICY, UpdateLimits(), lambda progress: None)
            assert client.post("/v1/encode", {"texts": "cat"}).json["policy"] == POLICY.digest
            assert "feline.pet" in client.get("/v1/vocabulary").json["tokens"]
            assert len({id(target.encoder) for target in targets}) == 1
            cluster.client.indices.delete(index=",".join(cluster.client.indices.get(index=f"{index_name}-*")))
            gone = client.post("/v1/encode", {"texts": "cat"})
            assert (gone.status, gone.json["error_type"], gone.json["code"]) == (503, "Unhealthy", "index-not-found")
            assert gone.headers["retry-after"] == "2"
            assert b'te_request_failure{err="unhealthy"} 1.0' in client.get("/metrics").body
