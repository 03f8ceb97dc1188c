"""The token index follows the main one: after each thing that can happen to that, every word is compared with its `_source`."""

from __future__ import annotations

import re
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
from support.oracles.token_index_oracle import TokenIndexChecks, build_expected_documents, get_token_documents, is_token_write
from support.plugin_metadata import install_colors_plugin
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

ON_OPENSEARCH = pytest.mark.parametrize("vector_node", [("node_url", "rank_features")], indirect=True, ids=["opensearch"])
"""For what doesn't depend on the engine."""
COUNT = 4
MORE = 7
Vector = Literal["rank_features", "sparse_vector"]


def copy_numbered_photo(number: int, to: Path) -> None:
    """Copy one of the photos as an old file: what has just changed is read again."""
    copy_photo(sorted(PHOTOS.glob("*.jpg"))[number], to, LONG_AGO + number)


def write_photos(folder: Path, count: int) -> None:
    """Write so many photos, named by their numbers."""
    for number in range(count):
        copy_numbered_photo(number, folder / f"{number}.jpg")


class TokenIndexRuns(TokenIndexChecks):
    """Ingests of one folder into one alias that has a token index."""

    def __init__(self, url: str, client: OpenSearch, options: IngestOptions, folder: Path) -> None:
        self.cluster, self.options, self.folder = Cluster(Connection(url=url), client), options, folder
        self.client, self.alias, self.messages = client, options.alias, list[str]()

    def ingest_folder(self, connection: Connection | None = None, **sink: str) -> IngestReport:
        return self.ingest_with(self.options, connection, **sink)

    def ingest_with(self, options: IngestOptions, connection: Connection | None = None, **sink: str) -> IngestReport:
        assert isinstance(options.sink_options, ClusterSinkOptions)
        new_options = replace(options, sink_options=options.sink_options.override(sink))
        source = open_source(str(self.folder))
        with forward_messages(self.messages.append):
            return run_ingest([source], connection or self.cluster.connection, new_options, progress=lambda _: None)

    def reconcile_tokens(self, **sink: str) -> tuple[int, int, int]:
        """Return how many tokens a successful run has written and deleted, and of how many images."""
        report = self.ingest_folder(None, **sink).token_index
        assert report
        assert (report.failed, report.reasons) == (0, {})
        return report.written, report.deleted, report.images

    def build_options(self, thumbnail_px: int) -> IngestOptions:
        return replace(self.options, document=replace(self.options.document, thumbnail_px=thumbnail_px))

    def build_id(self, name: str) -> str:
        return make_document_id((self.folder / name).as_uri())


@pytest.fixture(
    params=[("node_url", "rank_features"), ("elasticsearch7_url", "rank_features"), ("elasticsearch9_url", "sparse_vector")],
    ids=["opensearch", "elasticsearch7", "elasticsearch9"],
)
def vector_node(request: pytest.FixtureRequest) -> tuple[str, Vector]:
    fixture, vector = request.param
    return request.getfixturevalue(fixture), vector


@pytest.fixture(scope="module")
def colors_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    """The model of the example plugin."""
    with install_colors_plugin(tmp_path_factory.mktemp("site")):
        yield ModelSpec(name="colors")


@pytest.fixture
def runs(
    vector_node: tuple[str, Vector], make_index_name: Callable[[str], str], tmp_path: Path, colors_model: ModelSpec
) -> Iterator[TokenIndexRuns]:
    url, vector = vector_node
    (folder := tmp_path / "photos").mkdir()
    write_photos(folder, COUNT)
    options = IngestOptions(
        alias=make_index_name(url),
        model=colors_model,
        document=DocumentSettings(vector=vector),
        dead_letters=tmp_path / "failed.jsonl",
    )
    client = Connection(url=url).client()
    yield TokenIndexRuns(url, client, options, folder)
    client.close()


