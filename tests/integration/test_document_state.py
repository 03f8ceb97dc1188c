"""State of stored documents, on each engine."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.errors import expect_error

from stair_es import SparseVector, resources
from stair_es.cluster.bulk.actions import WRITTEN_AGAIN
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import read
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.cluster.documents.read import (
    find_last_writes,
    get_stored_by_id,
    get_stored_by_uri,
    scan_documents,
    scan_older_documents,
)
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.store import IndexedDocument, StoredVersion

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

SOURCES = ("s3://a/", "s3://b/")
ON_OPENSEARCH = pytest.mark.parametrize("rank_features_url", ["node_url"], indirect=True, ids=["opensearch"])
"""For what doesn't depend on the engine."""


def build_metadata(uri: str, source: str = "s3://a/", sha256: str = "00", version: str | None = "etag-1") -> ImageMetadata:
    return ImageMetadata(
        uri=uri,
        name="a",
        source=source,
        bytes=1,
        version=version,
        sha256=sha256,
        width=1,
        height=1,
        format="PNG",
        taken_at=None,
        thumbnail=None,
    )


def write_images(
    client: OpenSearch, index: str, images: list[ImageMetadata], *, refresh: bool = True, ids: list[str] | None = None
) -> None:
    lines: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        vector = SparseVector.from_mapping({"dog": 1.0})
        ingested_at = f"2026-01-01T00:00:{number % 60:02}Z"
        body = build_document(
            vector,
            image,
            fields={},
            model_id="m",
            fingerprint=f"f-{image.uri}",
            ingested_at=ingested_at,
            settings=DocumentSettings(),
        )
        lines += [{"index": {"_id": ids[number] if ids else make_document_id(image.uri)}}, body]
    answer = client.bulk(body=lines, index=index, params={"refresh": "true" if refresh else "false"})
    assert not answer["errors"], answer


