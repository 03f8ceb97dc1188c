"""The page over each engine: the same photos, asked the same, give the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.corpora.web_corpus import PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.feature_names import unescape_feature
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.types import SparseVector

TEXT = "a cat, a dog and a panda"


@pytest.fixture(
    params=["node_url", "elasticsearch7_url", "elasticsearch9_url"], ids=["opensearch", "elasticsearch7", "elasticsearch9"]
)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PageClient, Corpus]]:
    url = request.getfixturevalue(request.param)
    vector = "sparse_vector" if "9" in request.param else "rank_features"
    settings = DocumentSettings(vector=vector)  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("photos")
    with ingest_corpus(url, "test-web-engines", folder, document=settings) as corpus:
        corpus.add_document("a/b", {"tokens": {"a%2Eb": 2.0, "cat": 0.1}, "top_tokens": ["a.b", "cat"], "uri": "s3://b/x.jpg"})
        with serve_page(Connection(url=url), corpus.alias, roots=(folder,)) as page:
            yield page, corpus


def test_every_engine_gives_the_dot_products_and_the_facets(served: tuple[PageClient, Corpus]) -> None:
    page, corpus = served
    stored = {
        id_: SparseVector.from_mapping({unescape_feature(word): weight for word, weight in source["tokens"].items()})
        for id_, source in corpus.read_documents().items()
    }
    query = registry.load_encoder(ModelSpec(name="stair-mini")).encode_texts([TEXT])[0]
    wanted = {id_: query.dot(vector) for id_, vector in stored.items() if query.dot(vector) > 0}
    for method in ("stair", "bag"):
        whole = page.post("/api/search", {"text": TEXT, "method": method}).json["hits"]
        first = page.post("/api/search", {"text": TEXT, "method": method, "k": 3}).json
        rest = page.post("/api/search", {"text": TEXT, "method": method, "after": first["after"]}).json
        assert [hit["id"] for hit in [*first["hits"], *rest["hits"]]] == [hit["id"] for hit in whole]
        facets = page.post("/api/facets", {"text": TEXT, "method": method}).json
        assert facets["total"] == len(whole)
        assert facets["tokens"][0]["count"] >= facets["tokens"][-1]["count"] > 0
        if method == "stair":
            assert {hit["id"]: hit["score"] for hit in whole} == pytest.approx(wanted, rel=0.005)
    dotted = page.post("/api/search", {"factors": {"a.b": 3}, "require": ["a.b"]})
    assert dotted.status in (200, 400)  # the model may write it in pieces
    named = page.post("/api/search", {"vector": {"a.b": 3}, "top_tokens": ["a.b"]}).json
    assert [(hit["id"], hit["score"]) for hit in named["hits"]] == [("a/b", pytest.approx(6.0, rel=0.005))]
    assert named["hits"][0]["contributions"][0]["token"] == "a.b"


def test_every_engine_shows_images_captions_and_errors(served: tuple[PageClient, Corpus]) -> None:
    page, corpus = served
    id_ = corpus.get_id("giant-panda")
    image = page.get(f"/api/image/{id_}").json
    assert page.get("/" + image["thumbnail"]).headers["content-type"] == "image/webp"
    assert page.get("/" + image["original"]).headers["content-type"] == "image/jpeg"
    assert page.get(f"/api/image/{id_}/neighbors?k=1").json["hits"][0]["name"] == "red-panda.jpg"
    assert page.get("/api/image/a%2Fb").json["tokens"][0] == ["a.b", 2.0]
    assert {hit["name"] for hit in page.post("/api/search", {"text": "panda", "method": "bm25"}).json["hits"]} == {
        "red-panda.jpg",
        "giant-panda.jpg",
    }
    assert page.post_image((PHOTOS / "giant-panda.jpg").read_bytes()).json["tokens"] == image["tokens"]
    broken = page.post("/api/search", {"text": "cat", "filter": "width:(("})
    assert (broken.status, "can't parse the query" in broken.json["error"]) == (400, True)
    many = page.post("/api/search", {"vector": {f"word{i}": 1 + i for i in range(3000)}})
    taken = get_cluster_info(
        Cluster(Connection(url=corpus.url), corpus.client)
    ).max_clauses  # Elasticsearch 8 and 9 take as many as fit their heap
    assert (many.status, len(many.json["truncated"])) == (200, max(0, 3000 - taken))
