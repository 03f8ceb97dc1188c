"""The token index follows the main one: after each thing that can happen to that, every word is compared with its `_source`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from support.bulk_faults import list_all_faults
from support.corpora.ingest_sources import LONG_AGO, PHOTOS, copy_photo
from support.messages import forward_messages
from support.oracles.token_index_oracle import build_expected_documents, get_token_documents
from support.servers.fault_proxy import Fault, FaultProxy, MaybeResponse, RandomFaults, Request, Send

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, make_document_id
from stair_es.cluster.token_index import documents, sync
from stair_es.cluster.token_index.sync import reconcile_token_index
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions
from stair_es.model.base import ModelSpec
from stair_es.sources.registry import open_source

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

COUNT = 4
MORE = 7
Vector = Literal["rank_features", "sparse_vector"]


def copy(number: int, to: Path) -> None:
    """One of the photos, as an old file: what has just changed is read again."""
    copy_photo(sorted(PHOTOS.glob("*.jpg"))[number], to, LONG_AGO + number)


def fill(folder: Path, count: int) -> None:
    """So many photos, by their numbers."""
    for number in range(count):
        copy(number, folder / f"{number}.jpg")


class TokenIndexRuns:
    """Ingests of one folder into one alias that has a token index."""

    def __init__(self, url: str, client: OpenSearch, options: IngestOptions, folder: Path) -> None:
        self.cluster, self.options, self.folder = Cluster(Connection(url=url), client), options, folder
        self.alias, self.messages = options.alias, list[str]()

    def run(self, connection: Connection | None = None, **sink: str) -> IngestReport:
        return self.run_as(self.options, connection, **sink)

    def run_as(self, options: IngestOptions, connection: Connection | None = None, **sink: str) -> IngestReport:
        assert isinstance(options.sink_options, ClusterSinkOptions)
        asked = replace(options, sink_options=options.sink_options.override(sink))
        source = open_source(str(self.folder))
        with forward_messages(self.messages.append):
            return run_ingest([source], connection or self.cluster.connection, asked, progress=lambda _: None)

    def reconcile(self, **sink: str) -> tuple[int, int, int]:
        """Words written and deleted, and images, of a run that went well."""
        report = self.run(None, **sink).token_index
        assert report
        assert (report.failed, report.reasons) == (0, {})
        return report.written, report.deleted, report.images

    def settings(self, thumbnail_px: int) -> IngestOptions:
        return replace(self.options, document=replace(self.options.document, thumbnail_px=thumbnail_px))

    def targets(self, alias: str) -> list[str]:
        return (
            sorted(self.cluster.client.indices.get_alias(name=alias))
            if self.cluster.client.indices.exists_alias(name=alias)
            else []
        )

    def indices(self) -> list[str]:
        return sorted(self.cluster.client.indices.get(index=f"{self.alias}*", params={"expand_wildcards": "all"}))

    def id(self, name: str) -> str:
        return make_document_id((self.folder / name).as_uri())

    def check(self, images: int) -> None:
        """Everything behind the alias of the words is what has to be there, and is found."""
        [index] = self.targets(self.alias)
        assert self.targets(f"{self.alias}-tokens") == [f"{index}.tokens"]
        self.check_tokens_of(index, images)

    def check_tokens_of(self, index: str, images: int) -> None:
        found = get_token_documents(self.cluster.client, f"{index}.tokens")
        assert found == build_expected_documents(self.cluster.client, index)
        assert len({document["image_id"] for document in found.values()}) == images


@pytest.fixture(
    params=[("node_url", "rank_features"), ("elasticsearch7_url", "rank_features"), ("elasticsearch9_url", "sparse_vector")],
    ids=["opensearch", "elasticsearch7", "elasticsearch9"],
)
def place(request: pytest.FixtureRequest) -> tuple[str, Vector]:
    fixture, vector = request.param
    return request.getfixturevalue(fixture), vector


@pytest.fixture
def runs(place: tuple[str, Vector], make_index_name: Callable[[str], str], tmp_path: Path) -> Iterator[TokenIndexRuns]:
    url, vector = place
    (folder := tmp_path / "photos").mkdir()
    fill(folder, COUNT)
    options = IngestOptions(
        alias=make_index_name(url),
        model=ModelSpec(name="stair-mini", backend="onnx"),
        document=DocumentSettings(vector=vector),
        dead_letters=tmp_path / "failed.jsonl",
    )
    client = Connection(url=url).client()
    yield TokenIndexRuns(url, client, options, folder)
    client.close()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few photos take several."""
    monkeypatch.setattr(documents, "PAGE_SIZE", 3)