@pytest.fixture
def index(engine: OpenSearch, engine_index: str) -> str:
    body = resources.load_json_resource("mappings", "image")
    body["settings"]["index"] = {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": "-1"}
    engine.indices.create(index=engine_index, body=body)
    return engine_index


@pytest.fixture
def cluster(engine: OpenSearch, rank_features_url: str) -> Cluster:
    return Cluster(Connection(url=rank_features_url), engine)


def list_keys(entries: Iterable[IndexedDocument]) -> list[tuple[str, str, str]]:
    return [(entry.id, entry.uri, entry.source) for entry in entries]


def build_stored(uri: str, version: str | None = "etag-1") -> StoredVersion:
    return StoredVersion(id=make_document_id(uri), uri=uri, sha256="00", fingerprint=f"f-{uri}", version=version)


def test_lookup_by_id_needs_no_refresh_and_by_uri_does(engine: OpenSearch, cluster: Cluster, index: str) -> None:
    write_images(engine, index, [build_metadata("u/1"), build_metadata("u/2", version=None)], refresh=False)
    expected = {make_document_id("u/1"): build_stored("u/1"), make_document_id("u/2"): build_stored("u/2", version=None)}
    assert get_stored_by_id(cluster, index, [*expected, "absent"]) == expected
    assert get_stored_by_uri(cluster, index, ["u/1", "u/2"]) == {}
    engine.indices.refresh(index=index)
    assert get_stored_by_uri(cluster, index, ["u/1", "u/2", "absent"]) == {
        "u/1": build_stored("u/1"),
        "u/2": build_stored("u/2", version=None),
    }
    assert get_stored_by_id(cluster, index, []) == get_stored_by_uri(cluster, index, []) == {}


@ON_OPENSEARCH
def test_many_ids_are_requested_in_batches(
    engine: OpenSearch, cluster: Cluster, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_BATCH_SIZE", 7)
    uris = [f"u/{i}" for i in range(40)]
    write_images(engine, index, [build_metadata(uri) for uri in uris])
    assert get_stored_by_uri(cluster, index, uris) == {uri: build_stored(uri) for uri in uris}
    assert get_stored_by_id(cluster, index, [make_document_id(uri) for uri in uris]) == {
        make_document_id(u): build_stored(u) for u in uris
    }


@ON_OPENSEARCH
def test_of_several_documents_of_one_uri_by_uri_gives_the_newest(engine: OpenSearch, cluster: Cluster, index: str) -> None:
    write_images(
        engine,
        index,
        [build_metadata("u", sha256="aa"), build_metadata("u", sha256="bb"), build_metadata("v")],
        ids=["1", "2", "3"],
    )
    entries = get_stored_by_uri(cluster, index, ["u", "v"])
    assert {uri: entry.id for uri, entry in entries.items()} == {"u": "2", "v": "3"}


@pytest.mark.parametrize("page", [1, 11, 5000])
def test_entries_list_each_document_once_for_any_page_size(
    engine: OpenSearch, cluster: Cluster, index: str, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(read, "_PAGE_SIZE", page)
    images = [build_metadata(f"u/{i:03}", SOURCES[i % 2]) for i in range(20)]
    random.Random(7).shuffle(images)
    write_images(engine, index, images)
    write_images(engine, index, [build_metadata("u/007", sha256="other")], ids=["second content"])
    write_images(engine, index, [build_metadata("x" * 9000)])
    engine.index(index=index, id="foreign", body={"caption": "no URI"}, params={"refresh": "true"})
    engine.index(index=index, id="bare", body={"uri": "u/999"}, params={"refresh": "true"})
    expected = [(make_document_id(image.uri), image.uri, image.source) for image in images]
    expected += [("second content", "u/007", "s3://a/"), ("bare", "u/999", "")]
    entries = list_keys(scan_documents(cluster, index))
    assert sorted(entries) == sorted(expected)
    assert [uri for _, uri, _ in entries] == sorted(uri for _, uri, _ in entries)
    last_writes = find_last_writes(cluster, index)
    for sources in ([SOURCES[1]], list(SOURCES), ["s3://none/"], []):
        entries = list_keys(scan_older_documents(cluster, index, last_writes, sources))
        assert sorted(entries) == sorted(entry for entry in expected if entry[2] in sources)


def test_older_documents_are_ordered_by_their_shards(
    engine: OpenSearch, cluster: Cluster, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`put` dates all documents to the same minute: only the order of the writes tells them apart."""
    monkeypatch.setattr(read, "_PAGE_SIZE", 3)
    assert find_last_writes(cluster, index) == (None, None)
    assert list(scan_older_documents(cluster, index, (None, None), SOURCES)) == []
    images = [build_metadata(f"u/{i}") for i in range(12)]
    write_images(engine, index, images)
    last_writes = find_last_writes(cluster, index)
    write_images(engine, index, [build_metadata("u/new-1"), build_metadata("u/new-2"), *images[:4]])
    older = list(scan_older_documents(cluster, index, last_writes, SOURCES))
    assert sorted(entry.uri for entry in older) == sorted(image.uri for image in images[4:])
    earlier_primary = [last and replace(last, primary_term=last.primary_term - 1) for last in last_writes]
    assert list(scan_older_documents(cluster, index, earlier_primary, SOURCES)) == []
    rewritten, deleted, *others = older
    write_images(engine, index, [build_metadata(rewritten.uri)], refresh=False)
    engine.delete(index=index, id=deleted.id)
    engine.indices.put_alias(index=index, name=make_write_alias(index))
    writer = BulkWriter(cluster=cluster, index=index)
    outcomes = writer.delete([entry.id for entry in older], {entry.id: entry.delete_options for entry in older}).outcomes
    assert outcomes == {rewritten.id: WRITTEN_AGAIN, **dict.fromkeys([deleted.id, *(entry.id for entry in others)])}
    engine.indices.refresh(index=index)
    left = {"u/new-1", "u/new-2", *(image.uri for image in images[:4]), rewritten.uri}
    assert {entry.uri for entry in scan_documents(cluster, index)} == left


def test_a_document_with_routing_is_deleted_on_its_shard(engine: OpenSearch, cluster: Cluster, index: str) -> None:
    for number in range(8):
        engine.index(index=index, id="1", body={"uri": f"u/{number}", "source": "s"}, params={"routing": str(number)})
    engine.indices.put_alias(index=index, name=make_write_alias(index))
    engine.indices.refresh(index=index)
    entries = list(scan_older_documents(cluster, index, find_last_writes(cluster, index), ["s"]))
    assert len(entries) == 2  # one id on each shard
    for entry in entries:
        BulkWriter(cluster=cluster, index=index).delete([entry.id], {entry.id: entry.delete_options})
    engine.indices.refresh(index=index)
    assert list(scan_documents(cluster, index)) == []


def test_a_shrunk_index_is_scanned_completely(
    engine: OpenSearch, cluster: Cluster, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its documents come from two shards, so that several have the same number."""
    monkeypatch.setattr(read, "_PAGE_SIZE", 1)
    images = [build_metadata(f"u/{i:02}") for i in range(12)]
    write_images(engine, index, images)
    engine.indices.put_settings(index=index, body={"index.blocks.write": True})
    shrunk = f"{index}-shrunk"
    body = {"settings": {"index.number_of_shards": 1, "index.blocks.write": None}}
    engine.indices.shrink(index=index, target=shrunk, body=body, params={"wait_for_active_shards": "1"})
    [last] = find_last_writes(cluster, shrunk)
    entries = list(scan_older_documents(cluster, shrunk, [last], SOURCES))
    assert sorted(entry.uri for entry in entries) == [image.uri for image in images]
    assert len({entry.delete_options["if_seq_no"] for entry in entries}) < len(entries)
    write_images(engine, shrunk, [build_metadata("u/new")])
    assert len(list(scan_older_documents(cluster, shrunk, [last], SOURCES))) == len(images)


def test_entries_continue_while_others_write(
    engine: OpenSearch, cluster: Cluster, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_PAGE_SIZE", 5)
    images = [build_metadata(f"u/{i:03}") for i in range(12)]
    write_images(engine, index, images)
    entries = []
    for number, entry in enumerate(scan_documents(cluster, index)):
        entries.append(entry.uri)
        write_images(engine, index, [build_metadata(entry.uri, version="etag-2")], refresh=number % 3 == 0)
    assert entries == [image.uri for image in images]


def test_an_absent_index_is_an_error_and_not_an_empty_ledger(cluster: Cluster, engine_index: str) -> None:
    for call in (lambda: get_stored_by_uri(cluster, engine_index, ["u"]), lambda: list(scan_documents(cluster, engine_index))):
        with expect_error("cluster-error") as caught:
            call()
        assert engine_index in caught.value.message


def test_missing_shards_are_not_empty(
    engine: OpenSearch, cluster: Cluster, engine_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = {"index.routing.allocation.require._name": "no-such-node", "index.number_of_replicas": 0}
    engine.indices.create(index=engine_index, body={"settings": nowhere}, params={"wait_for_active_shards": "0"})
    waits: list[float] = []
    monkeypatch.setattr("stair_es.retry.time.sleep", waits.append)
    with expect_error("cluster-unavailable") as caught:
        get_stored_by_id(cluster, engine_index, ["a"])
    assert "503" in caught.value.message
    assert len(waits) == 7
