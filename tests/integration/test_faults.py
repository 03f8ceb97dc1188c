"""Clusters that are absent, foreign, locked or failing: real HTTP servers on loopback, one of them a proxy to the node."""

from __future__ import annotations

import base64
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.bulk_faults import (
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
from stair_es.cluster.bulk.writer import BulkPolicy, BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    NotASearchCluster,
    UnsupportedTarget,
    UsageError,
)
from stair_es.retry import RetryPolicy


def _probe(url: str) -> str:
    connection = Connection(url=url, timeout_s=5)
    cluster = Cluster(connection)
    try:
        return get_cluster_info(cluster).label
    finally:
        cluster.close()


def test_the_real_node_is_recognised(node_url: str) -> None:
    connection = Connection(url=node_url)
    cluster = Cluster(connection)
    target = get_cluster_info(cluster)
    cluster.close()
    assert (target.label, target.max_clauses) == ("OpenSearch 3.8.0", 1024)


@pytest.mark.parametrize("url", ["", "localhost:9200", "ftp://localhost", "http://", "http://host:port", "http://[bad"])
def test_an_invalid_url_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="not a cluster URL"):
        Connection(url=url)


def test_an_unreachable_server_is_reported() -> None:
    with start_server(lambda _: None) as url:
        pass
    with pytest.raises(ClusterUnreachable, match=url):
        _probe(url)


@pytest.mark.parametrize(
    "answer",
    [
        Response(kind="text/html", body=b"<h1>welcome</h1>"),
        Response(status=404, kind="text/html", body=b"<h1>not here</h1>"),
        Response(body=b'{"hello": "world"}'),
        Response(body=b'{"version": {"number": "1.0"}}'),
        Response(body=b'["list"]'),
        Response(body=b'{"version": '),
        Response(kind="text/plain"),
    ],
)
def test_another_server_is_reported(answer: Response) -> None:
    with start_server(lambda _: answer) as url, pytest.raises(NotASearchCluster, match=r"127\.0\.0\.1"):
        _probe(url)


def test_too_old_a_cluster() -> None:
    old = {"version": {"number": "7.10.2", "lucene_version": "8.7.0"}}
    with (
        start_server(lambda _: Response.json(old)) as url,
        pytest.raises(UnsupportedTarget, match=r"Elasticsearch 7\.10\.2.*7\.12"),
    ):
        _probe(url)


def _locked(node_url: str) -> Callable[[Request], MaybeResponse]:
    wanted = "Basic " + base64.b64encode(b"anna:s@fe:word").decode()
    send = build_forwarder(node_url)

    def answer(request: Request) -> MaybeResponse:
        admitted = request.headers.get("authorization") == wanted
        return send(request) if admitted else Response.json({"error": "who are you?"}, 401)

    return answer


def test_url_login_is_used_and_not_shown(node_url: str) -> None:
    with start_server(_locked(node_url)) as url:
        host = url.removeprefix("http://")
        assert _probe(f"http://anna:s%40fe%3Aword@{host}") == "OpenSearch 3.8.0"
        for wrong in (url, f"http://anna:hunter2@{host}"):
            with pytest.raises(AuthenticationFailed, match="401") as caught:
                _probe(wrong)
            assert "hunter2" not in str(caught.value)


def _create(client: OpenSearch, index: str) -> None:
    client.indices.create(
        index=index, body={**resources.load_json_resource("mappings", "image"), "aliases": {make_write_alias(index): {}}}
    )


def _documents(count: int) -> list[tuple[str, dict[str, Any]]]:
    vectors = [SparseVector.from_mapping({f"w{i}": 0.5, "all": 1.0}) for i in range(count)]
    return [(f"{i:03}", {"tokens": vector.to_dict(), "uri": f"file:///{i}"}) for i, vector in enumerate(vectors)]