def test_tokens_follow_their_images(runs: TokenIndexRuns) -> None:
    written, deleted, images = runs.reconcile(token_index="yes")
    assert (deleted, images) == (0, COUNT)
    assert COUNT < written <= 16 * COUNT
    runs.check(COUNT)
    assert runs.reconcile() == runs.reconcile(token_index="yes") == (0, 0, COUNT)  # as the index has it
    copy(20, runs.folder / "2.jpg")
    copy(21, runs.folder / "new.jpg")
    assert runs.run().written == 2
    runs.check(COUNT + 1)
    (runs.folder / "0.jpg").unlink()
    assert runs.reconcile() == (0, 0, COUNT + 1)
    report = runs.run_as(replace(runs.options, resync=True))
    assert (report.removed, report.token_index and report.token_index.written) == (1, 0)
    assert report.to_dict()["token_index"] == {
        "index": f"{report.index}.tokens",
        "written": 0,
        "deleted": report.token_index and report.token_index.deleted,
        "failed": 0,
        "images": COUNT,
    }
    assert 0 < (report.token_index.deleted if report.token_index else 0) <= 16
    runs.check(COUNT)
    assert any(line.startswith(f"token index {report.index}.tokens: 0 tokens written") for line in runs.messages)


def test_new_index_and_its_token_index_are_swapped_together(runs: TokenIndexRuns) -> None:
    first = runs.run(token_index="yes").index
    build = runs.run_as(runs.settings(0), swap="never")
    assert not build.swapped
    runs.check(COUNT)
    assert runs.targets(f"{runs.alias}-tokens") == [f"{first}.tokens"]
    runs.check_tokens_of(build.index, COUNT)
    copy(20, runs.folder / "2.jpg")
    again = runs.run_as(runs.settings(0))
    assert (again.index, again.swapped, again.deleted_indices) == (build.index, True, ())
    runs.check(COUNT)
    assert runs.targets(f"{runs.alias}-tokens") == [f"{build.index}.tokens"]
    assert runs.indices() == sorted([first, f"{first}.tokens", build.index, f"{build.index}.tokens"])
    third = runs.run_as(runs.settings(32), retain_indices="0")
    assert (third.swapped, sorted(third.deleted_indices)) == (True, sorted([first, build.index]))
    runs.check(COUNT)
    assert runs.indices() == [third.index, f"{third.index}.tokens"]


def test_manually_moved_aliases_are_repaired(runs: TokenIndexRuns) -> None:
    first = runs.run(token_index="yes").index
    second = runs.run_as(runs.settings(0)).index
    back = [{"remove": {"index": second, "alias": runs.alias}}, {"add": {"index": first, "alias": runs.alias}}]
    runs.cluster.client.indices.update_aliases(body={"actions": back})
    assert runs.reconcile() == (0, 0, COUNT)
    runs.check(COUNT)
    assert runs.targets(f"{runs.alias}-tokens") == [f"{first}.tokens"]
    runs.cluster.client.indices.delete_alias(index=f"{first}.tokens", name=f"{runs.alias}-tokens")
    assert runs.reconcile() == (0, 0, COUNT)
    runs.check(COUNT)
    runs.cluster.client.indices.delete(index=first)  # and its words are left
    third = runs.run()
    assert third.index not in (first, second)
    runs.check(COUNT)
    assert f"{first}.tokens" not in runs.indices()
    assert any("indices are gone" in line for line in runs.messages)


