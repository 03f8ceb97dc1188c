"""Each route of the page over photos on a real node, by real HTTP; scores and counts are compared with the stored vectors."""

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


def read_vectors(corpus: Corpus) -> dict[str, SparseVector]:
    return {
        id_: SparseVector.from_mapping({unescape_feature(word): weight for word, weight in source["tokens"].items()})
        for id_, source in corpus.read_documents().items()
    }


def parse_query(response: dict[str, Any]) -> SparseVector:
    sent = {word["token"]: word["weight"] * word["factor"] for word in response["query"]}
    return SparseVector.from_mapping({word: weight for word, weight in sent.items() if weight > 0})


def search_page(page: PageClient, **body: object) -> dict[str, Any]:
    response = page.post("/api/search", body)
    assert response.status == 200, response.body
    found: dict[str, Any] = response.json
    return found


def find_ids(page: PageClient, **body: object) -> list[str]:
    return [hit["id"] for hit in search_page(page, **body)["hits"]]


def list_pages(page: PageClient, **body: object) -> list[str]:
    """Return the ids of the hits of all pages."""
    response = search_page(page, **body)
    ids = [hit["id"] for hit in response["hits"]]
    while response["after"] is not None:
        response = search_page(page, **body, after=response["after"])
        ids += [hit["id"] for hit in response["hits"]]
    return ids


def list_facets(page: PageClient, **body: object) -> dict[str, dict[str, Any]]:
    """Return the facets by field."""
    response = page.post("/api/facets", body)
    assert response.status == 200, response.body
    return {facet["field"]: facet for facet in response.json["facets"]}


def test_about(page: PageClient, corpus: Corpus) -> None:
    about = page.get("/api/about").json
    fields, orders, suggestions = (about.pop(name) for name in ("fields", "orders", "suggestions"))
    assert about == {
        "title": corpus.alias,
        "index": corpus.alias,
        "model": "stair-mini-3",
        "version": __version__,
        "documents": len(NAMES),
        "captions": True,
        "originals": True,
        "max_upload_bytes": 20 * 1024 * 1024,
        "policy": None,
        "coverage": False,
        "teach": False,
    }
    types = {entry["name"]: (entry["type"], entry["label"]) for entry in fields}
    assert (types["width"], types["taken_at"]) == (("integer", "Width"), ("date", "Taken"))
    assert not {"tokens", "thumbnail", "fingerprint"} & types.keys()
    assert {"bytes:asc", "bytes:desc"} <= {order["sort"] for order in orders}
    counted = Counter(word for source in corpus.read_documents().values() for word in source["top_tokens"])
    assert all(counted[entry["token"]] == entry["count"] for entry in suggestions)


def test_suggestions_lead_to_images(page: PageClient) -> None:
    suggestions = page.get("/api/about").json["suggestions"]
    assert suggestions
    for entry in suggestions:
        best = search_page(page, text=entry["token"], k=1)["hits"][0]
        assert entry["token"] in [token for token, _ in best["tokens"][:3]]


def test_a_caption_counts_beside_the_words(page: PageClient) -> None:
    found = search_page(page, text="xqzzy tabby")  # no word of the model
    best = found["hits"][0]
    assert (best["name"], best["caption_words"], best["weak"]) == ("tabby-cat.jpg", ["tabby"], True)
    [best] = search_page(page, text="tabby")["hits"][:1]
    assert (best["name"], best["weak"]) == ("tabby-cat.jpg", False)
    assert best["score"] == pytest.approx(
        best["text_score"] + math.fsum(reason["contribution"] for reason in best["contributions"]), abs=1e-4
    )
    colored = search_page(page, text="brown animal")
    assert [(each["text"], each["field"]) for each in colored["conditions"]] == [("brown", "colors")]
    assert search_page(page, text='"brown" animal')["conditions"] == []


