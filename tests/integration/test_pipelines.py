"""The cluster-side ingest pipelines, for people who write documents without our bulk path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stair_es import SparseVector, feature_names, resources
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, encode_impacts
from stair_es.cluster.index.mappings import build_index_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opensearchpy import OpenSearch

    Ingest = Callable[..., dict[str, Any]]

NAMES = ("mute-tokens", "prune-tokens", "top-tokens", "image")
WORDS = {f"word{i:02}": 1.0 - i / 100 for i in range(20)} | {".": 0.995, "##ing": 0.985, "100%": 0.975, "": 0.965}


def escape_tokens(words: dict[str, float]) -> dict[str, float]:
    return {feature_names.escape_feature(word): weight for word, weight in words.items()}


@pytest.fixture
def run_pipeline(client: OpenSearch, node_url: str, index_name: str) -> Iterator[Ingest]:
    """Index a document by one of the pipelines, with changed parameters, and return what is stored and can be searched."""
    settings = DocumentSettings(impacts=True)
    client.indices.create(
        index=index_name, body=build_index_body(get_cluster_info(Cluster(Connection(url=node_url), client)), settings)
    )

    def ingest_document(name: str, document: dict[str, Any], **params: object) -> dict[str, Any]:
        for pipeline in NAMES:
            body = resources.load_json_resource("pipelines", pipeline)
            if pipeline == name and params:
                own_params = body["processors"][0]["script"]["params"]
                assert params.keys() <= own_params.keys()
                own_params.update(params)
            client.ingest.put_pipeline(id=f"stair-es-{pipeline}", body=body)
        client.index(index=index_name, id="1", body=document, params={"pipeline": f"stair-es-{name}", "refresh": "true"})
        stored: dict[str, Any] = client.get(index=index_name, id="1")["_source"]
        return stored

    yield ingest_document
    for pipeline in reversed(NAMES):
        client.ingest.delete_pipeline(id=f"stair-es-{pipeline}", ignore=[404])


def is_found(client: OpenSearch, index: str, word: str) -> bool:
    query = {"rank_feature": {"field": f"tokens.{feature_names.escape_feature(word)}", "linear": {}}}
    return bool(client.search(index=index, body={"query": query})["hits"]["hits"])


def test_top_tokens_match_ingest(run_pipeline: Ingest) -> None:
    stored = run_pipeline("top-tokens", {"tokens": escape_tokens(WORDS)})
    assert stored["top_tokens"] == list(SparseVector.from_mapping(WORDS).top(16).tokens)
    assert run_pipeline("top-tokens", {"tokens": escape_tokens(WORDS), "top_tokens": ["own"]})["top_tokens"] == ["own"]
    assert run_pipeline("top-tokens", {"caption": "no vector"}) == {"caption": "no vector"}
    assert run_pipeline("top-tokens", {"tokens": escape_tokens(WORDS)}, size=2)["top_tokens"] == ["word00", "."]


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({}, WORDS),
        ({"max_tokens": 3}, {"word00": 1.0, ".": 0.995, "word01": 0.99}),
        ({"max_tokens": 0}, {}),
        ({"min_weight": 0.98}, {w: x for w, x in WORDS.items() if x >= 0.98}),
        ({"min_share": 0.9}, {w: x for w, x in WORDS.items() if x >= 0.9}),
        ({"min_share": 0.9, "min_weight": 0.95, "max_tokens": 2}, {"word00": 1.0, ".": 0.995}),
    ],
)
def test_the_heaviest_tokens_are_kept(run_pipeline: Ingest, params: dict[str, float], kept: dict[str, float]) -> None:
    vector = SparseVector.from_mapping(WORDS)
    document = {"tokens": escape_tokens(WORDS), "top_tokens": list(vector.top(16).tokens), "impacts": encode_impacts(vector)}
    stored = run_pipeline("prune-tokens", document, **params)
    kept_vector = SparseVector.from_mapping(kept)
    assert stored["tokens"] == escape_tokens(kept)
    assert stored["impacts"] == encode_impacts(kept_vector)
    assert stored["top_tokens"] == list(kept_vector.top(16).tokens)


def test_tied_textual_and_invalid_weights(client: OpenSearch, run_pipeline: Ingest, index_name: str) -> None:
    tokens = {"b": 0.5, "a": 0.5, "c": "0.5", "zero": 0, "below": -1.0, "none": None, "whole": 2}
    stored = run_pipeline("prune-tokens", {"tokens": tokens}, max_tokens=3)
    assert stored == {"tokens": {"whole": 2, "a": 0.5, "b": 0.5}}
    assert is_found(client, index_name, "whole")
    assert run_pipeline("prune-tokens", {"caption": "no vector"}) == {"caption": "no vector"}
    assert run_pipeline("prune-tokens", {"tokens": {}}) == {"tokens": {}}


def test_muted_tokens_are_not_found(client: OpenSearch, run_pipeline: Ingest, index_name: str) -> None:
    vector = SparseVector.from_mapping(WORDS)
    muted = ["word03", ".", "100%", "", "absent"]
    document = {"tokens": escape_tokens(WORDS), "top_tokens": list(vector.top(16).tokens), "impacts": encode_impacts(vector)}
    stored = run_pipeline("mute-tokens", document, tokens=muted)
    kept = {word: weight for word, weight in WORDS.items() if word not in muted}
    assert stored["tokens"] == escape_tokens(kept)
    assert stored["top_tokens"] == [word for word in vector.top(16).tokens if word not in muted]
    assert stored["impacts"] == encode_impacts(SparseVector.from_mapping(kept))
    assert is_found(client, index_name, "word04")
    assert not is_found(client, index_name, "word03")
    assert not client.search(index=index_name, body={"query": {"match": {"impacts": "word03"}}})["hits"]["hits"]
    assert run_pipeline("mute-tokens", document) == document  # as shipped, it mutes nothing


def test_the_default_pipeline_combines_all_three(client: OpenSearch, run_pipeline: Ingest, index_name: str) -> None:
    run_pipeline("mute-tokens", {}, tokens=["word00"])
    client.indices.put_settings(index=index_name, body={"index": {"default_pipeline": "stair-es-image"}})
    many = {f"w{i:03}": 1.0 / (i + 1) for i in range(100)} | {"word00": 5.0}
    lines: list[dict[str, Any]] = [{"index": {"_id": "bulk"}}, {"tokens": many}]
    assert not client.bulk(body=lines, index=index_name)["errors"]
    stored = client.get(index=index_name, id="bulk")["_source"]
    assert stored["tokens"].keys() == {f"w{i:03}" for i in range(64)}
    assert stored["top_tokens"] == [f"w{i:03}" for i in range(16)]
