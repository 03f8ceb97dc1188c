"""The page over each engine: the same photos and requests give the same results."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.corpora.web_corpus import PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.feature_names import unescape_feature
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch, SearchOptions
from stair_es.types import SparseVector

TEXT = "a cat, a dog and a panda"


@pytest.fixture(
    scope="module",
    params=["node_url", "elasticsearch7_url", "elasticsearch9_url"],
    ids=["opensearch", "elasticsearch7", "elasticsearch9"],
)
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    url = request.getfixturevalue(request.param)
    vector = "sparse_vector" if "9" in request.param else "rank_features"
    settings = DocumentSettings(vector=vector)  # type: ignore[arg-type]
    with ingest_corpus(url, "test-web-engines", tmp_path_factory.mktemp("photos"), document=settings) as photos:
        photos.add_document("a/b", {"tokens": {"a%2Eb": 2.0, "cat": 0.1}, "top_tokens": ["a.b", "cat"], "uri": "s3://b/x.jpg"})
        yield photos


def test_every_engine_gives_the_dot_products_and_the_facets(page: PageClient, corpus: Corpus) -> None:
    vectors = {
        id_: SparseVector.from_mapping({unescape_feature(word): weight for word, weight in source["tokens"].items()})
        for id_, source in corpus.read_documents().items()
    }
    query = registry.load_encoder(ModelSpec(name="stair-mini")).encode_texts([TEXT])[0]
    expected = {id_: query.dot(vector) for id_, vector in vectors.items() if query.dot(vector) > 0}
    for method in ("words", "bag"):
        whole = page.post("/api/search", {"text": TEXT, "method": method}).json["hits"]
        first = page.post("/api/search", {"text": TEXT, "method": method, "k": 3}).json
        rest = page.post("/api/search", {"text": TEXT, "method": method, "after": first["after"]}).json
        assert [hit["id"] for hit in [*first["hits"], *rest["hits"]]] == [hit["id"] for hit in whole]
        facets = page.post("/api/facets", {"text": TEXT, "method": method}).json
        assert facets["total"] + facets["weak"] == len(whole)
        assert facets["total"] == sum(not hit["weak"] for hit in whole)
        [words] = [facet["buckets"] for facet in facets["facets"] if facet["field"] == "top_tokens"]
        assert words[0]["count"] >= words[-1]["count"] > 0
        if method == "words":
            assert {hit["id"]: hit["score"] for hit in whole} == pytest.approx(expected, rel=0.005)
    required = page.post("/api/search", {"factors": {"a.b": 3}, "require": ["a.b"]})
    assert required.status in (200, 400)  # the model may split it
    dotted = page.post("/api/search", {"vector": {"a.b": 3}, "filters": [{"field": "top_tokens", "all": ["a.b"]}]}).json
    assert [(hit["id"], hit["score"]) for hit in dotted["hits"]] == [("a/b", pytest.approx(6.0, rel=0.005))]
    assert dotted["hits"][0]["contributions"][0]["token"] == "a.b"


def test_every_engine_shows_images_captions_and_errors(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("giant-panda")
    image = page.get(f"/api/image/{id_}").json
    assert page.get("/" + image["thumbnail"]).headers["content-type"] == "image/webp"
    assert page.get("/" + image["original"]).headers["content-type"] == "image/jpeg"
    assert page.get(f"/api/image/{id_}/neighbors?k=1").json["hits"][0]["name"] == "red-panda.jpg"
    assert page.get("/api/image/a%2Fb").json["tokens"][0] == ["a.b", 2.0]
    assert {hit["name"] for hit in page.post("/api/search", {"text": "panda", "method": "text"}).json["hits"]} == {
        "red-panda.jpg",
        "giant-panda.jpg",
    }
    assert page.post_image((PHOTOS / "giant-panda.jpg").read_bytes()).json["tokens"] == image["tokens"]
    broken = page.post("/api/search", {"text": "cat", "filter": "width:(("})
    assert (broken.status, "[width:((]" in broken.json["error"]) == (400, True)
    many = page.post("/api/search", {"vector": {f"word{i}": 1 + i for i in range(3000)}})
    cluster = Cluster(Connection(url=corpus.url), corpus.client)
    max_clauses = get_cluster_info(cluster).max_clauses  # Elasticsearch 8 and 9 take as many as fit their heap
    assert (many.status, len(many.json["truncated"])) == (200, max(0, 3000 - max_clauses))
    assert (many.json["hits"], many.json["after"]) == ([], None)


def test_every_engine_browses_and_counts_columns(page: PageClient, corpus: Corpus) -> None:
    columns = {"price": {"type": "float"}, "shot_at": {"type": "date"}, "sale": {"type": "boolean"}, "brand": {"type": "keyword"}}
    corpus.client.indices.put_mapping(index=corpus.index, body={"properties": columns})
    for number in range(12):
        shop = {"price": number * 1.5, "shot_at": f"20{10 + number}-05-31", "sale": number < 3, "brand": "ab"[number % 2]}
        corpus.add_document(
            f"n{number:02}", {"tokens": {"cat": 1.0}, "uri": f"s3://b/n{number:02}.jpg", "sha256": str(number), **shop}
        )
    paged = list_pages(page, k=5)
    assert len(paged) == len(set(paged)) == len(corpus.read_documents())
    assert paged[-13:] == [*(f"n{number:02}" for number in range(12)), "a/b"]  # they lack the date
    facets = {facet["field"]: facet for facet in wait_for_columns(page)}
    assert {name: facets[name]["kind"] for name in columns} == {
        **{"price": "range", "shot_at": "date", "sale": "terms", "brand": "terms"}
    }
    cats = page.post("/api/search", {"text": "cat", "method": "words", "k": 100}).json["hits"]
    matches = {hit["id"] for hit in cats if not hit["weak"]}
    assert 12 < len(matches) < len(cats)
    for body, expected in (({}, {*paged}), ({"text": "cat", "method": "words"}, matches)):
        for field in ("price", "shot_at"):
            ids = {direction: list_pages(page, k=5, sort=f"{field}:{direction}", **body) for direction in ("asc", "desc")}
            assert ids["asc"][:12] == ids["desc"][11::-1] == [f"n{number:02}" for number in range(12)]
            assert ids["asc"][12:] == ids["desc"][12:]  # those without the field, by their URIs
            assert sorted(ids["asc"]) == sorted(expected)
    for name in columns:
        assert sum(bucket["count"] for bucket in facets[name]["buckets"]) == 12
        for bucket in facets[name]["buckets"]:
            is_terms = facets[name]["kind"] == "terms"
            value = {"any": [bucket["value"]]} if is_terms else {"gte": bucket["from"], "lt": bucket["to"]}
            narrowed = page.post("/api/facets", {"filters": [{"field": name, **value}]}).json
            assert narrowed["total"] == bucket["count"], (name, bucket)
    assert page.get("/api/fields/brand?prefix=A").json == {"values": [{"value": "a", "count": 6}]}
    assert page.get("/api/about").status == 200
    for text, fact in (
        ("price:abc", '"abc"'),
        ("shot_at:soon", "[soon]"),
        ("sale:maybe", "[maybe]"),
        ('brand:"a', '[brand:"a]'),
        ("brand:a) b", "[brand:a) b]"),
    ):
        response = page.post("/api/search", {"filter": text})
        assert (response.status, fact in response.json["error"]) == (400, True), response.body


def list_pages(page: PageClient, **body: object) -> list[str]:
    """Return the ids of the hits of all pages."""
    ids: list[str] = []
    after = None
    while True:
        response = page.post("/api/search", {**body, "after": after})
        assert response.status == 200, response.body
        ids += [hit["id"] for hit in response.json["hits"]]
        after = response.json["after"]
        if after is None:
            return ids


def wait_for_columns(page: PageClient) -> list[dict[str, Any]]:
    """Return the facets once the server knows the new columns: it looks at the mapping every few seconds."""
    for _ in range(1200):
        facets: list[dict[str, Any]] = page.post("/api/facets", {}).json["facets"]
        if any(facet["field"] == "shot_at" for facet in facets):
            return facets
        time.sleep(0.1)
    raise AssertionError("the columns have no facets")


def test_the_query_of_the_encoder_gives_what_a_search_gives(page: PageClient, corpus: Corpus) -> None:
    photo = PHOTOS / "red-panda.jpg"
    uri = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()
    with ImageSearch(corpus.alias, url=corpus.url) as search:
        for fields, query, sort in (
            ({"text": TEXT}, TEXT, ""),
            ({"image": uri}, photo, ""),
            ({"text": TEXT}, TEXT, "bytes:desc"),
        ):
            body = page.post("/v1/query", {**fields, "k": 4, "sort": sort}).json
            hits = corpus.client.search(index=corpus.alias, body=body)["hits"]["hits"]
            assert [(hit["_id"], hit["_score"]) for hit in hits] == [
                (hit.id, hit.score) for hit in search.search(query, k=4, options=SearchOptions(sort=sort)).hits
            ]
            assert hits
