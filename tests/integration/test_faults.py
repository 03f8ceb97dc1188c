"""Clusters that are absent, foreign, locked, busy or failing: real HTTP servers on loopback, one of them a proxy to the node."""

from __future__ import annotations

import base64
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.bulk_faults import (
    build_gateway_error,
    delay_response,
    limit_body,
    list_all_faults,
    list_fatal_faults,
    list_harmless_faults,
    list_retried_faults,
    parse_operations,
    reject_items,
    reject_request,
)
from support.errors import expect_error
from support.servers.fault_proxy import (
    Fault,
    FaultProxy,
    MaybeResponse,
    Plan,
    RandomFaults,
    Request,
    Response,
    build_forwarder,
    inject_always,
    inject_in_order,
    start_server,
)

from stair_es import SparseVector, resources
from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import read
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import ClusterError, IndexMismatch, UsageError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.retry import RetryPolicy
from stair_es.search.searcher import Searcher
from stair_es.sources.registry import open_source

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
WORD = SparseVector.from_mapping({"dog": 1.0})


def _detect_cluster(url: str) -> ClusterInfo:
    with Cluster(Connection(url=url, timeout_s=5)) as cluster:
        return get_cluster_info(cluster)


@pytest.mark.parametrize("url", ["", "localhost:9200", "ftp://localhost", "http://", "http://host:port", "http://[bad"])
def test_an_invalid_url_is_a_usage_error(url: str) -> None:
    with expect_error("invalid-server-url", UsageError):
        Connection(url=url)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("not-a-search-cluster", Response(kind="text/html", body=b"<h1>welcome</h1>")),
        ("not-a-search-cluster", Response(status=404, kind="text/html", body=b"<h1>not here</h1>")),
        ("not-a-search-cluster", Response(body=b'{"hello": "world"}')),
        ("not-a-search-cluster", Response(body=b'{"version": {"number": "1.0"}}')),
        ("not-a-search-cluster", Response(body=b'["list"]')),
        ("not-a-search-cluster", Response(body=b'{"version": ')),
        ("not-a-search-cluster", Response(kind="text/plain")),
        ("cluster-too-old", Response.json({"version": {"number": "7.10.2", "lucene_version": "8.7.0"}})),
    ],
)
def test_another_server_is_reported(code: str, answer: Response) -> None:
    with start_server(lambda _: answer) as url, expect_error(code) as caught:
        _detect_cluster(url)
    assert url in str(caught.value)


def _require_login(node_url: str) -> Callable[[Request], MaybeResponse]:
    expected = "Basic " + base64.b64encode(b"anna:s@fe:word").decode()
    send = build_forwarder(node_url)

    def check_login(request: Request) -> MaybeResponse:
        is_valid = request.headers.get("authorization") == expected
        return send(request) if is_valid else Response.json({"error": "who are you?"}, 401)

    return check_login


def test_url_login_is_used_and_not_shown(node_url: str) -> None:
    with start_server(_require_login(node_url)) as url:
        host = url.removeprefix("http://")
        assert _detect_cluster(f"http://anna:s%40fe%3Aword@{host}").label == "OpenSearch 3.8.0"
        for wrong in (url, f"http://anna:hunter2@{host}"):
            with expect_error("login-refused") as caught:
                _detect_cluster(wrong)
            assert "hunter2" not in str(caught.value)


