"""Texts as documents on a real node: each exactly once, the same text one document, and a picture finds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.errors import expect_error
from support.messages import forward_messages
from support.servers.hostile_http_server import serve_page

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import IndexMismatch, IngestError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.stages import NO_KNOWN_TOKENS
from stair_es.ingest.texts import TextIngestOptions, open_text_source
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.index_info import fetch_index_info
from stair_es.search.query_encoder import encode_query_image
from stair_es.search.searcher import Searcher
from stair_es.sources.base import SourceOptions
from stair_es.sources.registry import open_source
from stair_es.token_policy import TokenPolicy
from stair_es.types import Json

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TABLE = ModelSpec(name="stair-mini", text_tower="table")

IngestTexts = Callable[..., IngestReport]


def build_ingest(url: str, index: str, folder: Path) -> IngestTexts:
    def ingest(*files: Path, **options: Any) -> IngestReport:  # noqa: ANN401
        defaults = {"alias": index, "model": TABLE, "dead_letters": folder / "failed.jsonl"}
        sources = [open_text_source(str(file)) for file in files]
        with_defaults = TextIngestOptions(**{**defaults, **options})
        return run_ingest(sources, Connection(url=url), with_defaults, progress=lambda _: None)

    return ingest


@pytest.fixture
def ingest_texts(index_name: str, node_url: str, tmp_path: Path) -> IngestTexts:
    """Ingests the texts of some files into the index of the test."""
    return build_ingest(node_url, index_name, tmp_path)


def read_documents(client: OpenSearch, index: str) -> dict[str, dict[str, Json]]:
    """Map texts to documents."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"size": 1000, "query": {"match_all": {}}})["hits"]["hits"]
    documents = {hit["_source"]["caption"]: hit["_source"] for hit in hits}
    assert len(documents) == len(hits)
    return documents


def write_lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def test_each_text_is_one_document_and_reruns_resume(
    rank_features_url: str, engine: OpenSearch, engine_index: str, tmp_path: Path
) -> None:
    ingest_texts = build_ingest(rank_features_url, engine_index, tmp_path)
    path = write_lines(tmp_path / "a.txt", "a brown dog", "the of", "a black cat", "a brown dog", "the of")
    first = ingest_texts(path)
    assert (first.seen, first.written, first.unchanged, first.failed, first.documents) == (5, 2, 1, 2, 2)
    assert [(why.stage, why.reason, why.images) for why in first.failure_reasons] == [("encode", NO_KNOWN_TOKENS, 2)]
    [letter, _] = map(json.loads, (tmp_path / "failed.jsonl").read_text().splitlines())
    assert (letter["stage"], letter["fields"]) == ("encode", {"caption": "the of"})
    documents = read_documents(engine, engine_index)
    assert set(documents) == {"a brown dog", "a black cat"}
    dog = documents["a brown dog"]
    assert str(dog["uri"]).endswith("a.txt#line=1")
    assert {"tokens", "top_tokens", "caption", "uri", "source", "sha256", "model", "fingerprint", "ingested_at"} == set(dog)

    write_lines(path, "a brown dog", "a red house", "a black cat")
    again = ingest_texts(path)
    assert (again.seen, again.written, again.unchanged, again.failed) == (3, 1, 2, 0)
    assert read_documents(engine, engine_index)["a brown dog"] == dog
    assert again.index == first.index