@contextmanager
def _writer(
    node_url: str, index: str, plan: Plan, policy: BulkPolicy | None = None, timeout_s: float = 10
) -> Iterator[tuple[BulkWriter, list[float], Counter[str]]]:
    """A writer through the proxy that doesn't really wait; its waits; the faults that it met."""
    waits = list[float]()
    with FaultProxy(node_url, plan) as proxy:
        connection = Connection(url=proxy.url, timeout_s=timeout_s)
        cluster = Cluster(connection)
        try:
            writer = BulkWriter(cluster=cluster, index=index, policy=policy or BulkPolicy(), sleep=waits.append)
            yield writer, waits, proxy.counts
        finally:
            cluster.close()


def _pass(_: Request) -> None:
    return None


def _names(documents: list[tuple[str, dict[str, Any]]]) -> dict[str, str | None]:
    return dict.fromkeys(id_ for id_, _ in documents)


def _stored(client: OpenSearch, index: str) -> dict[str, str]:
    """`{_id: uri}` of all that is there."""
    client.indices.refresh(index=index)
    found = client.search(index=index, body={"size": 10_000, "_source": ["uri"]})["hits"]["hits"]
    assert len(found) == len({hit["_id"] for hit in found})
    return {hit["_id"]: hit["_source"]["uri"] for hit in found}