@dataclass
class BulkIndex:
    """An index and its write alias, and writers to it that meet faults."""

    client: OpenSearch
    url: str
    name: str

    def __post_init__(self) -> None:
        body = resources.load_json_resource("mappings", "image")
        self.client.indices.create(index=self.name, body={**body, "aliases": {make_write_alias(self.name): {}}})

    @contextmanager
    def open_writer(
        self, plan: Plan = lambda _: None, policy: BulkPolicy | None = None, timeout_s: float = 10
    ) -> Iterator[tuple[BulkWriter, list[float], Counter[str]]]:
        """Yield a writer through the proxy that doesn't really wait, its waits, and the faults that it met."""
        waits = list[float]()
        with FaultProxy(self.url, plan) as proxy, Cluster(Connection(url=proxy.url, timeout_s=timeout_s)) as cluster:
            writer = BulkWriter(cluster=cluster, index=self.name, policy=policy or BulkPolicy(), sleep=waits.append)
            yield writer, waits, proxy.counts

    def read_uris(self) -> dict[str, str]:
        """Map the ids of all documents to their URIs."""
        self.client.indices.refresh(index=self.name)
        hits = self.client.search(index=self.name, body={"size": 10_000, "_source": ["uri"]})["hits"]["hits"]
        assert len(hits) == len({hit["_id"] for hit in hits})
        return {hit["_id"]: hit["_source"]["uri"] for hit in hits}

    def put_setting(self, name: str, value: object) -> None:
        self.client.indices.put_settings(index=self.name, body={f"index.{name}": value})


@pytest.fixture
def bulk_index(client: OpenSearch, node_url: str, index_name: str) -> BulkIndex:
    return BulkIndex(client, node_url, index_name)


def _build_documents(count: int) -> list[tuple[str, dict[str, Any]]]:
    vectors = [SparseVector.from_mapping({f"w{i}": 0.5, "all": 1.0}) for i in range(count)]
    return [(f"{i:03}", {"tokens": vector.to_dict(), "uri": f"file:///{i}"}) for i, vector in enumerate(vectors)]


def _list_written(count: int) -> dict[str, str | None]:
    """Return the outcomes of the first documents if all of them are written."""
    return {f"{i:03}": None for i in range(count)}