def test_changes_by_others_to_either_index_are_repaired(runs: TokenIndexRuns) -> None:
    fill(runs.folder, MORE)
    index = runs.run(token_index="yes").index
    token_index, client = f"{index}.tokens", runs.cluster.client
    ids = [runs.id(f"{number}.jpg") for number in range(MORE)]
    now = {"refresh": "true"}
    client.delete(index=token_index, id=f"{ids[0]}-1", params=now)
    client.update(index=token_index, id=f"{ids[1]}-2", body={"doc": {"source_version": "old"}}, params=now)
    client.index(index=token_index, id="stray", body={"image_id": ids[2], "token": "x", "token_count": 16, "rank": 1}, params=now)
    client.index(index=token_index, id="nowhere", body={"image_id": "no image", "token": "x", "rank": 1}, params=now)
    client.update(index=index, id=ids[3], body={"doc": {"caption": "by hand"}})
    source = client.get(index=index, id=ids[4])["_source"]
    client.index(index=index, id=ids[4], body={**source, "tokens": {"dog": 1.5, "c%2E": 2.0}, "top_tokens": ["c.", "dog"]})
    client.delete(index=index, id=ids[5])
    client.index(index=index, id="theirs", body={"uri": "theirs", "tokens": {"cat": 1.5}, "top_tokens": ["cat"]}, params=now)
    client.index(index=index, id="wordless", body={"uri": "wordless", "tokens": {"cat": 1.5}}, params=now)
    (runs.folder / "5.jpg").unlink()
    runs.reconcile()
    runs.check(MORE)
    assert len(client.search(index=token_index, body={"query": {"term": {"image_id": ids[4]}}})["hits"]["hits"]) == 2
    assert runs.reconcile() == (0, 0, MORE)


def test_images_without_tokens_are_checked_once(runs: TokenIndexRuns) -> None:
    index = runs.run(token_index="yes").index
    source = runs.cluster.client.get(index=index, id=runs.id("1.jpg"))["_source"]
    runs.cluster.client.index(index=index, id=runs.id("1.jpg"), body={**source, "tokens": {}, "top_tokens": []})
    written, deleted, images = runs.reconcile()
    assert (written, images) == (0, COUNT - 1)
    assert 0 < deleted <= 16
    runs.check(COUNT - 1)
    gets: list[str] = []

    def note(request: Request) -> Fault | None:
        if "_mget" in request.path:
            gets.append(request.path)
        return None

    with FaultProxy(runs.cluster.connection.url, note) as proxy, Cluster(Connection(url=proxy.url)) as cluster:
        report = reconcile_token_index(cluster, runs.alias, index)
    assert report
    assert (report.written, report.deleted, report.failed, report.images) == (0, 0, 0, COUNT - 1)
    assert gets == []


def test_unwritable_tokens_are_counted_and_others_written(runs: TokenIndexRuns) -> None:
    index = runs.run(token_index="yes").index
    longest = "i" * 512  # with a rank it is no `_id` any more
    document = {"uri": "u", "tokens": {"dog": 1.0, "cat": 0.5}, "top_tokens": ["dog", "cat"]}
    runs.cluster.client.index(index=index, id=longest, body=document)
    runs.cluster.client.index(index=index, id="empty", body={"uri": "e", "top_tokens": ["dog"]})
    copy(20, runs.folder / "2.jpg")
    for _ in range(2):
        report = runs.run().token_index
        assert report
        assert (report.failed, report.images) == (3, COUNT)
        assert any("too long" in reason for reason in report.reasons.values())
        assert "no `tokens`" in report.reasons["empty"]
        assert "3 could not be written or deleted" in runs.messages[-1]
    expected = expected_words_without(runs, index, longest)
    assert get_token_documents(runs.cluster.client, f"{index}.tokens") == expected


def expected_words_without(runs: TokenIndexRuns, index: str, id_: str) -> dict[str, dict[str, Any]]:
    for gone in ("empty", id_):
        runs.cluster.client.delete(index=index, id=gone)
    return build_expected_documents(runs.cluster.client, index)


