"""The retrievers of `examples/frameworks` that need no service: LangChain, LlamaIndex and Haystack over an index of photos."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser.web_server import PHOTOS, ingest_images
from support.errors import expect_error

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read at the import

import haystack_retriever
import langchain_retriever
import llamaindex_retriever
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.components.joiners import DocumentJoiner
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from llama_index.core.schema import ImageNode, MetadataMode, QueryBundle

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.search import ImageSearch

INDEX = "test-frameworks"
NAMES = {"tabby-cat.jpg", "kitten-with-yarn.jpg", "two-spaniels.jpg", "dairy-cow.jpg", "red-panda.jpg", "giant-panda.jpg"}
KOALA = "koala.jpg"
RED_PANDA = str(PHOTOS / "red-panda.jpg")
CAPTIONS = {row["file"]: row["caption"] for row in map(json.loads, (PHOTOS / "captions.jsonl").read_text("utf-8").splitlines())}
TABBY_CAPTION = CAPTIONS["tabby-cat.jpg"]


@pytest.fixture(scope="module")
def photos_url(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node with some of the photos, one of them without a caption."""
    rows = [{"file": str(PHOTOS / name), "caption": caption} for name, caption in CAPTIONS.items() if name in NAMES]
    table = tmp_path_factory.mktemp("frameworks") / "photos.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"file": str(PHOTOS / KOALA)}]), encoding="utf-8")
    ingest_images(node_url, INDEX, table, "--image-column", "file")
    yield node_url
    with Cluster(Connection(url=node_url)) as cluster:
        cluster.client.indices.delete(index=f"{INDEX}-*")


@pytest.fixture
def image_search(photos_url: str) -> Iterator[ImageSearch]:
    with ImageSearch(INDEX, url=photos_url) as search:
        yield search


def _get_names(uris: list[str]) -> list[str]:
    return [Path(uri).name for uri in uris]


def test_langchain_retrieves_documents_by_text_and_image(image_search: ImageSearch) -> None:
    retriever = langchain_retriever.ImageRetriever(search=image_search, k=2, fields=["width", "no such field"])
    hits = image_search.search("a cat", k=2).hits
    documents = retriever.invoke("a cat")
    assert [document.id for document in documents] == [hit.id for hit in hits]
    assert [document.metadata["score"] for document in documents] == [hit.score for hit in hits]
    first = documents[0]
    assert first.page_content == TABBY_CAPTION
    assert first.metadata["tokens"] == {match.token: match.contribution for match in hits[0].contributions}
    assert next(iter(first.metadata["tokens"])) == "cat"
    assert (Path(first.metadata["uri"]).name, first.metadata["width"], first.metadata["weak"]) == ("tabby-cat.jpg", 451, False)
    assert "no such field" not in first.metadata

    pandas = retriever.invoke("", images=[RED_PANDA])
    assert _get_names([document.metadata["uri"] for document in pandas]) == ["red-panda.jpg", "giant-panda.jpg"]
    [koala] = retriever.invoke("a koala", k=1)
    assert koala.page_content.split(", ")[:2] == ["koala", "mammal"], "without a caption: the tokens"


def test_langchain_filters_of_retriever_and_call_hold_together(image_search: ImageSearch) -> None:
    retriever = langchain_retriever.ImageRetriever(search=image_search, k=40, filters=["width:<640"])
    sizes = {name: hit.source["width"] for hit in image_search.search("an animal", k=40).hits for name in _get_names([hit.uri])}
    narrow = {name for name, width in sizes.items() if width < 640}
    assert 1 < len(narrow) < len(sizes)
    found = retriever.invoke("an animal")
    assert set(_get_names([document.metadata["uri"] for document in found])) == narrow
    [one] = retriever.invoke("an animal", filters=[{"term": {"name": "tabby-cat.jpg"}}])
    assert Path(one.metadata["uri"]).name == "tabby-cat.jpg"
    assert retriever.invoke("an animal", filters=["name:red-panda.jpg"], excluded=["panda"]) == []
    with expect_error("no-known-word"):
        retriever.invoke("the")