def _get_uris(documents: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    return {id_: source["uri"] for id_, source in documents}


@pytest.mark.parametrize("fault", list_retried_faults(slow_s=0.4), ids=lambda fault: fault.name)
@pytest.mark.parametrize("times", [1, 3])
def test_temporary_faults_lose_and_duplicate_nothing(fault: Fault, times: int, bulk_index: BulkIndex) -> None:
    documents, plan = _build_documents(50), inject_in_order([fault] * times)
    timeout_s = 0.3 if fault.name == "slow" else 10
    with bulk_index.open_writer(plan, BulkPolicy(max_chunk_docs=20), timeout_s) as (writer, waits, faults):
        written = writer.write(documents)
    assert written.outcomes == _list_written(50)
    assert bulk_index.read_uris() == _get_uris(documents)
    assert len(waits) == times == faults[fault.name] == sum(sent.busy for sent in written.requests)
    assert len(written.requests) == faults.total()


@pytest.mark.parametrize("fault", list_harmless_faults(), ids=lambda fault: fault.name)
def test_unusual_complete_responses_are_accepted(fault: Fault, bulk_index: BulkIndex) -> None:
    documents = _build_documents(50)
    with bulk_index.open_writer(inject_always(fault), BulkPolicy(max_chunk_docs=20)) as (writer, waits, faults):
        assert writer.write(documents).outcomes == _list_written(50)
    assert bulk_index.read_uris() == _get_uris(documents)
    assert (waits, faults) == ([], {fault.name: 3})


@pytest.mark.parametrize("fault", list_fatal_faults(), ids=lambda fault: fault.name)
def test_permanent_errors_stop_the_run_at_once(fault: Fault, bulk_index: BulkIndex) -> None:
    documents, plan = _build_documents(50), inject_in_order([None, fault])
    with bulk_index.open_writer(plan, BulkPolicy(max_chunk_docs=20)) as (writer, waits, faults):
        with pytest.raises(ClusterError, match=fault.name):
            writer.write(documents)
        assert (waits, faults) == ([], {"passed": 1, fault.name: 1})
        assert writer.write(documents).outcomes == _list_written(50)
    assert bulk_index.read_uris() == _get_uris(documents)


@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 3)])
def test_all_faults_together_lose_and_duplicate_nothing(
    seed: int, threads: int, bulk_index: BulkIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    documents, invalid_ids = _build_documents(400), {"013", "217"}
    for position in map(int, invalid_ids):
        documents[position][1]["width"] = "wide"
    all_faults = list_all_faults(slow_s=0.8, limit=800)
    plan = RandomFaults(seed, share=0.8, faults=all_faults)
    started_s = time.perf_counter()
    with bulk_index.open_writer(plan, BulkPolicy(max_chunk_docs=20), timeout_s=0.6) as (writer, _, faults):
        outcomes: dict[str, str | None] = {}
        parts = [documents[begin : begin + 100] for begin in range(0, len(documents), 100)]
        with ThreadPoolExecutor(threads) as pool:
            for written in pool.map(lambda part: writer.write(part, chunk_bytes=1000), parts):
                outcomes |= written.outcomes
        removed = writer.delete([f"{i:03}" for i in range(100)]).outcomes
    with capsys.disabled():
        sys.stdout.write(f"\nstorm {seed}: {time.perf_counter() - started_s:.1f} s, {dict(faults.most_common())}\n")
    assert {id_ for id_, reason in outcomes.items() if reason} == invalid_ids
    assert len(outcomes) == 400
    assert removed == _list_written(100)
    expected = {id_: uri for id_, uri in _get_uris(documents[100:]).items() if id_ not in invalid_ids}
    assert bulk_index.read_uris() == expected
    assert set(faults) == {"passed", *(fault.name for fault in all_faults)}


def test_too_large_requests_are_split_down_to_the_document(bulk_index: BulkIndex) -> None:
    documents = _build_documents(40)
    documents[17][1]["caption"] = "long " * 1000
    with bulk_index.open_writer(inject_always(limit_body(1000))) as (writer, waits, _):
        written = writer.write(documents)
    assert "413" in str(written.outcomes.pop("017"))
    assert set(written.outcomes.values()) == {None}
    assert len(bulk_index.read_uris()) == 39
    assert waits == []
    assert {sent.size_bytes > 1000 for sent in written.requests if sent.too_large} == {True}
    assert len(written.requests) < 30  # what was learned from the first refusal holds for the rest of the call


def test_caller_sets_the_request_size(bulk_index: BulkIndex) -> None:
    with bulk_index.open_writer() as (writer, _, faults):
        small = writer.write(_build_documents(50), chunk_bytes=1000).requests
        large = writer.write(_build_documents(50)).requests
    assert len(small) > 3
    assert all(0 < sent.size_bytes <= 1000 and sent.seconds > 0 for sent in small)
    assert [sent.documents for sent in large] == [50]
    assert sum(sent.documents for sent in small) == 50
    assert faults == {"passed": len(small) + 1}


def test_invalid_documents_fail_alone_with_their_reason(bulk_index: BulkIndex) -> None:
    documents = _build_documents(10)
    documents[3][1]["tokens"] = {"dog": 0.0}
    documents[7][1]["width"] = "wide"
    documents[8][1]["caption"] = "\ud800"
    with bulk_index.open_writer() as (writer, waits, _):
        outcomes = writer.write(documents).outcomes
    reasons = {id_: reason for id_, reason in outcomes.items() if reason}
    assert set(reasons) == {"003", "007", "008"}
    assert "width" in reasons["007"]
    assert "JSON" in reasons["008"]
    assert waits == []


def test_document_that_breaks_a_request_fails_alone(bulk_index: BulkIndex) -> None:
    documents = _build_documents(40)
    too_long = "x" * 600  # a node refuses the request for an _id of more than 512 bytes
    documents.insert(23, (too_long, documents[0][1]))
    with bulk_index.open_writer() as (writer, waits, _):
        outcomes = writer.write(documents).outcomes
    assert outcomes.pop(too_long)
    assert outcomes == _list_written(40)
    assert len(bulk_index.read_uris()) == 40
    assert waits == []


def test_rejected_requests_do_not_fail_documents(bulk_index: BulkIndex) -> None:
    rejection = Response.json({"error": {"type": "illegal_argument_exception", "reason": "unknown parameter"}}, 400)
    plan = inject_always(Fault("400", lambda request, send: rejection))
    with bulk_index.open_writer(plan) as (writer, _, faults), pytest.raises(ClusterError, match="unknown parameter"):
        writer.write(_build_documents(30))
    assert faults == {"400": 2}


def test_of_several_documents_with_one_id_the_last_counts(bulk_index: BulkIndex) -> None:
    documents = [("a", {"uri": "file:///1"}), ("b", {"uri": "file:///2"}), ("a", {"uri": "file:///3"})]
    with bulk_index.open_writer() as (writer, _, _):
        assert writer.write(documents).outcomes == {"a": None, "b": None}
    assert bulk_index.read_uris() == {"a": "file:///3", "b": "file:///2"}


def test_changes_of_missing_documents_count_as_done(bulk_index: BulkIndex) -> None:
    with bulk_index.open_writer(inject_in_order([reject_request(), reject_items()])) as (writer, waits, _):
        writer.write(_build_documents(4))
        changed = writer.update([("000", {"uri": "file:///new"}), ("gone", {"uri": "file:///gone"})]).outcomes
        removed = writer.delete(["001", "003", "never"]).outcomes
    assert changed == {"000": None, "gone": None}
    assert removed == {"001": None, "003": None, "never": None}
    assert len(waits) == 2
    assert bulk_index.read_uris() == {"000": "file:///new", "002": "file:///2"}


def test_each_retry_waits_longer_until_the_run_fails(bulk_index: BulkIndex) -> None:
    plan = inject_always(reject_request())
    with (
        bulk_index.open_writer(plan, BulkPolicy(attempts=5)) as (writer, waits, _),
        pytest.raises(ClusterError, match="429") as caught,
    ):
        writer.write(_build_documents(3))
    assert len(waits) == 4
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits))
    assert "resumes" in caught.value.remedy