def test_token_index_follows_concurrent_changes(runs: TokenIndexRuns) -> None:
    """As by a run beside this one that has compared both sides before these words were written."""
    index = runs.run().index
    changed, gone = runs.id("1.jpg"), runs.id("2.jpg")

    def interfere(request: Request, send: Send) -> MaybeResponse:
        answer = send(request)
        source = runs.cluster.client.get(index=index, id=changed)["_source"]
        body = {**source, "tokens": {"other": 1.0}, "top_tokens": ["other"]}
        runs.cluster.client.index(index=index, id=changed, body=body)
        runs.cluster.client.delete(index=index, id=gone)
        return answer

    left = iter([Fault("interfere", interfere)])
    with FaultProxy(runs.cluster.connection.url, lambda request: next(left, None) if is_words(request) else None) as proxy:
        runs.run(Connection(url=proxy.url), token_index="yes")
        assert proxy.counts["interfere"] == 1
    runs.check(COUNT - 1)


def is_words(request: Request) -> bool:
    """Whether it writes words."""
    return request.is_bulk and ".tokens.write/" in request.path


def test_nothing_is_lost_behind_a_bad_network(runs: TokenIndexRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(runs.folder, MORE)
    runs.run()
    monkeypatch.setattr(sync, "_TOKENS_PER_BATCH", 16)  # an image a request
    monkeypatch.setattr(sync, "_LOG_INTERVAL_S", 0.0)
    storm = RandomFaults(seed=5, share=0.7, run=2, faults=passing_faults())
    with FaultProxy(runs.cluster.connection.url, lambda request: storm(request) if is_words(request) else None) as proxy:
        report = runs.run(Connection(url=proxy.url, timeout_s=5), token_index="yes").token_index
    assert sum(proxy.counts[fault.name] for fault in passing_faults()) >= 3
    assert report
    assert report.failed == 0
    runs.check(MORE)
    compared = [line for line in runs.messages if "images compared" in line]
    assert any(f"token index: {MORE} of {MORE} images compared, {report.written} tokens written" in line for line in compared)


def passing_faults() -> list[Fault]:
    return [fault for fault in list_all_faults() if "413" not in fault.name and "large" not in fault.name]


def test_token_index_deleted_while_filled_is_not_recreated(runs: TokenIndexRuns) -> None:
    """By a run beside this one, with `--no-token-index`."""

    def delete(request: Request, send: Send) -> MaybeResponse:
        runs.cluster.client.indices.delete(index=runs.targets(runs.alias)[0] + ".tokens")
        return send(request)

    with FaultProxy(runs.cluster.connection.url, lambda request: Fault("delete", delete) if is_words(request) else None) as proxy:
        report = runs.run(Connection(url=proxy.url), token_index="yes")
    assert (report.written, report.token_index) == (COUNT, None)
    assert runs.messages[-1] == f"token index {report.index}.tokens: it was deleted in the meantime"
    assert runs.indices() == [report.index]


def test_parallel_runs_keep_token_documents_right(runs: TokenIndexRuns) -> None:
    barrier = threading.Barrier(3)

    def go(number: int) -> None:
        options = replace(runs.options, dead_letters=runs.folder.parent / f"{number}.jsonl")
        barrier.wait()
        runs.run_as(options, token_index="yes")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(go, range(3)))
    runs.check(COUNT)
    assert len(runs.indices()) == 2


def test_without_a_token_index_a_run_looks_once(runs: TokenIndexRuns) -> None:
    requests: list[str] = []

    def note(request: Request) -> Fault | None:
        if "-tokens" in request.path:
            requests.append(f"{request.method} {request.path.partition('?')[0]}")
        return None

    with FaultProxy(runs.cluster.connection.url, note) as proxy:
        report = runs.run(Connection(url=proxy.url))
    assert report.token_index is None
    assert report.to_dict()["token_index"] is None
    assert len(requests) == 1
    assert requests[0].startswith("GET ")
