"""Clusters that are absent, foreign, locked or failing: real HTTP servers on loopback, one of them a proxy to the node."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from stair_es import SparseVector, resources
from stair_es.cluster.bulk import BulkPolicy, BulkWriter
from stair_es.cluster.connect import Connection, probe
from stair_es.cluster.retry import RetryPolicy, persistently
from stair_es.errors import (
    AuthenticationFailed,
    ClusterError,
    ClusterUnreachable,
    NotASearchCluster,
    UnsupportedTarget,
    UsageError,
)

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Answer = tuple[int, str, bytes] | None
"""Status, content type, body; None cuts the connection without an answer."""


@contextmanager
def _server(answer: Callable[[str, str, dict[str, str], bytes], Answer]) -> Iterator[str]:
    """The URL of a server that answers `answer(method, path, headers, body)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            given = answer(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            if given is None:
                self.close_connection = True
                return
            status, kind, data = given
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _probe(url: str) -> str:
    connection = Connection(url=url, timeout_s=5)
    client = connection.client()
    try:
        return probe(client, connection).label
    finally:
        client.close()


def _json(status: int, value: object) -> Answer:
    return status, "application/json", json.dumps(value).encode()


def test_the_real_node_is_recognised(node_url: str) -> None:
    connection = Connection(url=node_url)
    client = connection.client()
    target = probe(client, connection)
    client.close()
    assert (target.label, target.max_clauses) == ("OpenSearch 3.8.0", 1024)


@pytest.mark.parametrize("url", ["", "localhost:9200", "ftp://localhost", "http://", "http://host:port", "http://[bad"])
def test_what_is_no_url_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="not a cluster URL"):
        Connection(url=url)


def test_nobody_there() -> None:
    with _server(lambda *_: None) as url:
        pass
    with pytest.raises(ClusterUnreachable, match=url):
        _probe(url)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<h1>welcome</h1>"),
        (404, "text/html", b"<h1>not here</h1>"),
        (200, "application/json", b'{"hello": "world"}'),
        (200, "application/json", b'{"version": {"number": "1.0"}}'),
        (200, "application/json", b'["list"]'),
        (200, "application/json", b'{"version": '),
        (200, "text/plain", b""),
    ],
)
def test_something_else_there(answer: Answer) -> None:
    with _server(lambda *_: answer) as url, pytest.raises(NotASearchCluster, match=r"127\.0\.0\.1"):
        _probe(url)


def test_too_old_a_cluster() -> None:
    old = {"version": {"number": "7.10.2", "lucene_version": "8.7.0"}}
    with _server(lambda *_: _json(200, old)) as url, pytest.raises(UnsupportedTarget, match=r"Elasticsearch 7\.10\.2.*7\.12"):
        _probe(url)


def _locked(node_url: str) -> Callable[[str, str, dict[str, str], bytes], Answer]:
    wanted = "Basic " + base64.b64encode(b"anna:s@fe:word").decode()
    forward = _forward(node_url)

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        return forward(method, path, body) if headers.get("authorization") == wanted else _json(401, {"error": "who are you?"})

    return answer


def test_a_login_is_taken_from_the_url_and_never_shown(node_url: str) -> None:
    with _server(_locked(node_url)) as url:
        host = url.removeprefix("http://")
        assert _probe(f"http://anna:s%40fe%3Aword@{host}") == "OpenSearch 3.8.0"
        for wrong in (url, f"http://anna:hunter2@{host}"):
            with pytest.raises(AuthenticationFailed, match="401") as caught:
                _probe(wrong)
            assert "hunter2" not in str(caught.value)


def _forward(node_url: str) -> Callable[[str, str, bytes], Answer]:
    parts = urlsplit(node_url)

    def forward(method: str, path: str, body: bytes) -> Answer:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, path, body or None, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, "application/json", response.read()
        finally:
            connection.close()

    return forward


Fault = Callable[[Callable[[bytes], Answer], bytes], Answer]
"""What the proxy makes of a bulk request: gets the way to the node, and the body."""


def _busy(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    return _json(429, {"error": {"reason": "too many requests"}})


def _unavailable(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    return 503, "text/html", b"<h1>upstream gone</h1>"


def _cut(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    return None


def _lost_answer(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    send(body)
    return None


def _page(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    """A gateway that answers 200 with a page."""
    return 200, "application/json", b"<html>one moment please</html>"


def _list(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    return _json(200, [])


def _half_busy(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    """Every other document is refused with 429, the rest is written."""
    lines = body.splitlines(keepends=True)
    operations = [lines[i] + lines[i + 1] for i in range(0, len(lines), 2)]
    answer = send(b"".join(operations[::2]))
    assert answer is not None
    items = json.loads(answer[2])["items"]
    for operation in operations[1::2]:
        id_ = json.loads(operation.splitlines()[0])["index"]["_id"]
        items.append({"index": {"_id": id_, "status": 429, "error": {"type": "rejected", "reason": "queue full"}}})
    return _json(200, {"items": items})


def _half_answer(send: Callable[[bytes], Answer], body: bytes) -> Answer:
    """Everything is written, half of it is mentioned."""
    answer = send(body)
    assert answer is not None
    items = json.loads(answer[2])["items"]
    return _json(200, {"items": items[: len(items) // 2]})


def _create(client: OpenSearch, alias: str) -> None:
    client.indices.create(index=f"{alias}-1", body={**resources.load("mappings", "image"), "aliases": {alias: {}}})


def _documents(count: int) -> list[tuple[str, dict[str, Any]]]:
    vectors = [SparseVector.from_mapping({f"w{i}": 0.5, "all": 1.0}) for i in range(count)]
    return [(f"{i:03}", {"tokens": vector.to_dict(), "uri": f"file:///{i}"}) for i, vector in enumerate(vectors)]


@contextmanager
def _writer(node_url: str, index: str, answer: Fault, policy: BulkPolicy) -> Iterator[tuple[BulkWriter, list[float]]]:
    forward, waits = _forward(node_url), list[float]()

    def proxy(method: str, path: str, _: dict[str, str], body: bytes) -> Answer:
        return answer(lambda data: forward(method, path, data), body)

    with _server(proxy) as url:
        connection = Connection(url=url, timeout_s=10)
        client = connection.client()
        try:
            yield BulkWriter(client=client, connection=connection, alias=index, policy=policy, sleep=waits.append), waits
        finally:
            client.close()


@pytest.mark.parametrize("fault", [_busy, _unavailable, _cut, _lost_answer, _page, _list, _half_busy, _half_answer])
@pytest.mark.parametrize("times", [1, 3])
def test_faults_that_pass_lose_nothing_and_double_nothing(
    fault: Fault, times: int, node_url: str, client: OpenSearch, index_name: str
) -> None:
    _create(client, index_name)
    left = times

    def answer(send: Callable[[bytes], Answer], body: bytes) -> Answer:
        nonlocal left
        left -= 1
        return fault(send, body) if left >= 0 else send(body)

    with _writer(node_url, index_name, answer, BulkPolicy(max_chunk_docs=20)) as (writer, waits):
        outcomes = writer.write(_documents(50))
    assert outcomes == {f"{i:03}": None for i in range(50)}
    assert len(waits) >= 1
    client.indices.refresh(index=index_name)
    assert client.count(index=index_name)["count"] == 50


def test_too_large_requests_are_split_down_to_the_document(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(40)
    documents[17][1]["caption"] = "long " * 1000

    def answer(send: Callable[[bytes], Answer], body: bytes) -> Answer:
        return send(body) if len(body) < 1000 else (413, "text/plain", b"too large")

    with _writer(node_url, index_name, answer, BulkPolicy()) as (writer, _):
        outcomes = writer.write(documents)
    refused = outcomes.pop("017")
    assert refused is not None
    assert "413" in refused
    assert set(outcomes.values()) == {None}
    client.indices.refresh(index=index_name)
    assert client.count(index=index_name)["count"] == 39


def test_poison_is_isolated_and_named(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    documents = _documents(10)
    documents[3][1]["tokens"] = {"dog": 0.0}
    documents[7][1]["width"] = "wide"
    with _writer(node_url, index_name, lambda send, body: send(body), BulkPolicy()) as (writer, waits):
        outcomes = writer.write(documents)
    refused = {id_: reason for id_, reason in outcomes.items() if reason}
    assert set(refused) == {"003", "007"}
    assert "width" in refused["007"]
    assert waits == []


def test_busy_to_the_last_attempt_fails_the_run_and_waits_longer_each_time(node_url: str, index_name: str) -> None:
    with (
        _writer(node_url, index_name, _busy, BulkPolicy(attempts=5)) as (writer, waits),
        pytest.raises(ClusterError, match="429"),
    ):
        writer.write(_documents(3))
    assert len(waits) == 4
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits))


def test_documents_refused_as_busy_to_the_last_attempt_are_named(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)

    def answer(send: Callable[[bytes], Answer], body: bytes) -> Answer:
        lines = body.splitlines(keepends=True)
        good = b"".join(lines[i] + lines[i + 1] for i in range(0, len(lines), 2) if b'"001"' not in lines[i])
        given = send(good) if good else _json(200, {"items": []})
        assert given is not None
        items = json.loads(given[2]).get("items", [])
        if b'"001"' in body:
            items.append({"index": {"_id": "001", "status": 429, "error": {"type": "rejected", "reason": "queue full"}}})
        return _json(200, {"items": items})

    with _writer(node_url, index_name, answer, BulkPolicy(attempts=3)) as (writer, _):
        outcomes = writer.write(_documents(3))
    assert outcomes == {"000": None, "001": "HTTP 429: rejected: queue full", "002": None}


def test_a_deleted_index_does_not_come_back_as_another(node_url: str, client: OpenSearch, index_name: str) -> None:
    _create(client, index_name)
    with _writer(node_url, index_name, lambda send, body: send(body), BulkPolicy()) as (writer, _):
        writer.write(_documents(3))
        client.indices.delete(index=f"{index_name}-1")
        with pytest.raises(ClusterError, match=f"no alias '{index_name}' any more"):
            writer.write(_documents(3))
    assert not client.indices.exists(index=index_name)


@pytest.mark.parametrize(("failures", "passes"), [(2, True), (3, False)])
def test_reading_the_ledger_and_refreshing_are_repeated_too(failures: int, passes: bool) -> None:
    left = failures

    def answer(*_: object) -> Answer:
        nonlocal left
        left -= 1
        return _json(503, {}) if left >= 0 else _json(200, {"docs": []})

    waits = list[float]()
    with _server(answer) as url:
        connection = Connection(url=url, timeout_s=5)
        client = connection.client()
        call = partial(persistently, lambda: client.mget(body={}), connection, RetryPolicy(attempts=3), waits.append)
        if passes:
            assert call() == {"docs": []}
        else:
            with pytest.raises(ClusterError, match="503"):
                call()
        client.close()
    assert len(waits) == 2
