"""`annotate`: documents of another program get token weights."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.corpora.ingest_sources import PHOTOS, copy_photo
from support.errors import expect_error
from support.servers.fault_proxy import Response, start_server

from stair_es import ImageSearch
from stair_es.cluster.client.cluster import Cluster, open_shared_cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import IndexMismatch, IndexNotFound, IngestError, StairError, UsageError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.dry_run import simulate_ingest
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.annotate import AnnotateOptions, AnnotateSinkKind, IndexSource
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ReadLimits, SourceOptions, UrlPolicy
from stair_es.sources.registry import open_source

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

MINI = ModelSpec(name="stair-mini")
OURS = {"tokens", "top_tokens", "stair_es", "uri", "sha256", "perceptual_hash", "colors"}
COAT, TABBY, BRIDGE, KOALA = (PHOTOS / name for name in ("espresso.jpg", "tabby-cat.jpg", "stone-arch-bridge.jpg", "koala.jpg"))


@dataclass
class Catalog:
    """An index that a shop has made, and annotates."""

    client: OpenSearch
    url: str
    index: str
    home: Path
    image_base: str = ""
    requests: list[str] = field(default_factory=list)

    def create(self, *documents: dict[str, Any], **mapping: Any) -> None:  # noqa: ANN401  parts of a mapping
        self.client.indices.create(index=self.index, body={"mappings": mapping})
        for number, document in enumerate(documents):
            self.client.index(index=self.index, id=f"p{number:02}", body=document)

    def annotate(self, image_field: str = "image", **options: Any) -> IngestReport:  # noqa: ANN401  of `AnnotateOptions`
        source, ingest = self._prepare(image_field, **options)
        return run_ingest([source], Connection(url=self.url), ingest, progress=lambda _: None)

    def count(self, image_field: str = "image", **options: Any) -> tuple[int, int, int]:  # noqa: ANN401  of `AnnotateOptions`
        """Annotate, and return the numbers of images written, unchanged and failed."""
        report = self.annotate(image_field, **options)
        assert report.seen == report.written + report.unchanged + report.failed
        return report.written, report.unchanged, report.failed

    def simulate(self) -> tuple[int, int]:
        """Return the numbers of new and unchanged images that a run would find."""
        source, ingest = self._prepare("image")
        found = simulate_ingest([source], Connection(url=self.url), ingest)
        return found.new, found.unchanged

    def read_sources(self) -> list[dict[str, Any]]:
        self.client.indices.refresh(index=self.index)
        hits = self.client.search(index=self.index, body={"size": 100})["hits"]["hits"]
        return [hit["_source"] for hit in sorted(hits, key=lambda hit: str(hit["_id"]))]

    def search(self, text: str) -> list[str]:
        with ImageSearch(self.index, url=self.url) as images:
            return [hit.id for hit in images.search(text).hits if not hit.weak]

    def _prepare(self, image_field: str, **options: Any) -> tuple[IndexSource, IngestOptions]:  # noqa: ANN401
        annotate = AnnotateOptions(index=self.index, image_field=image_field, image_base=self.image_base)
        annotate = replace(annotate, **options)
        limits = ReadLimits(url_policy=UrlPolicy(allow_private=True, patience_s=0))  # images of a real shop are public
        source = IndexSource(open_shared_cluster(Connection(url=self.url)), annotate)
        return source, IngestOptions(
            alias=self.index,
            model=MINI,
            sink=AnnotateSinkKind(source),
            sink_options=ClusterSinkOptions(),
            source=SourceOptions(read_limits=limits),
            dead_letters=self.home / "failed.jsonl",
        )


@pytest.fixture
def catalog(client: OpenSearch, node_url: str, index_name: str, tmp_path: Path) -> Catalog:
    for photo in PHOTOS.glob("*.jpg"):
        copy_photo(photo, tmp_path / photo.name)
    return Catalog(client, node_url, index_name, tmp_path, str(tmp_path))  # no other node of the tests has Painless


@pytest.fixture
def shop_url(catalog: Catalog) -> Iterator[str]:
    def answer(request: Any) -> Response:  # noqa: ANN401
        catalog.requests.append(request.path)
        path = PHOTOS / request.path.rpartition("/")[2]
        return Response(kind="image/jpeg", body=path.read_bytes()) if path.is_file() else Response(status=404)

    with start_server(answer) as url:
        yield url


def test_documents_gain_token_weights_and_keep_all_else(catalog: Catalog, shop_url: str) -> None:
    encoded = base64.b64encode(BRIDGE.read_bytes()).decode()
    images = [
        f"{shop_url}/{TABBY.name}",
        COAT.name,
        encoded,
        f"data:image/jpeg;base64,{encoded}",
        [f"{shop_url}/{KOALA.name}", "second.jpg"],
        "/etc/hostname",
        f"{shop_url}/gone.jpg",
        {"url": "x"},
        "",
        None,
        f"{shop_url}/{TABBY.name}",
    ]
    documents = [{"image": image, "title": f"title {number}", "model": "XR-200"} for number, image in enumerate(images, start=10)]
    catalog.create(*documents, properties={"image": {"enabled": False}, "title": {"type": "text"}, "model": {"type": "keyword"}})
    assert catalog.simulate() == (7, 0)
    assert catalog.count() == (6, 0, 3)
    sources = catalog.read_sources()
    assert [{name: source[name] for name in ("image", "title", "model")} for source in sources] == documents
    written = [source for source in sources if "tokens" in source]
    assert len(written) == 6
    assert {"tokens", "top_tokens", "stair_es", "colors", "sha256"} <= written[0].keys()
    assert {"name", "folder", "fingerprint", "ingested_at"} & written[0].keys() == set()
    assert set(catalog.search("a kitten")) == {"p00", "p10"}
    assert {"p02", "p03"} <= set(catalog.search("an old stone bridge"))

    catalog.requests.clear()
    assert catalog.count() == (0, 6, 3), "what failed is tried again"
    assert catalog.requests == ["/gone.jpg"]
    assert catalog.count(check_images=True)[:2] == (0, 6)
    assert len(catalog.requests) > 4


def test_only_changed_images_are_encoded_again(catalog: Catalog) -> None:
    catalog.create({"photo": {"file": TABBY.name}}, {"photo": {"file": KOALA.name}}, {"photo": {"file": COAT.name}})
    assert catalog.count("photo.file") == (3, 0, 0)
    rewritten: dict[str, Any] = {"photo": {"file": KOALA.name}, "price": 3}
    catalog.client.index(index=catalog.index, id="p00", body=rewritten)
    catalog.client.update(index=catalog.index, id="p01", body={"doc": {"photo": {"file": BRIDGE.name}}})
    catalog.client.update(index=catalog.index, id="p02", body={"doc": {"price": 4}})
    catalog.client.index(index=catalog.index, id="p03", body={"photo": {"file": TABBY.name}})
    assert catalog.count("photo.file") == (3, 1, 0)
    assert (catalog.search("a koala"), catalog.search("an old stone bridge"), catalog.search("a kitten")) == (
        ["p00"],
        ["p01"],
        ["p03"],
    )
    assert catalog.read_sources()[2]["price"] == 4

    catalog.client.update(index=catalog.index, id="p00", body={"doc": {"photo": {"file": ""}}})
    catalog.client.update(index=catalog.index, id="p01", body={"doc": {"photo": {"file": "gone.jpg"}}})
    assert catalog.count("photo.file") == (0, 2, 1)
    assert (catalog.search("a koala"), catalog.search("an old stone bridge")) == ([], []), "no document has an image of before"
    assert [source.keys() & OURS for source in catalog.read_sources()[:2]] == [set(), set()]


def test_routed_documents_and_many_shards(catalog: Catalog) -> None:
    settings = {"number_of_shards": 3, "number_of_routing_shards": 9, "number_of_replicas": 0}
    mapping = {"_routing": {"required": True}, "dynamic": "strict", "properties": {"image": {"type": "keyword"}}}
    catalog.client.indices.create(index=catalog.index, body={"settings": {"index": settings}, "mappings": mapping})
    photos = sorted(PHOTOS.glob("*.jpg"))[:12]
    for number, photo in enumerate(photos):
        catalog.client.index(
            index=catalog.index, id=str(number), body={"image": photo.name}, params={"routing": f"r{number % 5}"}
        )
    assert catalog.count() == (12, 0, 0)
    os.utime(catalog.home / photos[0].name, (1, 1))
    assert catalog.count() == (0, 12, 0), "the same bytes with another time"
    assert catalog.count() == (0, 12, 0)


def test_another_model_leaves_no_token_weights_of_the_first(catalog: Catalog) -> None:
    catalog.create({"image": TABBY.name}, {"image": KOALA.name})
    assert catalog.count() == (2, 0, 0)
    for id_ in ("p00", "p01"):
        catalog.client.update(index=catalog.index, id=id_, body={"doc": {"stair_es": {"model": "old-1", "fingerprint": "old"}}})
    (catalog.home / KOALA.name).unlink()
    report = catalog.annotate()
    assert (report.written, report.failed) == (1, 1)
    sources = catalog.read_sources()
    assert sources[0]["stair_es"]["model"] == report.model
    assert sources[1] == {"image": KOALA.name}


@pytest.mark.parametrize(
    ("dynamic", "own"),
    [
        (False, {"tokens": "mine"}),
        (False, {"stair_es": "mine"}),
        ("true", {"top_tokens": None, "x": {"thumbnail": 1}}),
    ],
)
def test_a_document_that_has_our_name_for_itself_stays_as_it_is(catalog: Catalog, dynamic: Any, own: dict[str, Any]) -> None:  # noqa: ANN401
    mine = {"image": TABBY.name, **own}
    catalog.create(mine, {"image": KOALA.name}, dynamic=dynamic, properties={"image": {"type": "keyword"}})
    assert catalog.count() == (1, 0, 1)
    first, other = catalog.read_sources()
    assert first == mine
    assert ("sha256" in other) == (dynamic == "true"), "where fields needn't be mapped, no optional one is free"


def test_optional_fields_that_a_document_has_without_us_are_never_removed(catalog: Catalog) -> None:
    catalog.create({"image": TABBY.name, "thumbnail": "mine"}, dynamic=False, properties={"image": {"type": "keyword"}})
    assert catalog.count() == (1, 0, 0)
    assert catalog.count() == (0, 1, 0)
    [source] = catalog.read_sources()
    assert source["thumbnail"] == "mine"


def test_another_field_needs_consent(catalog: Catalog) -> None:
    catalog.create({"image": TABBY.name}, {"picture": KOALA.name})
    assert catalog.count() == (1, 0, 0)
    with expect_error("other-image-field", IndexMismatch):
        catalog.count("picture")
    assert catalog.search("a kitten") == ["p00"]
    assert catalog.count("picture", change_field=True) == (1, 0, 0)
    assert (catalog.search("a kitten"), catalog.search("a koala")) == ([], ["p01"])


@pytest.mark.parametrize(
    ("mapping", "error", "code"),
    [
        ({"properties": {"image": {"type": "keyword"}, "tokens": {"type": "text"}}}, UsageError, "fields-taken"),
        ({"_source": {"enabled": False}, "properties": {"image": {"type": "keyword"}}}, IndexMismatch, "index-without-updates"),
        (
            {"_source": {"excludes": ["vector"]}, "properties": {"image": {"type": "keyword"}}},
            IndexMismatch,
            "index-without-updates",
        ),
        ({"properties": {"picture": {"type": "keyword"}}}, IngestError, "no-images"),
    ],
)
def test_an_unsuitable_index_is_not_changed(
    catalog: Catalog, mapping: dict[str, Any], error: type[StairError], code: str
) -> None:
    image_field = "image" if "image" in mapping["properties"] else "picture"
    catalog.create({image_field: TABBY.name}, **mapping)
    before = catalog.client.indices.get(index=catalog.index)
    with expect_error(code, error):
        catalog.annotate()
    assert catalog.client.indices.get(index=catalog.index) == before


def test_the_index_is_one_that_belongs_to_another_program(catalog: Catalog, tmp_path: Path) -> None:
    with expect_error("index-not-found", IndexNotFound):
        catalog.annotate()
    for name in ("a", "b"):
        catalog.client.indices.create(index=f"{catalog.index}-{name}", body={"aliases": {catalog.index: {}}})
    with expect_error("several-indices", IndexMismatch):
        catalog.annotate()
    catalog.client.indices.delete(index=f"{catalog.index}-a,{catalog.index}-b")
    only_a = {"filter": {"term": {"tenant": "a"}}}
    catalog.client.indices.create(index=f"{catalog.index}-all", body={"aliases": {catalog.index: only_a}})
    with expect_error("filtered-alias", IndexMismatch):
        catalog.annotate()
    catalog.client.indices.delete(index=f"{catalog.index}-all")
    ingested = IngestOptions(alias=catalog.index, model=ModelSpec(name="stair-mini"), dead_letters=tmp_path / "x.jsonl")
    run_ingest([open_source(str(TABBY))], Connection(url=catalog.url), ingested, progress=lambda _: None)
    with expect_error("index-of-ingest", IndexMismatch):
        catalog.annotate("uri")


def test_neither_ingest_nor_a_policy_takes_the_alias_of_another_program(catalog: Catalog, tmp_path: Path) -> None:
    catalog.create({"image": TABBY.name}, properties={"image": {"type": "keyword"}})
    catalog.annotate()
    alias = f"{catalog.index}-alias"
    catalog.client.indices.put_alias(index=catalog.index, name=alias)
    options = IngestOptions(alias=alias, model=MINI, dead_letters=tmp_path / "x.jsonl")
    with expect_error("foreign-index", IndexMismatch):
        run_ingest([open_source(str(TABBY))], Connection(url=catalog.url), options, progress=lambda _: None)
    with Cluster(Connection(url=catalog.url)) as cluster, expect_error("foreign-index", IndexMismatch):
        PolicyManager(cluster, alias).apply_policy(None, UpdateLimits(), lambda _: None)
    assert list(catalog.client.indices.get_alias(name=alias)) == [catalog.index]