def test_langchain_retriever_is_a_runnable(image_search: ImageSearch) -> None:
    """Batch, async and chains; a minus in the text of a user is no operator."""
    retriever = langchain_retriever.ImageRetriever(search=image_search, k=1)

    def list_captions(documents: list[Document]) -> list[str]:
        return [document.page_content for document in documents]

    chain = retriever | RunnableLambda(list_captions)
    assert chain.batch(["a red panda", "a dog -kitten"])[0] == [CAPTIONS["red-panda.jpg"]]
    assert asyncio.run(chain.ainvoke("a cat -cat")) == [TABBY_CAPTION]


def test_llamaindex_retrieves_image_nodes_by_text_and_image(image_search: ImageSearch) -> None:
    retriever = llamaindex_retriever.ImageRetriever(image_search, k=2, fields=["width"])
    hits = image_search.search("a cat", k=2).hits
    found = retriever.retrieve("a cat")
    assert [(node.node_id, node.score) for node in found] == [(hit.id, hit.score) for hit in hits]
    first = found[0].node
    assert isinstance(first, ImageNode)
    assert first.text == TABBY_CAPTION
    assert first.image_path == str(PHOTOS / "tabby-cat.jpg")
    assert Path(str(first.resolve_image())).is_file()
    assert (first.metadata["width"], first.metadata["tokens"]["cat"] > 0) == (451, True)
    assert "kitten" not in first.get_content(MetadataMode.LLM), "the weights are not for the language model"

    by_image = QueryBundle("", image_path=RED_PANDA)
    pandas = ["red-panda.jpg", "giant-panda.jpg"]
    assert _get_names([node.metadata["uri"] for node in retriever.retrieve(by_image)]) == pandas
    assert _get_names([node.metadata["uri"] for node in asyncio.run(retriever.aretrieve(by_image))]) == pandas
    kittens = QueryBundle("a cat", image_path=RED_PANDA)
    assert retriever.retrieve(kittens) != retriever.retrieve(by_image), "text and image together"


def test_llamaindex_filters_and_scores_limit_what_is_found(image_search: ImageSearch) -> None:
    retriever = llamaindex_retriever.ImageRetriever(image_search, filters=["width:<640"], min_score=0.3)
    assert _get_names([node.metadata["uri"] for node in retriever.retrieve("a cat")]) == ["tabby-cat.jpg"]


def test_haystack_component_retrieves_in_a_pipeline(image_search: ImageSearch, photos_url: str) -> None:
    pipeline = Pipeline()
    pipeline.add_component("images", haystack_retriever.ImageRetriever(INDEX, url=photos_url, top_k=2))
    pipeline.add_component("joiner", DocumentJoiner(sort_by_score=True))
    pipeline.connect("images.documents", "joiner.documents")
    pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["haystack_retriever"])
    hits = image_search.search("a cat", k=2).hits

    def run_pipeline(**inputs: object) -> list[HaystackDocument]:
        documents: list[HaystackDocument] = pipeline.run({"images": inputs})["joiner"]["documents"]
        return documents

    [first, _] = run_pipeline(text="a cat")
    assert (first.id, first.score, first.content) == (hits[0].id, hits[0].score, TABBY_CAPTION)
    assert first.meta["width"] == 451
    assert first.meta["tokens"] == {match.token: match.contribution for match in hits[0].contributions}
    pandas = run_pipeline(images=[RED_PANDA])
    assert _get_names([document.meta["uri"] for document in pandas]) == ["red-panda.jpg", "giant-panda.jpg"]
    narrow = run_pipeline(text="a cat", filters=["width:<640"], top_k=1)
    assert _get_names([document.meta["uri"] for document in narrow]) == ["tabby-cat.jpg"]
    pipeline.close()


@pytest.mark.parametrize("module", [langchain_retriever, llamaindex_retriever, haystack_retriever])
def test_programs_print_what_they_find(
    module: object, photos_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STAIR_ES_URL", photos_url)
    program = ["program", "a bear", "--image", RED_PANDA, "--filter", "width:>400", "--index", INDEX]
    monkeypatch.setattr("sys.argv", program)
    module.main()  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(part in lines[0] for part in ("red-panda.jpg", CAPTIONS["red-panda.jpg"], "bear", "panda"))