def test_scores_are_dot_products_of_shown_words(page: PageClient, corpus: Corpus) -> None:
    found = search_page(page, text="a kitten on grass", factors={"grass": 0, "dog": 0.3, "cat": 1.5}, method="words")
    vectors, query = read_vectors(corpus), parse_query(found)
    expected = {id_: query.dot(vector) for id_, vector in vectors.items() if query.dot(vector) > 0}
    assert {hit["id"] for hit in found["hits"]} == set(expected)
    assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
    for hit in found["hits"]:
        assert hit["score"] == pytest.approx(expected[hit["id"]], rel=0.005)
        assert math.fsum(reason["contribution"] for reason in hit["contributions"]) == pytest.approx(
            expected[hit["id"]], abs=1e-4
        )
        assert hit["tokens"] == [[word, pytest.approx(weight)] for word, weight in vectors[hit["id"]].top(12)]
        adds = [reason["contribution"] for reason in hit["contributions"]]
        assert adds == sorted(adds, reverse=True)
        assert (hit["text_score"], hit["name"]) == (0.0, Path(hit["uri"]).name)
    shown = {word["token"]: word for word in found["query"]}
    assert (shown["grass"]["factor"], shown["cat"]["factor"]) == (0.0, 1.5)
    assert not any(reason["token"] == "grass" for hit in found["hits"] for reason in hit["contributions"])
    assert (found["truncated"], found["method"]) == ([], "words")


def test_sliders_and_added_words_change_the_results(page: PageClient, corpus: Corpus) -> None:
    ids = find_ids(page, text="kitten")
    moved = search_page(page, text="kitten", factors={"panda": 50})
    assert moved["hits"][0]["name"] in ("red-panda.jpg", "giant-panda.jpg")
    assert [hit["id"] for hit in moved["hits"]] != ids
    added = next(word for word in moved["query"] if word["token"] == "panda")
    assert added.get("added") or added["factor"] == 50


def test_required_excluded_and_faceted_words_filter(page: PageClient, corpus: Corpus) -> None:
    vectors = read_vectors(corpus)
    text = "animal cat dog panda cow"
    with_dog = {id_ for id_, vector in vectors.items() if "dog" in vector.tokens}
    assert 0 < len(with_dog) < len(vectors)
    assert set(find_ids(page, text=text, require=["dog"])) == with_dog
    assert set(find_ids(page, text=f"{text} +dog")) == with_dog
    without = search_page(page, text=text, exclude=["dog"])
    assert {hit["id"] for hit in without["hits"]} == set(vectors) - with_dog
    assert without["excluded"] == ["dog"]
    top = {id_ for id_, source in corpus.read_documents().items() if "dog" in source["top_tokens"]}
    chosen = [{"field": "top_tokens", "all": ["dog"]}]
    assert set(find_ids(page, text=text, filters=chosen)) == top
    assert [hit["name"] for hit in search_page(page, text=text, filter="caption:tabby")["hits"]] == ["tabby-cat.jpg"]


def test_pages_follow_each_other_without_gap_or_repetition(page: PageClient) -> None:
    for method in ("words-and-text", "words", "bag", "text"):
        text = "cat panda with spaniels cow animal"
        whole = find_ids(page, text=text, method=method)
        assert list_pages(page, text=text, method=method, k=2) == whole, method
        assert len(whole) > 3


def test_neighbors_have_the_largest_dot_products(page: PageClient, corpus: Corpus) -> None:
    vectors, id_ = read_vectors(corpus), corpus.get_id("red-panda")
    others = {other: vectors[id_].dot(vector) for other, vector in vectors.items() if other != id_}
    hits = page.get(f"/api/image/{id_}/neighbors?k=3").json["hits"]
    assert [hit["id"] for hit in hits] == sorted(others, key=lambda other: -others[other])[:3]
    assert hits[0]["score"] == pytest.approx(max(others.values()), rel=0.005)
    similar = search_page(page, similar_to=id_)
    assert similar["hits"][0]["id"] == id_
    assert [hit["id"] for hit in similar["hits"]][1:4] == [hit["id"] for hit in hits]
    assert parse_query(similar).to_dict() == pytest.approx(vectors[id_].to_dict(), abs=1e-6)


