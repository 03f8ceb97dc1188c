"""Each route of the page over photos on a real node, asked by real HTTP; figures are checked against the stored vectors."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.corpora.web_corpus import NAMES, PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es._version import __version__
from stair_es.cluster.client.connection import Connection
from stair_es.feature_names import unescape_feature
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.types import SparseVector

ASKED = (["brown"], ["brown", "gray"])
"""Colours, of which an image must have all."""


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-api", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,)) as made:
        yield made


def vectors(corpus: Corpus) -> dict[str, SparseVector]:
    return {
        id_: SparseVector.from_mapping({unescape_feature(word): weight for word, weight in source["tokens"].items()})
        for id_, source in corpus.read_documents().items()
    }


def query_of(answer: dict[str, Any]) -> SparseVector:
    sent = {word["token"]: word["weight"] * word["factor"] for word in answer["query"]}
    return SparseVector.from_mapping({word: weight for word, weight in sent.items() if weight > 0})


def search(page: PageClient, **body: object) -> dict[str, Any]:
    answer = page.post("/api/search", body)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_about(page: PageClient, corpus: Corpus) -> None:
    assert page.get("/api/about").json == {
        "title": corpus.alias,
        "index": corpus.alias,
        "model": "stair-mini-2",
        "version": __version__,
        "documents": len(NAMES),
        "captions": True,
        "originals": True,
        "max_upload_bytes": 20 * 1024 * 1024,
        "policy": None,
    }


def test_scores_are_dot_products_of_shown_words(page: PageClient, corpus: Corpus) -> None:
    found = search(page, text="a kitten on grass", factors={"grass": 0, "dog": 0.3, "cat": 1.5})
    stored, query = vectors(corpus), query_of(found)
    wanted = {id_: query.dot(vector) for id_, vector in stored.items() if query.dot(vector) > 0}
    assert {hit["id"] for hit in found["hits"]} == set(wanted)
    assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
    for hit in found["hits"]:
        assert hit["score"] == pytest.approx(wanted[hit["id"]], rel=0.005)
        assert math.fsum(reason["contribution"] for reason in hit["contributions"]) == pytest.approx(wanted[hit["id"]], abs=1e-4)
        assert hit["tokens"] == [[word, pytest.approx(weight)] for word, weight in stored[hit["id"]].top(12)]
        adds = [reason["contribution"] for reason in hit["contributions"]]
        assert adds == sorted(adds, reverse=True)
        assert (hit["text_score"], hit["name"]) == (0.0, Path(hit["uri"]).name)
    shown = {word["token"]: word for word in found["query"]}
    assert (shown["grass"]["factor"], shown["cat"]["factor"]) == (0.0, 1.5)
    assert not any(reason["token"] == "grass" for hit in found["hits"] for reason in hit["contributions"])
    assert (found["truncated"], found["method"]) == ([], "stair")


def test_sliders_and_added_words_change_the_results(page: PageClient, corpus: Corpus) -> None:
    first = search(page, text="kitten")
    ids = [hit["id"] for hit in first["hits"]]
    moved = search(page, text="kitten", factors={"panda": 50})
    assert moved["hits"][0]["name"] in ("red-panda.jpg", "giant-panda.jpg")
    assert [hit["id"] for hit in moved["hits"]] != ids
    added = next(word for word in moved["query"] if word["token"] == "panda")
    assert added.get("added") or added["factor"] == 50


def test_required_excluded_and_faceted_words_filter(page: PageClient, corpus: Corpus) -> None:
    stored = vectors(corpus)
    text = "animal cat dog panda cow"
    with_dog = {id_ for id_, vector in stored.items() if "dog" in vector.tokens}
    assert 0 < len(with_dog) < len(stored)
    assert {hit["id"] for hit in search(page, text=text, require=["dog"])["hits"]} == with_dog
    assert {hit["id"] for hit in search(page, text=f"{text} +dog")["hits"]} == with_dog
    without = search(page, text=text, exclude=["dog"])
    assert {hit["id"] for hit in without["hits"]} == set(stored) - with_dog
    assert without["excluded"] == ["dog"]
    top = {id_ for id_, source in corpus.read_documents().items() if "dog" in source["top_tokens"]}
    assert {hit["id"] for hit in search(page, text=text, top_tokens=["dog"])["hits"]} == top
    assert [hit["name"] for hit in search(page, text=text, filter="caption:tabby")["hits"]] == ["tabby-cat.jpg"]


def test_pages_follow_each_other_without_gap_or_repetition(page: PageClient) -> None:
    for method in ("stair", "bag", "bm25"):
        text = "cat panda with spaniels cow animal"
        whole = [hit["id"] for hit in search(page, text=text, method=method)["hits"]]
        paged: list[str] = []
        after: list[Any] | None = None
        while True:
            part = search(page, text=text, method=method, k=2, after=after)
            paged += [hit["id"] for hit in part["hits"]]
            after = part["after"]
            if after is None:
                break
        assert paged == whole, method
        assert len(whole) > 3


def test_neighbors_have_the_largest_dot_products(page: PageClient, corpus: Corpus) -> None:
    stored, id_ = vectors(corpus), corpus.get_id("red-panda")
    others = {other: stored[id_].dot(vector) for other, vector in stored.items() if other != id_}
    hits = page.get(f"/api/image/{id_}/neighbors?k=3").json["hits"]
    assert [hit["id"] for hit in hits] == sorted(others, key=lambda other: -others[other])[:3]
    assert hits[0]["score"] == pytest.approx(max(others.values()), rel=0.005)
    like = search(page, similar_to=id_)
    assert like["hits"][0]["id"] == id_
    assert [hit["id"] for hit in like["hits"]][1:4] == [hit["id"] for hit in hits]
    assert query_of(like).to_dict() == pytest.approx(stored[id_].to_dict(), abs=1e-6)


def test_bag_counts_and_bm25_reads_captions(page: PageClient, corpus: Corpus) -> None:
    found = search(page, text="a kitten with a dog", method="bag")
    listed = {id_: source["top_tokens"] for id_, source in corpus.read_documents().items()}
    words = {word["token"] for word in found["query"]}
    for hit in found["hits"]:
        assert hit["score"] == len(words & set(listed[hit["id"]])) == len(hit["contributions"])
        assert {reason["contribution"] for reason in hit["contributions"]} == {1.0}
    captions = search(page, text="panda", method="bm25")
    assert {hit["name"] for hit in captions["hits"]} == {"red-panda.jpg", "giant-panda.jpg"}
    assert all(
        hit["contributions"] == [] and hit["text_score"] == pytest.approx(hit["score"], abs=1e-5) for hit in captions["hits"]
    )
    assert captions["query"] == []


def test_facets_cover_all_matches(page: PageClient, corpus: Corpus) -> None:
    body: dict[str, Any] = {"text": "animal +dog", "k": 1}
    facets = page.post("/api/facets", body).json
    matching = [source for source in corpus.read_documents().values() if "dog" in source["tokens"]]
    counted = Counter(word for source in matching for word in source["top_tokens"])
    assert facets["total"] == len(matching) > 1
    assert all(counted[entry["token"]] == entry["count"] for entry in facets["tokens"])
    assert len(facets["tokens"]) == min(20, len(counted))
    assert [entry["count"] for entry in facets["tokens"]] == sorted(counted.values(), reverse=True)[: len(facets["tokens"])]
    assert facets["sources"] == [{"source": matching[0]["source"], "count": len(matching)}]
    for method in ("bag", "bm25"):
        more = page.post("/api/facets", {"text": "cat panda", "method": method}).json
        assert more["total"] == len(search(page, text="cat panda", method=method)["hits"])


def test_colours_are_counted_and_narrow(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    facets = page.post("/api/facets", {}).json
    counted = Counter(colour for source in sources for colour in source.get("colours", ()))
    assert {entry["colour"]: entry["count"] for entry in facets["colours"]} == counted
    brown, both = ({source["uri"] for source in sources if set(asked) <= set(source.get("colours", ()))} for asked in ASKED)
    assert 0 < len(both) < len(brown) < len(sources)
    for colours, wanted in zip(ASKED, (brown, both), strict=True):
        assert page.post("/api/facets", {"colours": colours}).json["total"] == len(wanted)
        for method in ("stair", "bag", "bm25"):
            body: dict[str, Any] = {"text": "cat dog panda cow", "k": 100, "method": method}
            found = {hit["uri"] for hit in search(page, **body)["hits"]}
            assert {hit["uri"] for hit in search(page, **body, colours=colours)["hits"]} == found & wanted != set()


def test_facets_without_a_query_cover_all_filtered_images(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    assert page.post("/api/facets", {}).json["total"] == len(sources)
    [cat] = [source for source in sources if source["caption"] == "tabby cat"]
    assert page.post("/api/facets", {"filter": "caption:tabby"}).json["total"] == 1
    word = cat["top_tokens"][0]
    having = [source for source in sources if word in source["top_tokens"]]
    assert page.post("/api/facets", {"top_tokens": [word]}).json["total"] == len(having)
    assert "is empty" in page.post("/api/search", {}).json["error"]


def test_an_image_is_described_completely(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    source = corpus.read_documents()[id_]
    image = page.get(f"/api/image/{id_}").json
    assert image["tokens"] == [[word, weight] for word, weight in vectors(corpus)[id_]]
    assert image["explain"]["sum_of_weights"] == pytest.approx(sum(source["tokens"].values()), abs=1e-5)
    assert (image["caption"], image["name"], image["uri"]) == ("tabby cat", "tabby-cat.jpg", source["uri"])
    assert image["facts"]["sha256"] == source["sha256"]
    assert image["facts"]["index"] == corpus.index
    assert not {"tokens", "thumbnail", "fingerprint"} & set(image["facts"])
    assert image["thumbnail"] == f"thumb/{id_}?v={source['fingerprint']}"
    assert image["original"] == f"original/{id_}"


def test_thumbnails_are_small_and_cacheable(page: PageClient, corpus: Corpus) -> None:
    url = "/" + page.get(f"/api/image/{corpus.get_id('tabby-cat')}").json["thumbnail"]
    first, again = page.get(url), page.get(url)
    assert (first.status, first.headers["content-type"]) == (200, "image/webp")
    assert max(Image.open(io.BytesIO(first.body)).size) == 128
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])
    known = page.get(url, if_none_match=first.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    for stale in (url.partition("?")[0], url.partition("?")[0] + "?v=old"):
        answer = page.get(stale)
        assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, first.body, "private, no-cache")
    assert page.request("HEAD", url).headers["content-length"] == str(len(first.body))


def test_originals_are_rendered_again(page: PageClient, corpus: Corpus) -> None:
    answer = page.get(f"/original/{corpus.get_id('dairy-cow')}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(PHOTOS / "dairy-cow.jpg") as original, Image.open(io.BytesIO(answer.body)) as made:
        assert made.size == original.size
    assert answer.body != (PHOTOS / "dairy-cow.jpg").read_bytes()


def test_a_dropped_image_is_read_and_forgotten(page: PageClient, corpus: Corpus) -> None:
    before = corpus.read_documents()
    data = (PHOTOS / "giant-panda.jpg").read_bytes()
    seen = page.post_image(data).json
    assert dict(seen["tokens"]) == vectors(corpus)[corpus.get_id("giant-panda")].to_dict()
    assert (seen["width"], seen["height"]) == Image.open(io.BytesIO(data)).size
    kind, _, encoded = seen["thumbnail"].partition(",")
    assert kind == "data:image/webp;base64"
    Image.open(io.BytesIO(base64.b64decode(encoded))).load()
    found = search(page, vector=dict(seen["tokens"]), k=1)
    assert found["hits"][0]["name"] == "giant-panda.jpg"
    assert corpus.read_documents() == before


def test_page_html(page: PageClient) -> None:
    for target in ("/", "/?q=red+car", "/compare?a=1", "/image/a%2Fb", "/image/x/y"):
        answer = page.get(target)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.get("/").body.lstrip().lower().startswith(b"<!doctype html>")
    script = page.get("/static/api.js")
    assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    for target in ("/static/api.js", "/"):
        known = page.get(target, if_none_match=page.get(target).headers["etag"])
        assert (known.status, known.body) == (304, b"")
        assert page.get(target, if_none_match='"other"').status == 200


def test_words_beyond_the_clause_limit_are_reported(page: PageClient) -> None:
    found = search(page, vector={f"word{i}": 1 + i for i in range(3000)})
    assert len(found["truncated"]) == 3000 - 1024
    assert (found["hits"], found["after"]) == ([], None)


def test_concurrent_requests_get_their_responses(page: PageClient, corpus: Corpus) -> None:
    encoder = registry.load_encoder(ModelSpec(name="stair-mini"))
    texts = ["kitten", "dog on grass", "panda", "cow", "a red animal", "yarn"]
    wanted = {text: encoder.encode_texts([text])[0].to_dict() for text in texts}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda text: (text, search(page, text=text)), texts * 10))
    for text, found in answers:
        assert {word["token"]: word["weight"] for word in found["query"]} == pytest.approx(wanted[text], abs=1e-6)