@pytest.fixture(autouse=True)
def shrink_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few photos take several pages."""
    monkeypatch.setattr(documents, "PAGE_SIZE", 3)


def test_tokens_follow_their_images(runs: TokenIndexRuns) -> None:
    written, deleted, images = runs.reconcile_tokens(token_index="yes")
    assert (deleted, images) == (0, COUNT)
    assert COUNT < written <= 16 * COUNT
    runs.check_tokens(COUNT)
    assert runs.reconcile_tokens() == runs.reconcile_tokens(token_index="yes") == (0, 0, COUNT)  # as the index has it
    copy_numbered_photo(20, runs.folder / "2.jpg")
    copy_numbered_photo(21, runs.folder / "new.jpg")
    assert runs.ingest_folder().written == 2
    runs.check_tokens(COUNT + 1)
    (runs.folder / "0.jpg").unlink()
    assert runs.reconcile_tokens() == (0, 0, COUNT + 1)
    report = runs.ingest_with(replace(runs.options, resync=True))
    assert (report.removed, report.token_index and report.token_index.written) == (1, 0)
    assert report.to_dict()["token_index"] == {
        "index": f"{report.index}.tokens",
        "written": 0,
        "deleted": report.token_index and report.token_index.deleted,
        "failed": 0,
        "images": COUNT,
    }
    assert 0 < (report.token_index.deleted if report.token_index else 0) <= 16
    runs.check_tokens(COUNT)
    assert any(f"{report.index}.tokens" in line for line in runs.messages)


@ON_OPENSEARCH
def test_new_index_and_its_token_index_are_swapped_together(runs: TokenIndexRuns) -> None:
    first = runs.ingest_folder(token_index="yes").index
    build = runs.ingest_with(runs.build_options(0), swap="never")
    assert not build.swapped
    runs.check_tokens(COUNT)
    assert runs.list_targets(f"{runs.alias}-tokens") == [f"{first}.tokens"]
    runs.check_tokens_of(build.index, COUNT)
    copy_numbered_photo(20, runs.folder / "2.jpg")
    second_build = runs.ingest_with(runs.build_options(0))
    assert (second_build.index, second_build.swapped, second_build.deleted_indices) == (build.index, True, ())
    runs.check_tokens(COUNT)
    assert runs.list_targets(f"{runs.alias}-tokens") == [f"{build.index}.tokens"]
    assert runs.list_indices() == sorted([first, f"{first}.tokens", build.index, f"{build.index}.tokens"])
    third = runs.ingest_with(runs.build_options(32), retain_indices="0")
    assert (third.swapped, sorted(third.deleted_indices)) == (True, sorted([first, build.index]))
    runs.check_tokens(COUNT)
    assert runs.list_indices() == [third.index, f"{third.index}.tokens"]


@ON_OPENSEARCH
def test_manually_moved_aliases_are_repaired(runs: TokenIndexRuns) -> None:
    first = runs.ingest_folder(token_index="yes").index
    second = runs.ingest_with(runs.build_options(0)).index
    back = [{"remove": {"index": second, "alias": runs.alias}}, {"add": {"index": first, "alias": runs.alias}}]
    runs.client.indices.update_aliases(body={"actions": back})
    assert runs.reconcile_tokens() == (0, 0, COUNT)
    runs.check_tokens(COUNT)
    assert runs.list_targets(f"{runs.alias}-tokens") == [f"{first}.tokens"]
    runs.client.indices.delete_alias(index=f"{first}.tokens", name=f"{runs.alias}-tokens")
    assert runs.reconcile_tokens() == (0, 0, COUNT)
    runs.check_tokens(COUNT)
    runs.client.indices.delete(index=first)  # and its words are left
    third = runs.ingest_folder()
    assert third.index not in (first, second)
    runs.check_tokens(COUNT)
    assert f"{first}.tokens" not in runs.list_indices()
    assert any(f"{first}.tokens" in line for line in runs.messages)


def test_changes_by_others_to_either_index_are_repaired(runs: TokenIndexRuns) -> None:
    write_photos(runs.folder, MORE)
    index = runs.ingest_folder(token_index="yes").index
    token_index, client = f"{index}.tokens", runs.client
    ids = [runs.build_id(f"{number}.jpg") for number in range(MORE)]
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
    runs.reconcile_tokens()
    runs.check_tokens(MORE)
    assert len(client.search(index=token_index, body={"query": {"term": {"image_id": ids[4]}}})["hits"]["hits"]) == 2
    assert runs.reconcile_tokens() == (0, 0, MORE)


@ON_OPENSEARCH
def test_images_without_tokens_are_checked_once(runs: TokenIndexRuns) -> None:
    index = runs.ingest_folder(token_index="yes").index
    source = runs.client.get(index=index, id=runs.build_id("1.jpg"))["_source"]
    runs.client.index(index=index, id=runs.build_id("1.jpg"), body={**source, "tokens": {}, "top_tokens": []})
    written, deleted, images = runs.reconcile_tokens()
    assert (written, images) == (0, COUNT - 1)
    assert 0 < deleted <= 16
    runs.check_tokens(COUNT - 1)
    gets: list[str] = []

    def record_request(request: Request) -> Fault | None:
        if "_mget" in request.path:
            gets.append(request.path)
        return None

    with FaultProxy(runs.cluster.connection.url, record_request) as proxy, Cluster(Connection(url=proxy.url)) as cluster:
        report = reconcile_token_index(cluster, runs.alias, index)
    assert report
    assert (report.written, report.deleted, report.failed, report.images) == (0, 0, 0, COUNT - 1)
    assert gets == []


def test_unwritable_tokens_are_counted_and_others_written(runs: TokenIndexRuns) -> None:
    index = runs.ingest_folder(token_index="yes").index
    longest = "i" * 512  # with a rank it is no `_id` any more
    document = {"uri": "u", "tokens": {"dog": 1.0, "cat": 0.5}, "top_tokens": ["dog", "cat"]}
    runs.client.index(index=index, id=longest, body=document)
    runs.client.index(index=index, id="empty", body={"uri": "e", "top_tokens": ["dog"]})
    copy_numbered_photo(20, runs.folder / "2.jpg")
    for _ in range(2):
        report = runs.ingest_folder().token_index
        assert report
        assert (report.failed, report.images) == (3, COUNT)
        assert any("too long" in reason for reason in report.reasons.values())
        assert "no `tokens`" in report.reasons["empty"]
        assert "3" in runs.messages[-1].split()
    expected = build_expected_without(runs, index, longest)
    assert get_token_documents(runs.client, f"{index}.tokens") == expected


def build_expected_without(runs: TokenIndexRuns, index: str, id_: str) -> dict[str, dict[str, Any]]:
    for deleted in ("empty", id_):
        runs.client.delete(index=index, id=deleted)
    return build_expected_documents(runs.client, index)


def test_token_index_follows_concurrent_changes(runs: TokenIndexRuns) -> None:
    """As by a run beside this one that has compared both sides before these words were written."""
    index = runs.ingest_folder().index
    changed, deleted = runs.build_id("1.jpg"), runs.build_id("2.jpg")

    def change_after_write(request: Request, send: Send) -> MaybeResponse:
        answer = send(request)
        source = runs.client.get(index=index, id=changed)["_source"]
        body = {**source, "tokens": {"other": 1.0}, "top_tokens": ["other"]}
        runs.client.index(index=index, id=changed, body=body)
        runs.client.delete(index=index, id=deleted)
        return answer

    left = iter([Fault("interfere", change_after_write)])
    with FaultProxy(runs.cluster.connection.url, lambda request: next(left, None) if is_token_write(request) else None) as proxy:
        runs.ingest_folder(Connection(url=proxy.url), token_index="yes")
        assert proxy.counts["interfere"] == 1
    runs.check_tokens(COUNT - 1)


@ON_OPENSEARCH
def test_nothing_is_lost_behind_a_bad_network(runs: TokenIndexRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(runs.folder, MORE)
    runs.ingest_folder()
    monkeypatch.setattr(sync, "_TOKENS_PER_BATCH", 16)  # an image a request
    monkeypatch.setattr(sync, "_LOG_INTERVAL_S", 0.0)
    storm = RandomFaults(seed=5, share=0.7, run=2, faults=list_passing_faults())
    with FaultProxy(runs.cluster.connection.url, lambda request: storm(request) if is_token_write(request) else None) as proxy:
        report = runs.ingest_folder(Connection(url=proxy.url, timeout_s=5), token_index="yes").token_index
    assert sum(proxy.counts[fault.name] for fault in list_passing_faults()) >= 3
    assert report
    assert report.failed == 0
    runs.check_tokens(MORE)
    progress = [list(map(int, re.findall(r"\d+", line))) for line in runs.messages]
    assert [MORE, MORE, report.written] in [numbers[:3] for numbers in progress]


def list_passing_faults() -> list[Fault]:
    return [fault for fault in list_all_faults() if "413" not in fault.name and "large" not in fault.name]


def test_token_index_deleted_while_filled_is_not_recreated(runs: TokenIndexRuns) -> None:
    """By a run beside this one, with `--no-token-index`."""

    def delete_token_index(request: Request, send: Send) -> MaybeResponse:
        runs.client.indices.delete(index=runs.list_targets(runs.alias)[0] + ".tokens")
        return send(request)

    with FaultProxy(
        runs.cluster.connection.url, lambda request: Fault("delete", delete_token_index) if is_token_write(request) else None
    ) as proxy:
        report = runs.ingest_folder(Connection(url=proxy.url), token_index="yes")
    assert (report.written, report.token_index) == (COUNT, None)
    assert f"{report.index}.tokens" in runs.messages[-1]
    assert runs.list_indices() == [report.index]


@ON_OPENSEARCH
def test_parallel_runs_keep_token_documents_right(runs: TokenIndexRuns) -> None:
    barrier = threading.Barrier(3)

    def ingest_in_parallel(number: int) -> None:
        options = replace(runs.options, dead_letters=runs.folder.parent / f"{number}.jsonl")
        barrier.wait()
        runs.ingest_with(options, token_index="yes")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ingest_in_parallel, range(3)))
    runs.check_tokens(COUNT)
    assert len(runs.list_indices()) == 2


@ON_OPENSEARCH
def test_without_a_token_index_a_run_looks_once(runs: TokenIndexRuns) -> None:
    requests: list[str] = []

    def record_request(request: Request) -> Fault | None:
        if "-tokens" in request.path:
            requests.append(f"{request.method} {request.path.partition('?')[0]}")
        return None

    with FaultProxy(runs.cluster.connection.url, record_request) as proxy:
        report = runs.ingest_folder(Connection(url=proxy.url))
    assert report.token_index is None
    assert report.to_dict()["token_index"] is None
    assert len(requests) == 1
    assert requests[0].startswith("GET ")