def test_equal_texts_across_sources_are_found(
    ingest_texts: IngestTexts, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    table = tmp_path / "b.jsonl"
    rows = [{"captions": ["a dog", "a bird"], "price": 2, "tokens": "ours"}, {"captions": ["a boat", "a horse", "a dog"]}]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ingest_texts(write_lines(tmp_path / "a.txt", "a dog", "a cat", "a dog", "a bus"), table, batch_images=3)
    assert (report.seen, report.written, report.unchanged, report.documents) == (9, 6, 3, 6)
    documents = read_documents(client, index_name)
    assert set(documents) == {"a dog", "a cat", "a bus", "a bird", "a boat", "a horse"}
    assert documents["a bird"]["price"] == 2
    assert "price" not in documents["a dog"]  # the first one counts
    assert isinstance(documents["a bird"]["tokens"], dict)


def test_another_text_tower_is_another_index(
    ingest_texts: IngestTexts, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "a.txt", "a brown dog", "a cat")
    first = ingest_texts(path)
    full = ingest_texts(path, model=ModelSpec(name="stair-mini"))
    assert full.swapped
    assert full.index != first.index
    assert list(client.indices.get_alias(name=index_name)) == [full.index]
    assert ingest_texts(path, model=ModelSpec(name="stair-mini")).unchanged == 2


def test_a_picture_finds_its_caption(ingest_texts: IngestTexts, index_name: str, node_url: str) -> None:
    report = ingest_texts(PHOTOS / "captions.jsonl")
    assert report.written == 40
    encoder = registry.load_encoder(TABLE)
    with Searcher(Connection(url=node_url), index_name, encoder.model_id) as searcher:
        for name in ("two-spaniels.jpg", "espresso.jpg", "koala.jpg"):
            hits = searcher.search(encode_query_image(encoder, PHOTOS / name), k=3).hits
            assert hits[0].source["file"] == name, [hit.source["caption"] for hit in hits]
            assert hits[0].contributions[0].contribution > 0


def test_the_page_ranks_texts_by_their_words_and_as_text(
    ingest_texts: IngestTexts, index_name: str, node_url: str, tmp_path: Path
) -> None:
    ingest_texts(write_lines(tmp_path / "a.txt", "a brown cow", "a black cat"))
    with serve_page(Connection(url=node_url), index_name) as page:
        assert page.get("/api/about").json["captions"] is True
        for method in ("text", "words"):
            [best, *_] = page.post("/api/search", {"text": "cow", "method": method}).json["hits"]
            assert best["caption"] == "a brown cow"


def test_images_are_not_texts(ingest_texts: IngestTexts, client: OpenSearch, index_name: str, node_url: str) -> None:
    connection = Connection(url=node_url)
    cluster = Cluster(connection, client)
    image = open_source(str(PHOTOS / "koala.jpg"), SourceOptions())
    options = IngestOptions(alias=index_name, model=TABLE)
    run_ingest([image], connection, options, progress=lambda _: None)
    with expect_error("index-of-other-content", IndexMismatch) as caught:
        ingest_texts(PHOTOS / "captions.jsonl")
    assert "images" in caught.value.message
    assert client.count(index=index_name)["count"] == 1
    texts = f"{index_name}-texts"
    ingest_texts(PHOTOS / "captions.jsonl", alias=texts)
    with expect_error("index-of-other-content", IndexMismatch) as caught:
        run_ingest([image], connection, replace(options, alias=texts), progress=lambda _: None)
    assert "texts" in caught.value.message
    assert len(client.indices.get(index=f"{texts}*")) == 1
    names = (index_name, texts, f"{index_name},{texts}")
    assert [fetch_index_info(cluster, name).content_type for name in names] == ["images", "texts", "documents"]


def test_texts_follow_the_policy_of_their_index(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> None:
    connection, messages = Connection(url=node_url), list[str]()
    options = TextIngestOptions(alias=index_name, model=TABLE, dead_letters=tmp_path / "failed.jsonl")

    def ingest_lines(*texts: str) -> IngestReport:
        source = open_text_source(str(write_lines(tmp_path / "a.txt", *texts)))
        with forward_messages(messages.append):
            return run_ingest([source], connection, options, progress=lambda _: None)

    ingest_lines("a brown dog")
    tokens = read_documents(client, index_name)["a brown dog"]["tokens"]
    assert isinstance(tokens, dict)
    policy = TokenPolicy(name="quiet", mute=tuple(tokens))
    PolicyManager(Cluster(connection, client), index_name).apply_policy(policy, UpdateLimits(), lambda _: None)
    assert ingest_lines("a brown dog", "brown dog").written == 1
    assert any(policy.label in message for message in messages)
    assert any("1 text" in message and "tokens" in message for message in messages)
    assert read_documents(client, index_name)["brown dog"]["tokens"] == {}


def test_without_texts_no_index_is_created(
    ingest_texts: IngestTexts, client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    with expect_error("no-texts", IngestError):
        ingest_texts(write_lines(tmp_path / "a.txt", "", " "))
    assert not client.indices.exists(index=f"{index_name}*", params={"allow_no_indices": "false"})


def test_sparse_vectors(elasticsearch9_url: str, make_index_name: Callable[[str], str], tmp_path: Path) -> None:
    alias, connection = make_index_name(elasticsearch9_url), Connection(url=elasticsearch9_url)
    document = DocumentSettings(thumbnail_px=0, id="content-hash", vector="sparse_vector")
    options = TextIngestOptions(alias=alias, model=TABLE, document=document, dead_letters=tmp_path / "failed.jsonl")
    source = open_text_source(str(write_lines(tmp_path / "a.txt", "a brown dog", "a cat on a sofa")))
    for written in (2, 0):
        report = run_ingest([source], connection, options, progress=lambda _: None)
        assert (report.written, report.unchanged, report.failed) == (written, 2 - written, 0)
    with Searcher(connection, alias, "stair-mini-3") as searcher:
        [hit] = searcher.search(encode_query_image(registry.load_encoder(TABLE), PHOTOS / "two-spaniels.jpg"), k=1).hits
    assert hit.source["caption"] == "a brown dog"
