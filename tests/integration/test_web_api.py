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
"""Colors, of which an image must have all."""


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


def list_facets(page: PageClient, **body: object) -> dict[str, dict[str, Any]]:
    """Return the facets by field."""
    answer = page.post("/api/facets", body)
    assert answer.status == 200, answer.body
    return {facet["field"]: facet for facet in answer.json["facets"]}


def test_about(page: PageClient, corpus: Corpus) -> None:
    about = page.get("/api/about").json
    fields, suggestions = about.pop("fields"), about.pop("suggestions")
    assert about == {
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
    types = {entry["name"]: (entry["type"], entry["label"]) for entry in fields}
    assert (types["width"], types["taken_at"]) == (("integer", "Width"), ("date", "Taken"))
    assert not {"tokens", "thumbnail", "fingerprint"} & types.keys()
    counted = Counter(word for source in corpus.read_documents().values() for word in source["top_tokens"])
    assert all(counted[entry["token"]] == entry["count"] for entry in suggestions)


def test_suggestions_lead_to_images(page: PageClient) -> None:
    suggestions = page.get("/api/about").json["suggestions"]
    assert suggestions
    for entry in suggestions:
        best = search(page, text=entry["token"], k=1)["hits"][0]
        assert entry["token"] in [token for token, _ in best["tokens"][:3]]


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
    chosen = [{"field": "top_tokens", "all": ["dog"]}]
    assert {hit["id"] for hit in search(page, text=text, filters=chosen)["hits"]} == top
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


def test_an_answer_says_how_good_it_is(page: PageClient) -> None:
    found = search(page, text="elefant OR kitten")
    assert [hit["weak"] for hit in found["hits"]] == [hit["score"] < found["weak_below"] for hit in found["hits"]]
    animals = search(page, text="animal")
    assert not all(hit["weak"] for hit in animals["hits"] if hit["score"] < animals["weak_below"])  # some have the word itself
    assert found["unknown_words"][0]["word"] == "elefant"
    assert found["unknown_words"][0]["suggestions"][0] == "elephant"
    assert ["OR, read here as text" in remark for remark in found["remarks"]] == [True]
    nothing = search(page, text="xyzzy")
    assert nothing["hits"]
    assert all(hit["weak"] for hit in nothing["hits"])
    empty = search(page, text="kitten +submarine")
    assert (empty["hits"], empty["remarks"]) == ([], ["no image has +submarine"])
    assert search(page, text="kitten", method="bag")["weak_below"] is None
    assert search(page, text="kitten", method="bm25")["weak_below"] is None


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
    [words] = [facet for facet in facets["facets"] if facet["field"] == "top_tokens"]
    matching = [source for source in corpus.read_documents().values() if "dog" in source["tokens"]]
    counted = Counter(word for source in matching for word in source["top_tokens"])
    assert facets["total"] == len(matching) > 1
    assert all(counted[entry["value"]] == entry["count"] for entry in words["buckets"])
    assert len(words["buckets"]) == min(20, len(counted))
    assert [entry["count"] for entry in words["buckets"]] == sorted(counted.values(), reverse=True)[: len(words["buckets"])]
    assert words["other"] == counted.total() - sum(entry["count"] for entry in words["buckets"])
    assert "source" not in [facet["field"] for facet in facets["facets"]]  # all from one: there is no choice
    for method in ("bag", "bm25"):
        more = page.post("/api/facets", {"text": "cat panda", "method": method}).json
        assert more["total"] == len(search(page, text="cat panda", method=method)["hits"])


def test_colors_are_counted_and_narrow(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    counted = Counter(color for source in sources for color in source.get("colors", ()))
    assert {entry["value"]: entry["count"] for entry in list_facets(page)["colors"]["buckets"]} == counted
    brown, both = ({source["uri"] for source in sources if set(asked) <= set(source.get("colors", ()))} for asked in ASKED)
    assert 0 < len(both) < len(brown) < len(sources)
    for colors, wanted in zip(ASKED, (brown, both), strict=True):
        filters = [{"field": "colors", "all": colors}]
        assert page.post("/api/facets", {"filters": filters}).json["total"] == len(wanted)
        for method in ("stair", "bag", "bm25"):
            body: dict[str, Any] = {"text": "cat dog panda cow", "k": 100, "method": method}
            found = {hit["uri"] for hit in search(page, **body)["hits"]}
            assert {hit["uri"] for hit in search(page, **body, filters=filters)["hits"]} == found & wanted != set()


def test_facets_without_a_query_cover_all_filtered_images(page: PageClient, corpus: Corpus) -> None:
    sources = list(corpus.read_documents().values())
    assert page.post("/api/facets", {}).json["total"] == len(sources)
    [cat] = [source for source in sources if source["caption"] == "tabby cat"]
    assert page.post("/api/facets", {"filter": "caption:tabby"}).json["total"] == 1
    word = cat["top_tokens"][0]
    having = [source for source in sources if word in source["top_tokens"]]
    filters = [{"field": "top_tokens", "all": [word]}]
    assert page.post("/api/facets", {"filters": filters}).json["total"] == len(having)
    assert {hit["uri"] for hit in search(page, filters=filters)["hits"]} == {source["uri"] for source in having}


def test_browsing_lists_the_newest_first(page: PageClient, corpus: Corpus) -> None:
    stored = corpus.read_documents()
    whole = search(page)
    assert (whole["query"], whole["after"], {hit["score"] for hit in whole["hits"]}) == ([], None, {0.0})
    order = sorted(stored, key=lambda id_: stored[id_]["uri"])
    order.sort(key=lambda id_: stored[id_]["ingested_at"], reverse=True)
    assert [hit["id"] for hit in whole["hits"]] == order
    paged, after = [], None
    while True:
        part = search(page, k=4, after=after)
        paged += [hit["id"] for hit in part["hits"]]
        after = part["after"]
        if after is None:
            break
    assert paged == order
    assert page.post("/api/search", {"after": [1e300, "u", "s", "i"]}).status == 400
    best = whole["hits"][0]
    source = stored[best["id"]]
    assert [best[name] for name in ("width", "height", "format", "sha256")] == [
        source[name] for name in ("width", "height", "format", "sha256")
    ]
    assert best["original"] == f"original/{best['id']}"
    without = {id_ for id_, vector in vectors(corpus).items() if "dog" not in vector.tokens}
    assert {hit["id"] for hit in search(page, exclude=["dog"])["hits"]} == without != set(stored)
    assert page.post("/api/search", {"after": [1, 2]}).status == 400


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
    assert max(Image.open(io.BytesIO(first.body)).size) == 320
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


COLUMNS = {
    "price": {"type": "float"},
    "year": {"type": "integer"},
    "brand": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "sale": {"type": "boolean"},
    "shot_at": {"type": "date"},
    "sku": {"type": "keyword"},
}
"""Columns of a shop."""


@pytest.fixture(scope="module")
def shop(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageClient]:
    """Serve an index with mapped columns."""
    with ingest_corpus(node_url, "test-web-shop", tmp_path_factory.mktemp("photos")) as made:
        made.client.indices.put_mapping(index=made.index, body={"properties": COLUMNS})
        for number in range(60):
            made.add_document(
                f"item{number}",
                {
                    **{"uri": f"s3://shop/{number}.jpg", "sha256": f"{number:064}", "tokens": {"dog": 1.0 + number}},
                    **{"top_tokens": ["dog", "##gy"], "width": 100 + 10 * number, "format": "PNG" if number % 3 else "JPEG"},
                    **{"price": 1e6 if number == 59 else number / 2, "year": 2000 + number % 5, "brand": f"Brand {number % 4}"},
                    **{"sale": number % 10 == 0, "shot_at": f"20{10 + number // 4}-0{1 + number % 9}-11", "sku": f"SKU-{number}"},
                },
            )
        with serve_page(Connection(url=node_url), made.alias) as page:
            yield page


def test_each_bucket_finds_what_it_counts_and_keeps_its_own_facet(shop: PageClient) -> None:
    for body in ({}, {"text": "dog"}):
        facets = list_facets(shop, **body)
        assert {"format", "width", "brand", "price", "sale", "shot_at", "year"} <= facets.keys()
        assert "sku" not in facets
        for field in ("format", "width", "brand", "price", "sale", "shot_at", "year"):
            facet = facets[field]
            for bucket in facet["buckets"][:4] + facet["buckets"][-1:]:
                is_terms = facet["kind"] == "terms"
                value = {"any": [bucket["value"]]} if is_terms else {"gte": bucket["from"], "lt": bucket["to"]}
                filters = [{"field": field, **value}]
                narrowed = shop.post("/api/facets", {**body, "filters": filters}).json
                assert narrowed["total"] == bucket["count"], (field, bucket)
                own = next(each for each in narrowed["facets"] if each["field"] == field)
                assert own["buckets"] == facet["buckets"]
                found = search(shop, **body, k=100, filters=filters)["hits"]
                assert len(found) == bucket["count"]


def test_columns_have_facets_of_their_kind(shop: PageClient) -> None:
    facets = list_facets(shop)
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


def test_chosen_values_stay_and_conditions_combine(shop: PageClient) -> None:
    filters = [{"field": "brand", "any": ["Brand 1"]}, {"field": "year", "any": [2001, 2002]}]
    answer = shop.post("/api/facets", {"filters": filters}).json
    both = [number for number in range(60) if number % 4 == 1 and number % 5 in (1, 2)]
    assert answer["total"] == len(both)
    facets = {facet["field"]: facet for facet in answer["facets"]}
    in_years = Counter(f"Brand {number % 4}" for number in range(60) if number % 5 in (1, 2))
    assert {bucket["value"]: bucket["count"] for bucket in facets["brand"]["buckets"]} == in_years
    nothing = shop.post("/api/facets", {"filters": [{"field": "sku", "any": ["SKU-7", "none"]}]}).json
    [sku] = [facet for facet in nothing["facets"] if facet["field"] == "sku"]
    assert {"value": "none", "count": 0} in sku["buckets"]
    assert {"value": "SKU-7", "count": 1} in sku["buckets"]


def test_values_are_completed_whatever_their_case(shop: PageClient) -> None:
    assert shop.get("/api/fields/format").json["values"][0] == {"value": "PNG", "count": 40}
    assert shop.get("/api/fields/brand?prefix=bRAND").json["values"] == [
        {"value": f"Brand {number}", "count": 15} for number in range(4)
    ]
    assert [each["value"] for each in shop.get("/api/fields/sku?prefix=sku-5").json["values"]] == [
        "SKU-5",
        *(f"SKU-5{number}" for number in range(9)),
    ]
    assert shop.get("/api/fields/sku?prefix=.*").json["values"] == []
    words = [each["value"] for each in shop.get("/api/fields/top_tokens").json["values"]]
    assert (words[0], "##gy" in words) == ("dog", False)
    assert shop.get("/api/fields/top_tokens?prefix=%23").json["values"] == [{"value": "##gy", "count": 60}]
    assert [each["value"] for each in shop.get("/api/fields/sale").json["values"]] == [False, True]
    for target, message in (
        ("brnad", "Did you mean brand?"),
        ("price", ""),
        ("tokens", "Fields:"),
        ("sku?prefix=" + "x" * 101, ""),
    ):
        answer = shop.get(f"/api/fields/{target}")
        assert (answer.status, message in answer.json["remedy"]) == (400, True)