def test_results_say_how_good_they_are(page: PageClient) -> None:
    found = search_page(page, text="elefant OR kitten")
    by_words = search_page(page, text="elefant OR kitten", method="words")
    assert [hit["weak"] for hit in by_words["hits"]] == [hit["score"] < by_words["weak_below"] for hit in by_words["hits"]]
    animals = search_page(page, text="animal")
    assert not all(hit["weak"] for hit in animals["hits"] if hit["score"] < animals["weak_below"])  # some have the word itself
    assert found["unknown_words"][0]["word"] == "elefant"
    assert found["unknown_words"][0]["searched_for"] == "elephant"
    assert ["OR" in remark for remark in found["remarks"]] == [True]
    assert [each["searched_for"] for each in search_page(page, text="katze")["unknown_words"]] == ["cat"]
    empty = search_page(page, text="kitten +submarine")
    assert (empty["hits"], ["+submarine" in remark for remark in empty["remarks"]]) == ([], [True])
    assert search_page(page, text="kitten", method="bag")["weak_below"] is None
    assert search_page(page, text="kitten", method="text")["weak_below"] is None


def test_bag_counts_and_bm25_reads_captions(page: PageClient, corpus: Corpus) -> None:
    found = search_page(page, text="a kitten with a dog", method="bag")
    listed = {id_: source["top_tokens"] for id_, source in corpus.read_documents().items()}
    words = {word["token"] for word in found["query"]}
    for hit in found["hits"]:
        assert hit["score"] == len(words & set(listed[hit["id"]])) == len(hit["contributions"])
        assert {reason["contribution"] for reason in hit["contributions"]} == {1.0}
    captions = search_page(page, text="panda", method="text")
    assert {hit["name"] for hit in captions["hits"]} == {"red-panda.jpg", "giant-panda.jpg"}
    assert all(
        hit["contributions"] == [] and hit["text_score"] == pytest.approx(hit["score"], abs=1e-5) for hit in captions["hits"]
    )
    assert captions["query"] == []


def test_facets_cover_all_matches(page: PageClient, corpus: Corpus) -> None:
    body: dict[str, Any] = {"text": "cat dog panda cow", "k": 1}
    facets = page.post("/api/facets", body).json
    [words] = [facet for facet in facets["facets"] if facet["field"] == "top_tokens"]
    hits, documents = search_page(page, **{**body, "k": 100})["hits"], corpus.read_documents()
    matching = [documents[hit["id"]] for hit in hits if not hit["weak"]]
    assert facets["weak"] == len(hits) - len(matching) > 0
    counted = Counter(word for source in matching for word in source["top_tokens"])
    assert facets["total"] == len(matching) > 1
    assert all(counted[entry["value"]] == entry["count"] for entry in words["buckets"])
    assert len(words["buckets"]) == min(20, len(counted))
    assert [entry["count"] for entry in words["buckets"]] == sorted(counted.values(), reverse=True)[: len(words["buckets"])]
    assert words["other"] == counted.total() - sum(entry["count"] for entry in words["buckets"])
    assert "source" not in [facet["field"] for facet in facets["facets"]]  # all from one: there is no choice
    for method in ("bag", "text"):
        more = page.post("/api/facets", {"text": "cat panda", "method": method}).json
        assert more["total"] == len(search_page(page, text="cat panda", method=method)["hits"])