def _uris(documents: list[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    return {id_: source["uri"] for id_, source in documents}


@pytest.mark.parametrize("fault", list_retried_faults(slow_s=0.4), ids=lambda fault: fault.name)
@pytest.mark.parametrize("times", [1, 3])
def test_temporary_faults_lose_and_duplicate_nothing(
    fault: Fault, times: int, node_url: str, client: OpenSearch, index_name: str
) -> None:
    _create(client, index_name)
    documents = _documents(50)
    timeout_s = 0.3 if fault.name == "slow" else 10
    with _writer(node_url, index_name, inject_in_order([fault] * times), BulkPolicy(max_chunk_docs=20), timeout_s) as (
        writer,
        waits,
        met,
    ):
        written = writer.write(documents)
    assert written.outcomes == _names(documents)
    assert _stored(client, index_name) == _uris(documents)
    assert len(waits) == times == met[fault.name] == sum(sent.busy for sent in written.requests)
    assert len(written.requests) == met.total()


@pytest.mark.parametrize("fault", list_harmless_faults(), ids=lambda fault: fault.name)
def test_unusual_complete_responses_are_accepted(fault: Fault, node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(50)
    with _writer(node_url, index_name, inject_always(fault), BulkPolicy(max_chunk_docs=20)) as (writer, waits, met):
        assert writer.write(documents).outcomes == _names(documents)
    assert _stored(client, index_name) == _uris(documents)
    assert (waits, met) == ([], {fault.name: 3})


@pytest.mark.parametrize("fault", list_fatal_faults(), ids=lambda fault: fault.name)
def test_permanent_errors_stop_the_run_at_once(fault: Fault, node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(50)
    plan = inject_in_order([None, fault])
    with _writer(node_url, index_name, plan, BulkPolicy(max_chunk_docs=20)) as (writer, waits, met):
        with pytest.raises(ClusterError, match=fault.name):
            writer.write(documents)
        assert (waits, met) == ([], {"passed": 1, fault.name: 1})
        assert writer.write(documents).outcomes == _names(documents)
    assert _stored(client, index_name) == _uris(documents)


@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 3)])
def test_all_faults_together_lose_and_duplicate_nothing(
    seed: int, threads: int, node_url: str, client: OpenSearch, index_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _create(client, index_name)
    documents = _documents(400)
    poison = {"013", "217"}
    for position in map(int, poison):
        documents[position][1]["width"] = "wide"
    faults = list_all_faults(slow_s=0.8, limit=800)
    plan = RandomFaults(seed, share=0.8, faults=faults)
    start = time.perf_counter()
    with _writer(node_url, index_name, plan, BulkPolicy(max_chunk_docs=20), timeout_s=0.6) as (writer, _, met):
        outcomes: dict[str, str | None] = {}
        parts = [documents[begin : begin + 100] for begin in range(0, len(documents), 100)]
        with ThreadPoolExecutor(threads) as pool:
            for written in pool.map(lambda part: writer.write(part, chunk_bytes=1000), parts):
                outcomes |= written.outcomes
        removed = writer.delete([f"{i:03}" for i in range(100)]).outcomes
    with capsys.disabled():
        sys.stdout.write(f"\nstorm {seed}: {time.perf_counter() - start:.1f} s, {dict(met.most_common())}\n")
    assert {id_ for id_, reason in outcomes.items() if reason} == poison
    assert len(outcomes) == 400
    assert removed == {f"{i:03}": None for i in range(100)}
    assert _stored(client, index_name) == {id_: uri for id_, uri in _uris(documents[100:]).items() if id_ not in poison}
    assert set(met) == {"passed", *(fault.name for fault in faults)}


def test_too_large_requests_are_split_down_to_the_document(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(40)
    documents[17][1]["caption"] = "long " * 1000
    with _writer(node_url, index_name, inject_always(limit_body(1000))) as (writer, waits, _):
        written = writer.write(documents)
    refused = written.outcomes.pop("017")
    assert refused is not None
    assert "413" in refused
    assert set(written.outcomes.values()) == {None}
    assert len(_stored(client, index_name)) == 39
    assert waits == []
    assert {sent.size_bytes > 1000 for sent in written.requests if sent.too_large} == {True}
    assert len(written.requests) < 30  # what was learned from the first refusal holds for the rest of the call


def test_caller_sets_the_request_size(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, _pass) as (writer, _, met):
        small = writer.write(_documents(50), chunk_bytes=1000).requests
        large = writer.write(_documents(50)).requests
    assert len(small) > 3
    assert all(0 < sent.size_bytes <= 1000 and sent.seconds > 0 for sent in small)
    assert [sent.documents for sent in large] == [50]
    assert sum(sent.documents for sent in small) == 50
    assert met == {"passed": len(small) + 1}


def test_poison_is_isolated_and_named(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(10)
    documents[3][1]["tokens"] = {"dog": 0.0}
    documents[7][1]["width"] = "wide"
    documents[8][1]["caption"] = "\ud800"
    with _writer(node_url, index_name, _pass) as (writer, waits, _):
        outcomes = writer.write(documents).outcomes
    refused = {id_: reason for id_, reason in outcomes.items() if reason}
    assert set(refused) == {"003", "007", "008"}
    assert "width" in refused["007"]
    assert "not JSON" in refused["008"]
    assert waits == []


def test_document_that_breaks_a_request_is_found(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(40)
    too_long = "x" * 600  # a node refuses the request for an _id of more than 512 bytes
    documents.insert(23, (too_long, documents[0][1]))
    with _writer(node_url, index_name, _pass) as (writer, waits, _):
        outcomes = writer.write(documents).outcomes
    refused = outcomes.pop(too_long)
    assert refused is not None
    assert "can't read it" in refused
    assert outcomes == {f"{i:03}": None for i in range(40)}
    assert len(_stored(client, index_name)) == 40
    assert waits == []


def test_rejected_requests_do_not_fail_documents(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    no = Response.json({"error": {"type": "illegal_argument_exception", "reason": "unknown parameter"}}, 400)
    refuse = inject_always(Fault("400", lambda request, send: no))
    with _writer(node_url, index_name, refuse) as (writer, _, met), pytest.raises(ClusterError, match="unknown parameter"):
        writer.write(_documents(30))
    assert met == {"400": 2}


def test_of_several_documents_with_one_id_the_last_counts(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = [("a", {"uri": "file:///1"}), ("b", {"uri": "file:///2"}), ("a", {"uri": "file:///3"})]
    with _writer(node_url, index_name, _pass) as (writer, _, _):
        assert writer.write(documents).outcomes == {"a": None, "b": None}
    assert _stored(client, index_name) == {"a": "file:///3", "b": "file:///2"}


def test_updates_and_deletions_of_missing_documents_count_as_done(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, inject_in_order([reject_request(), reject_items()])) as (writer, waits, _):
        writer.write(_documents(4))
        changed = writer.update([("000", {"uri": "file:///new"}), ("gone", {"uri": "file:///gone"})]).outcomes
        removed = writer.delete(["001", "003", "never"]).outcomes
    assert changed == {"000": None, "gone": None}
    assert removed == {"001": None, "003": None, "never": None}
    assert len(waits) == 2
    assert _stored(client, index_name) == {"000": "file:///new", "002": "file:///2"}


def test_busy_to_the_last_attempt_fails_the_run_and_waits_longer_each_time(node_url: str, index_name: str) -> None:
    with (
        _writer(node_url, index_name, inject_always(reject_request()), BulkPolicy(attempts=5)) as (writer, waits, _),
        pytest.raises(ClusterError, match="429") as caught,
    ):
        writer.write(_documents(3))
    assert len(waits) == 4
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits))
    assert "resumes where this run stopped" in caught.value.remedy


def test_retry_after_of_a_cluster_is_respected(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, inject_in_order([reject_request(retry_after_s=7), reject_request()])) as (
        writer,
        waits,
        _,
    ):
        assert writer.write(_documents(3)).outcomes == {f"{i:03}": None for i in range(3)}
    asked_s, own_s = waits
    assert 7 <= asked_s <= 8
    assert own_s <= 1


def test_patience_ends_in_time_too(node_url: str, index_name: str) -> None:
    now_s = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    with FaultProxy(node_url, inject_always(reject_request())) as proxy:
        connection = Connection(url=proxy.url, timeout_s=5)
        writer = BulkWriter(
            cluster=Cluster(connection),
            index=index_name,
            policy=BulkPolicy(attempts=10**6, give_up_after_s=60),
            sleep=sleep,
            clock=lambda: now_s,
        )
        with pytest.raises(ClusterError, match="429"):
            writer.write(_documents(3))
        writer.cluster.close()
    assert now_s == pytest.approx(1060)


def test_documents_rejected_while_others_pass_have_failed(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    stubborn = reject_items(lambda _, id_: id_ == "001", 500, {"type": "null_pointer_exception", "reason": "broken"})
    with _writer(node_url, index_name, inject_always(stubborn), BulkPolicy(attempts=3)) as (writer, _, _):
        outcomes = writer.write(_documents(3)).outcomes
    reason = outcomes.pop("001")
    assert reason is not None
    assert "null_pointer_exception: broken" in reason
    assert outcomes == {"000": None, "002": None}


@pytest.mark.parametrize("refused", [2, 30])
def test_full_rejection_stops_the_run_without_failed_documents(
    refused: int, node_url: str, client: OpenSearch, index_name: str
) -> None:
    """As when the primary of one shard is missing: some documents go in, those of this shard don't."""
    _create(client, index_name)
    away = reject_items(
        lambda _, id_: id_.removeprefix("stair-es-probe-") < f"{refused:03}",
        503,
        {"type": "unavailable_shards_exception", "reason": "primary shard is not active"},
    )
    with (
        _writer(node_url, index_name, inject_always(away), BulkPolicy(attempts=3)) as (writer, _, _),
        pytest.raises(ClusterError, match=f"does not accept {refused} documents.*primary shard is not active"),
    ):
        writer.write(_documents(40))
    assert len(_stored(client, index_name)) == 40 - refused


def _block(client: OpenSearch, index: str, value: bool | None) -> None:
    client.indices.put_settings(index=index, body={"index.blocks.read_only_allow_delete": value})


def test_a_full_disk_is_waited_for(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    _block(client, index_name, True)
    with _writer(node_url, index_name, _pass) as (writer, _, _):
        waits = list[float]()

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                _block(client, index_name, None)

        patient = BulkWriter(cluster=writer.cluster, index=index_name, sleep=sleep)
        assert patient.write(_documents(30)).outcomes == {f"{i:03}": None for i in range(30)}
    assert len(waits) == 3
    assert len(_stored(client, index_name)) == 30


@pytest.mark.parametrize("count", [3, 100])
def test_full_disk_stops_the_run_with_a_remedy(count: int, node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    _block(client, index_name, True)
    with (
        _writer(node_url, index_name, _pass, BulkPolicy(attempts=3)) as (writer, _, _),
        pytest.raises(ClusterError, match="cluster_block_exception") as caught,
    ):
        writer.write(_documents(count))
    assert "disk" in caught.value.remedy


def test_a_closed_index_or_a_missing_pipeline_stops_the_run(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, _pass) as (writer, waits, _):
        client.indices.put_settings(index=index_name, body={"index.default_pipeline": "not-there"})
        with pytest.raises(ClusterError, match="pipeline with id"):
            writer.write(_documents(3))
        client.indices.put_settings(index=index_name, body={"index.default_pipeline": None})
        client.indices.close(index=index_name)
        with pytest.raises(ClusterError, match="closed"):
            writer.write(_documents(3))
    assert waits == []


def test_a_document_that_a_pipeline_drops_fails(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, _pass) as (writer, waits, _):
        client.ingest.put_pipeline(
            id=index_name, body={"processors": [{"drop": {"if": "ctx.uri == null || ctx.uri.endsWith('1')"}}]}
        )
        try:
            client.indices.put_settings(index=index_name, body={"index.default_pipeline": index_name})
            outcomes = writer.write([(id_, {"uri": id_}) for id_ in ("000", "001", "002")]).outcomes
        finally:
            client.ingest.delete_pipeline(id=index_name)
    assert waits == []
    assert outcomes == {"000": None, "001": "an ingest pipeline of the index dropped it (result: noop)", "002": None}


def test_unreachable_node_fails_over(node_url: str, client: OpenSearch, index_name: str) -> None:
    """Three nodes: nobody at the first, the second accepts and never answers in time, the third is well."""
    _create(client, index_name)
    documents = _documents(60)
    with ExitStack() as stack:
        with start_server(lambda _: None) as away:
            pass
        sleepy = stack.enter_context(FaultProxy(node_url, inject_always(delay_response(1.2)))).url
        cluster = stack.enter_context(Cluster(Connection(url=f"{away},{sleepy},{node_url}", timeout_s=0.8)))
        writer = BulkWriter(cluster=cluster, index=index_name, sleep=lambda _: None)
        written = writer.write(documents, chunk_bytes=2000)
    assert written.outcomes == _names(documents)
    assert _stored(client, index_name) == _uris(documents)
    assert any(not sent.busy for sent in written.requests)


def test_deleted_index_is_not_replaced(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, _pass) as (writer, _, _):
        writer.write(_documents(3))
        client.indices.delete(index=index_name)
        for call in (partial(writer.write, _documents(3)), partial(writer.delete, ["001"])):
            with pytest.raises(ClusterError, match=f"no longer has the alias '{index_name}.write'"):
                call()
    assert not client.indices.exists(index=f"{index_name}*", params={"allow_no_indices": "false"})


def test_actions_of_a_body_are_distinguished() -> None:
    body = b'{"delete":{"_id":"a"}}\n{"index":{"_id":"b"}}\n{"x":1}\n{"delete":{"_id":"c"}}\n'
    assert [(kind, id_) for kind, id_, _ in parse_operations(body)] == [("delete", "a"), ("index", "b"), ("delete", "c")]
    assert b"".join(lines for _, _, lines in parse_operations(body)) == body


@pytest.mark.parametrize(("failures", "passes"), [(2, True), (3, False)])
def test_reading_the_ledger_and_refreshing_are_repeated_too(failures: int, passes: bool) -> None:
    left = failures

    def answer(_: Request) -> MaybeResponse:
        nonlocal left
        left -= 1
        return Response.json({}, 503) if left >= 0 else Response.json({"docs": []})

    waits = list[float]()
    with start_server(answer) as url:
        cluster = Cluster(Connection(url=url, timeout_s=5), sleep=waits.append)
        call = partial(cluster.call, cluster.client.mget, body={}, retry=RetryPolicy(attempts=3))
        if passes:
            assert call() == {"docs": []}
        else:
            with pytest.raises(ClusterError, match="503"):
                call()
        cluster.close()
    assert len(waits) == 2