def test_retry_after_of_a_cluster_is_respected(bulk_index: BulkIndex) -> None:
    plan = inject_in_order([reject_request(retry_after_s=7), reject_request()])
    with bulk_index.open_writer(plan) as (writer, waits, _):
        assert writer.write(_build_documents(3)).outcomes == _list_written(3)
    requested_s, own_s = waits
    assert 7 <= requested_s <= 8
    assert own_s <= 1


def test_retries_end_after_a_time(bulk_index: BulkIndex) -> None:
    now_s = 1000.0

    def advance_clock(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    policy = BulkPolicy(attempts=10**6, give_up_after_s=60)
    with bulk_index.open_writer(inject_always(reject_request()), policy) as (writer, _, _):
        patient = replace(writer, sleep=advance_clock, clock=lambda: now_s)
        with pytest.raises(ClusterError, match="429"):
            patient.write(_build_documents(3))
    assert now_s == pytest.approx(1060)


def test_documents_rejected_while_others_pass_have_failed(bulk_index: BulkIndex) -> None:
    fault = reject_items(lambda _, id_: id_ == "001", 500, {"type": "null_pointer_exception", "reason": "broken"})
    with bulk_index.open_writer(inject_always(fault), BulkPolicy(attempts=3)) as (writer, _, _):
        outcomes = writer.write(_build_documents(3)).outcomes
    assert "null_pointer_exception: broken" in str(outcomes.pop("001"))
    assert outcomes == {"000": None, "002": None}


@pytest.mark.parametrize("refused", [2, 30])
def test_full_rejection_stops_the_run_without_failed_documents(refused: int, bulk_index: BulkIndex) -> None:
    """As when the primary of one shard is missing: some documents go in, those of this shard don't."""
    unavailable = {"type": "unavailable_shards_exception", "reason": "primary shard is not active"}
    fault = reject_items(lambda _, id_: id_.removeprefix("stair-es-probe-") < f"{refused:03}", 503, unavailable)
    with (
        bulk_index.open_writer(inject_always(fault), BulkPolicy(attempts=3)) as (writer, _, _),
        expect_error("cluster-overloaded") as caught,
    ):
        writer.write(_build_documents(40))
    assert f" {refused} documents" in caught.value.message
    assert unavailable["reason"] in caught.value.message
    assert len(bulk_index.read_uris()) == 40 - refused


def test_a_full_disk_is_waited_for(bulk_index: BulkIndex) -> None:
    bulk_index.put_setting("blocks.read_only_allow_delete", True)
    waits = list[float]()

    def free_disk(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            bulk_index.put_setting("blocks.read_only_allow_delete", None)

    with bulk_index.open_writer() as (writer, _, _):
        assert replace(writer, sleep=free_disk).write(_build_documents(30)).outcomes == _list_written(30)
    assert len(waits) == 3
    assert len(bulk_index.read_uris()) == 30


@pytest.mark.parametrize("count", [3, 100])
def test_full_disk_stops_the_run_with_a_remedy(count: int, bulk_index: BulkIndex) -> None:
    bulk_index.put_setting("blocks.read_only_allow_delete", True)
    with (
        bulk_index.open_writer(policy=BulkPolicy(attempts=3)) as (writer, _, _),
        pytest.raises(ClusterError, match="cluster_block_exception") as caught,
    ):
        writer.write(_build_documents(count))
    assert "disk" in caught.value.remedy


def test_a_closed_index_or_a_missing_pipeline_stops_the_run(bulk_index: BulkIndex) -> None:
    with bulk_index.open_writer() as (writer, waits, _):
        bulk_index.put_setting("default_pipeline", "not-there")
        with expect_error("cluster-accepts-no-documents") as caught:
            writer.write(_build_documents(3))
        assert "not-there" in caught.value.message
        bulk_index.put_setting("default_pipeline", None)
        bulk_index.client.indices.close(index=bulk_index.name)
        with pytest.raises(ClusterError, match="closed"):
            writer.write(_build_documents(3))
    assert waits == []


def test_a_document_that_a_pipeline_drops_fails(bulk_index: BulkIndex) -> None:
    pipelines, name = bulk_index.client.ingest, bulk_index.name
    with bulk_index.open_writer() as (writer, waits, _):
        pipelines.put_pipeline(id=name, body={"processors": [{"drop": {"if": "ctx.uri == null || ctx.uri.endsWith('1')"}}]})
        try:
            bulk_index.put_setting("default_pipeline", name)
            outcomes = writer.write([(id_, {"uri": id_}) for id_ in ("000", "001", "002")]).outcomes
        finally:
            pipelines.delete_pipeline(id=name)
    assert waits == []
    assert "noop" in str(outcomes.pop("001"))
    assert outcomes == {"000": None, "002": None}


def test_unreachable_node_fails_over(node_url: str, bulk_index: BulkIndex) -> None:
    """Three nodes: nobody at the first, the second accepts and never answers in time, the third is well."""
    documents = _build_documents(60)
    with ExitStack() as stack:
        with start_server(lambda _: None) as away:
            pass
        slow = stack.enter_context(FaultProxy(node_url, inject_always(delay_response(1.2)))).url
        cluster = stack.enter_context(Cluster(Connection(url=f"{away},{slow},{node_url}", timeout_s=0.8)))
        writer = BulkWriter(cluster=cluster, index=bulk_index.name, sleep=lambda _: None)
        written = writer.write(documents, chunk_bytes=2000)
    assert written.outcomes == _list_written(60)
    assert bulk_index.read_uris() == _get_uris(documents)
    assert any(not sent.busy for sent in written.requests)


def test_deleted_index_is_not_replaced(bulk_index: BulkIndex) -> None:
    indices, name = bulk_index.client.indices, bulk_index.name
    with bulk_index.open_writer() as (writer, _, _):
        writer.write(_build_documents(3))
        indices.delete(index=name)
        for call in (partial(writer.write, _build_documents(3)), partial(writer.delete, ["001"])):
            with expect_error("write-alias-lost") as caught:
                call()
            assert make_write_alias(name) in caught.value.message
    assert not indices.exists(index=f"{name}*", params={"allow_no_indices": "false"})


def test_actions_of_a_body_are_distinguished() -> None:
    body = b'{"delete":{"_id":"a"}}\n{"index":{"_id":"b"}}\n{"x":1}\n{"delete":{"_id":"c"}}\n'
    assert [(kind, id_) for kind, id_, _ in parse_operations(body)] == [("delete", "a"), ("index", "b"), ("delete", "c")]
    assert b"".join(lines for _, _, lines in parse_operations(body)) == body


@pytest.fixture
def recorded_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that somebody would have waited."""
    waits: list[float] = []
    monkeypatch.setattr("stair_es.retry.time.sleep", waits.append)
    return waits


def _ingest_photos(url: str, alias: str, tmp_path: Path) -> None:
    model, dead_letters = ModelSpec(name="stair-mini"), tmp_path / "failed.jsonl"
    options = IngestOptions(alias=alias, model=model, runner="local", dead_letters=dead_letters)
    run_ingest([open_source(str(PHOTOS / "*.jpg"))], Connection(url=url), options, progress=lambda _: None)


def _search_word(url: str, index: str) -> None:
    with Searcher(Connection(url=url), index, "m-1") as searcher:
        searcher.search(WORD)


def _open_index(cluster: Cluster, alias: str) -> str:
    index_spec = IndexSpec(model_name="m", model_id="m-1", settings={})
    return open_index(cluster, alias, resources.load_json_resource("mappings", "image"), index_spec).name


def test_a_search_waits_some_seconds_for_a_cluster_that_starts(
    node_url: str, client: OpenSearch, index_name: str, recorded_waits: list[float]
) -> None:
    _open_index(Cluster(Connection(url=node_url), client), index_name)
    busy = {"/": 2, f"/{index_name}/_mapping": 3}

    def is_starting(request: Request) -> bool:
        path = request.path.partition("?")[0]
        busy[path] = busy.get(path, 0) - 1
        return busy[path] >= 0

    with FaultProxy(node_url, lambda request: build_gateway_error() if is_starting(request) else None) as proxy:
        _search_word(proxy.url, index_name)
    assert len(recorded_waits) == 5
    assert sum(recorded_waits) < 8


@pytest.mark.parametrize(
    ("run", "count", "most_s"),
    [
        (lambda url, tmp_path: _search_word(url, "photos"), 3, 5),
        (lambda url, tmp_path: _ingest_photos(url, "photos", tmp_path), 7, 60),
    ],
    ids=["search", "ingest"],
)
def test_busy_clusters_are_reported_after_some_attempts(
    run: Callable[[str, Path], None], count: int, most_s: float, recorded_waits: list[float], tmp_path: Path
) -> None:
    with start_server(lambda _: Response.json({}, 503)) as url, expect_error("cluster-unavailable") as caught:
        run(url, tmp_path)
    assert "again" in caught.value.remedy
    assert len(recorded_waits) == count
    assert sum(recorded_waits) < most_s


def test_unreachable_clusters_are_reported_at_once(recorded_waits: list[float]) -> None:
    with start_server(lambda _: None) as url:
        pass
    with Cluster(Connection(url=url, timeout_s=5)) as cluster, expect_error("cluster-unreachable") as caught:
        get_cluster_info(cluster, RetryPolicy())
    assert url in caught.value.message
    assert recorded_waits == []


def test_a_closed_index_is_reported_at_once_with_the_remedy(
    node_url: str, client: OpenSearch, index_name: str, recorded_waits: list[float], tmp_path: Path
) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    name = _open_index(cluster, index_name)
    client.indices.close(index=name)
    with expect_error("index-closed", IndexMismatch) as caught:
        _ingest_photos(node_url, index_name, tmp_path)
    assert f"POST /{name}/_open" in caught.value.remedy
    assert index_name in caught.value.message
    calls: list[Callable[[], object]] = [
        lambda: _search_word(node_url, index_name),
        lambda: read.get_stored_by_id(cluster, name, ["1"]),
    ]
    for call in calls:
        with expect_error("index-closed", ClusterError):
            call()
    assert recorded_waits == []
