"""Haystack's own TEI embedders and Elasticsearch retriever, against the encoder service and Elasticsearch 9."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.browser.web_server import PHOTOS, ingest_images
from support.servers.hostile_http_server import serve_encoder

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read at the import

import haystack_tei
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.errors import PipelineRuntimeError
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceTEISparseDocumentEmbedder,
    HuggingFaceTEISparseTextEmbedder,
)
from haystack_integrations.components.retrievers.elasticsearch import ElasticsearchSparseEmbeddingRetriever
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.model.base import ModelSpec
from stair_es.model.registry import load_encoder
from stair_es.search import ImageSearch
from stair_es.web.auth import AccessPolicy
from stair_es.web.encoding.service import EncodingTarget

TOKEN = "a-token-of-the-service"
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "two-spaniels.jpg", "dairy-cow.jpg", "red-panda.jpg", "giant-panda.jpg")


@pytest.fixture
def photos_index(elasticsearch9_url: str, make_index_name: Callable[[str], str], tmp_path: Path) -> str:
    """Six photos with a text, in a field `tokens` of the type `sparse_vector`."""
    name = make_index_name(elasticsearch9_url)
    table = tmp_path / "photos.jsonl"
    rows = [{"file": str(PHOTOS / photo), "caption": Path(photo).stem} for photo in NAMES]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ingest_images(
        elasticsearch9_url, name, table, "--image-column", "file", "--field", "content=caption", "--vector", "sparse_vector"
    )
    return name


@pytest.fixture
def encoder_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The service, which wants a token."""
    monkeypatch.setenv("STAIR_ES_ENCODER_TOKEN", TOKEN)
    target = EncodingTarget(encoder=load_encoder(ModelSpec(name="stair-mini")))
    with serve_encoder(target, guard=AccessPolicy(token=TOKEN, bearer_only=True)) as client:
        yield f"http://127.0.0.1:{client.port}"


def test_text_finds_photos_of_a_stair_es_index(elasticsearch9_url: str, photos_index: str, encoder_url: str) -> None:
    dumped = haystack_tei.build_pipeline(encoder_url, photos_index, elasticsearch9_url).dumps()
    pipeline = Pipeline.loads(dumped, allowed_modules=["haystack_tei"])
    with ImageSearch(photos_index, url=elasticsearch9_url) as search:
        hits = search.search("a kitten", k=3).hits
    documents = pipeline.run({"embedder": {"text": "a kitten"}, "retriever": {"top_k": 3}})["retriever"]["documents"]
    assert [document.meta["uri"] for document in documents] == [hit.uri for hit in hits]
    assert [document.score for document in documents] == pytest.approx([hit.score for hit in hits])
    assert documents[0].content == "tabby-cat"

    filters = {"field": "meta.width", "operator": ">=", "value": 640}
    wide = pipeline.run({"embedder": {"text": "a kitten"}, "retriever": {"filters": filters}})["retriever"]["documents"]
    assert wide
    assert all(document.meta["width"] >= 640 for document in wide)
    with pytest.raises(PipelineRuntimeError, match="indices"):
        pipeline.run({"embedder": {"text": "the"}})
    pipeline.close()


def test_program_prints_what_it_finds(
    elasticsearch9_url: str,
    photos_index: str,
    encoder_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STAIR_ES_URL", elasticsearch9_url)
    monkeypatch.setattr("sys.argv", ["program", "a kitten", "--index", photos_index, "--encoder", encoder_url])
    haystack_tei.main()
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[:2]] == ["tabby-cat", "kitten-with-yarn"]


def test_documents_embedded_by_haystack_are_retrieved(
    elasticsearch9_url: str, make_index_name: Callable[[str], str], encoder_url: str
) -> None:
    """Photos as data URIs, numbers as keys, an index without pruning that was made before."""
    name = make_index_name(elasticsearch9_url)
    vector = {"type": "sparse_vector", "index_options": {"prune": False}}
    with Cluster(Connection(url=elasticsearch9_url)) as cluster:
        cluster.client.indices.create(index=name, body={"mappings": {"properties": {"vector": vector}}})
    texts = [f"data:image/jpeg;base64,{base64.b64encode((PHOTOS / photo).read_bytes()).decode()}" for photo in NAMES]
    documents = [Document(content=text, meta={"name": photo}) for text, photo in zip(texts, NAMES, strict=True)]
    options: dict[str, Any] = {"hosts": elasticsearch9_url, "index": name, "sparse_vector_field": "vector"}
    store = ElasticsearchDocumentStore(**options)
    login: dict[str, Any] = {"api_base_url": encoder_url, "token": haystack_tei.TOKEN}
    document_embedder = HuggingFaceTEISparseDocumentEmbedder(**login, progress_bar=False)
    text_embedder = HuggingFaceTEISparseTextEmbedder(**login)
    embedded = [replace(document, content=None) for document in document_embedder.run(documents)["documents"]]
    assert DocumentWriter(store).run(embedded) == {"documents_written": len(NAMES)}
    store.client.indices.refresh(index=name)
    query = text_embedder.run("a kitten")["sparse_embedding"]
    found = ElasticsearchSparseEmbeddingRetriever(document_store=store, top_k=2).run(query)["documents"]
    assert [document.meta["name"] for document in found] == ["tabby-cat.jpg", "kitten-with-yarn.jpg"]
    best = embedded[0].sparse_embedding
    assert best is not None
    weights = dict(zip(query.indices, query.values, strict=True))
    exact = sum(value * weights.get(token, 0) for token, value in zip(best.indices, best.values, strict=True))
    assert found[0].score == pytest.approx(exact, rel=0.004)
    assert asyncio.run(_retrieve_async(ElasticsearchDocumentStore(**options), encoder_url)) == found
    for component in (document_embedder, text_embedder, store):
        component.close()


async def _retrieve_async(store: ElasticsearchDocumentStore, encoder_url: str) -> list[Document]:
    embedder = HuggingFaceTEISparseTextEmbedder(api_base_url=encoder_url, token=haystack_tei.TOKEN)
    query = (await embedder.run_async("a kitten"))["sparse_embedding"]
    retriever = ElasticsearchSparseEmbeddingRetriever(document_store=store, top_k=2)
    documents: list[Document] = (await retriever.run_async(query))["documents"]
    await embedder.close_async()
    await retriever.close_async()
    return documents