def test_colors_are_counted_and_narrow(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    counted = Counter(color for source in sources for color in source.get("colors", ()))
    assert {entry["value"]: entry["count"] for entry in list_facets(page)["colors"]["buckets"]} == counted
    colors = (["brown"], ["brown", "gray"])
    brown, both = ({source["uri"] for source in sources if set(each) <= set(source.get("colors", ()))} for each in colors)
    assert 0 < len(both) < len(brown) < len(sources)
    for required, expected in zip(colors, (brown, both), strict=True):
        filters = [{"field": "colors", "all": required}]
        assert page.post("/api/facets", {"filters": filters}).json["total"] == len(expected)
        for method in ("words-and-text", "words", "bag", "text"):
            body: dict[str, Any] = {"text": "cat dog panda cow", "k": 100, "method": method}
            found = {hit["uri"] for hit in search_page(page, **body)["hits"]}
            assert {hit["uri"] for hit in search_page(page, **body, filters=filters)["hits"]} == found & expected != set()


def test_facets_without_a_query_cover_all_filtered_images(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    assert page.post("/api/facets", {}).json["total"] == len(sources)
    [cat] = [source for source in sources if source["caption"] == "tabby cat"]
    assert page.post("/api/facets", {"filter": "caption:tabby"}).json["total"] == 1
    word = cat["top_tokens"][0]
    having = [source for source in sources if word in source["top_tokens"]]
    filters = [{"field": "top_tokens", "all": [word]}]
    assert page.post("/api/facets", {"filters": filters}).json["total"] == len(having)
    assert {hit["uri"] for hit in search_page(page, filters=filters)["hits"]} == {source["uri"] for source in having}


def test_browsing_lists_the_newest_first(page: PageClient, corpus: Corpus) -> None:
    documents = corpus.read_documents()
    whole = search_page(page)
    assert (whole["query"], whole["after"], {hit["score"] for hit in whole["hits"]}) == ([], None, {0.0})
    order = sorted(documents, key=lambda id_: documents[id_]["uri"])
    order.sort(key=lambda id_: documents[id_]["ingested_at"], reverse=True)
    assert [hit["id"] for hit in whole["hits"]] == order
    assert list_pages(page, k=4) == order
    assert page.post("/api/search", {"after": [1e300, "u", "s", "i"]}).status == 400
    best = whole["hits"][0]
    source = documents[best["id"]]
    assert [best[name] for name in ("width", "height", "format", "sha256")] == [
        source[name] for name in ("width", "height", "format", "sha256")
    ]
    assert best["original"] == f"original/{best['id']}"
    without = {id_ for id_, vector in read_vectors(corpus).items() if "dog" not in vector.tokens}
    assert set(find_ids(page, exclude=["dog"])) == without != set(documents)
    assert page.post("/api/search", {"after": [1, 2]}).status == 400


def test_an_image_is_described_completely(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    source = corpus.read_documents()[id_]
    image = page.get(f"/api/image/{id_}").json
    assert image["tokens"] == [[word, weight] for word, weight in read_vectors(corpus)[id_]]
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
    assert max(Image.open(io.BytesIO(first.body)).size) == 320
    assert first.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert (again.body, again.headers["etag"]) == (first.body, first.headers["etag"])
    cached = page.get(url, if_none_match=first.headers["etag"])
    assert (cached.status, cached.body) == (304, b"")
    for stale in (url.partition("?")[0], url.partition("?")[0] + "?v=old"):
        response = page.get(stale)
        assert (response.status, response.body, response.headers["cache-control"]) == (200, first.body, "private, no-cache")
    assert page.request("HEAD", url).headers["content-length"] == str(len(first.body))


def test_originals_are_rendered_again(page: PageClient, corpus: Corpus) -> None:
    response = page.get(f"/original/{corpus.get_id('dairy-cow')}")
    assert (response.status, response.headers["content-type"]) == (200, "image/jpeg")
    with Image.open(PHOTOS / "dairy-cow.jpg") as original, Image.open(io.BytesIO(response.body)) as rendered:
        assert rendered.size == original.size
    assert response.body != (PHOTOS / "dairy-cow.jpg").read_bytes()


def test_a_dropped_image_is_read_and_forgotten(page: PageClient, corpus: Corpus) -> None:
    before = corpus.read_documents()
    data = (PHOTOS / "giant-panda.jpg").read_bytes()
    encoded_image = page.post_image(data).json
    assert dict(encoded_image["tokens"]) == read_vectors(corpus)[corpus.get_id("giant-panda")].to_dict()
    assert (encoded_image["width"], encoded_image["height"]) == Image.open(io.BytesIO(data)).size
    media_type, _, thumbnail = encoded_image["thumbnail"].partition(",")
    assert media_type == "data:image/webp;base64"
    Image.open(io.BytesIO(base64.b64decode(thumbnail))).load()
    found = search_page(page, vector=dict(encoded_image["tokens"]), k=1)
    assert found["hits"][0]["name"] == "giant-panda.jpg"
    assert corpus.read_documents() == before


def test_page_html(page: PageClient) -> None:
    for target in ("/", "/?q=red+car", "/compare?a=1", "/image/a%2Fb", "/image/x/y"):
        response = page.get(target)
        assert (response.status, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.get("/").body.lstrip().lower().startswith(b"<!doctype html>")
    script = page.get("/static/api.js")
    assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8")


def test_concurrent_requests_get_their_responses(page: PageClient, corpus: Corpus) -> None:
    encoder = registry.load_encoder(ModelSpec(name="stair-mini"))
    texts = ["kitten", "dog on grass", "panda", "cow", "a small animal", "yarn"]
    expected = {text: encoder.encode_texts([text])[0].to_dict() for text in texts}
    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda text: (text, search_page(page, text=text)), texts * 10))
    for text, found in responses:
        assert {word["token"]: word["weight"] for word in found["query"]} == pytest.approx(expected[text], abs=1e-6)


COLUMNS = {
    "price": {"type": "float"},
    "year": {"type": "integer"},
    "brand": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "sale": {"type": "boolean"},
    "shot_at": {"type": "date"},
    "sku": {"type": "keyword"},
}
"""Columns of a shop, by field."""


@pytest.fixture(scope="module")
def shop_page(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageClient]:
    """Serve an index with mapped columns."""
    with ingest_corpus(node_url, "test-web-shop", tmp_path_factory.mktemp("photos")) as shop:
        shop.client.indices.put_mapping(index=shop.index, body={"properties": COLUMNS})
        for number in range(60):
            shop.add_document(
                f"item{number}",
                {
                    **{"uri": f"s3://shop/{number}.jpg", "sha256": f"{number:064}", "tokens": {"dog": 1.0 + number}},
                    **{"top_tokens": ["dog", "##gy"], "width": 100 + 10 * number, "format": "PNG" if number % 3 else "JPEG"},
                    **{"price": 1e6 if number == 59 else number / 2, "year": 2000 + number % 5, "brand": f"Brand {number % 4}"},
                    **{"sale": number % 10 == 0, "shot_at": f"20{10 + number // 4}-0{1 + number % 9}-11", "sku": f"SKU-{number}"},
                },
            )
        with serve_page(Connection(url=node_url), shop.alias) as client:
            yield client


def test_each_bucket_finds_what_it_counts(shop_page: PageClient) -> None:
    for body in ({}, {"text": "dog"}):
        facets = list_facets(shop_page, **body)
        assert {"format", "width", "brand", "price", "sale", "shot_at", "year"} <= facets.keys()
        assert "sku" not in facets
        for field in ("format", "width", "brand", "price", "sale", "shot_at", "year"):
            facet = facets[field]
            for bucket in facet["buckets"][:4] + facet["buckets"][-1:]:
                is_terms = facet["kind"] == "terms"
                value = {"any": [bucket["value"]]} if is_terms else {"gte": bucket["from"], "lt": bucket["to"]}
                filters = [{"field": field, **value}]
                narrowed = shop_page.post("/api/facets", {**body, "filters": filters}).json
                assert narrowed["total"] == bucket["count"], (field, bucket)
                own = next(each for each in narrowed["facets"] if each["field"] == field)
                assert own["buckets"] == facet["buckets"]
                found = search_page(shop_page, **body, k=100, filters=filters)["hits"]
                assert sum(not hit["weak"] for hit in found) == bucket["count"]


def test_columns_have_facets_of_their_kind(shop_page: PageClient) -> None:
    facets = list_facets(shop_page)
    kinds = {name: facet["kind"] for name, facet in facets.items()}
    assert [kinds[name] for name in ("price", "year", "brand", "sale", "shot_at")] == ["range", "terms", "terms", "terms", "date"]
    assert list(facets)[:7] == ["top_tokens", "colors", "brand", "price", "sale", "shot_at", "year"]
    assert [bucket["value"] for bucket in facets["year"]["buckets"]] == [2000, 2001, 2002, 2003, 2004]
    assert {bucket["value"]: bucket["count"] for bucket in facets["sale"]["buckets"]} == {True: 6, False: 54}
    price = facets["price"]
    assert (price["min"], price["max"], sum(bucket["count"] for bucket in price["buckets"])) == (0, 1_000_000, 60)
    assert len([bucket for bucket in price["buckets"] if bucket["count"]]) > 10  # in spite of the one that is far away
    assert facets["shot_at"]["min"].startswith("2010-01-11")
    assert "##gy" not in [bucket["value"] for bucket in facets["top_tokens"]["buckets"]]


def test_chosen_values_stay_and_conditions_combine(shop_page: PageClient) -> None:
    filters = [{"field": "brand", "any": ["Brand 1"]}, {"field": "year", "any": [2001, 2002]}]
    response = shop_page.post("/api/facets", {"filters": filters}).json
    both = [number for number in range(60) if number % 4 == 1 and number % 5 in (1, 2)]
    assert response["total"] == len(both)
    facets = {facet["field"]: facet for facet in response["facets"]}
    in_years = Counter(f"Brand {number % 4}" for number in range(60) if number % 5 in (1, 2))
    assert {bucket["value"]: bucket["count"] for bucket in facets["brand"]["buckets"]} == in_years
    nothing = shop_page.post("/api/facets", {"filters": [{"field": "sku", "any": ["SKU-7", "none"]}]}).json
    [sku] = [facet for facet in nothing["facets"] if facet["field"] == "sku"]
    assert {"value": "none", "count": 0} in sku["buckets"]
    assert {"value": "SKU-7", "count": 1} in sku["buckets"]


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_matches_are_sorted_by_a_field_over_pages(shop_page: PageClient, direction: str) -> None:
    filters = [{"field": "width", "gte": 400}]
    for field, body in (("year", {}), ("price", {"text": "dog"}), ("year", {"text": "dog", "filters": filters})):
        whole = search_page(shop_page, k=100, **body)["hits"]
        assert any(hit["weak"] for hit in whole) == ("text" in body)
        expected = {hit["id"] for hit in whole if not hit["weak"]}
        ids = list_pages(shop_page, k=7, sort=f"{field}:{direction}", **body)
        assert sorted(ids) == sorted(expected)
        items = [int(id_.removeprefix("item")) for id_ in ids if id_.startswith("item")]
        assert ids[: len(items)] == [f"item{number}" for number in items]  # the photos have no such field
        values = [number % 5 if field == "year" else number for number in items]
        assert values == sorted(values, reverse=direction == "desc")
        facets = shop_page.post("/api/facets", {"sort": f"{field}:{direction}", **body}).json
        assert (facets["total"], facets["weak"]) == (len(ids), 0)


def test_values_are_completed_whatever_their_case(shop_page: PageClient) -> None:
    assert shop_page.get("/api/fields/format").json["values"][0] == {"value": "PNG", "count": 40}
    assert shop_page.get("/api/fields/brand?prefix=bRAND").json["values"] == [
        {"value": f"Brand {number}", "count": 15} for number in range(4)
    ]
    assert [each["value"] for each in shop_page.get("/api/fields/sku?prefix=sku-5").json["values"]] == [
        "SKU-5",
        *(f"SKU-5{number}" for number in range(9)),
    ]
    assert shop_page.get("/api/fields/sku?prefix=.*").json["values"] == []
    words = [each["value"] for each in shop_page.get("/api/fields/top_tokens").json["values"]]
    assert (words[0], "##gy" in words) == ("dog", False)
    assert shop_page.get("/api/fields/top_tokens?prefix=%23").json["values"] == [{"value": "##gy", "count": 60}]
    assert [each["value"] for each in shop_page.get("/api/fields/sale").json["values"]] == [False, True]
    for target, message in (
        ("brnad", "Did you mean brand?"),
        ("price", ""),
        ("tokens", "Fields:"),
        ("sku?prefix=" + "x" * 101, ""),
    ):
        response = shop_page.get(f"/api/fields/{target}")
        assert (response.status, message in response.json["remedy"]) == (400, True)
