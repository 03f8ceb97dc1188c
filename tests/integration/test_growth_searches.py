"""The process that searches while `benchmarks/growth.py` loads ends with the load in any case."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import ModuleType

import pytest


@pytest.fixture
def measure_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of a folder that is no package, which the process imports too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("cluster_growth.measure")


class SearchServer(ThreadingHTTPServer):
    """Answers each query with `{}`, once it may."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested, self.may_answer = Event(), Event()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SearchServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.requested.set()
        self.server.may_answer.wait()
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def search_server() -> Iterator[SearchServer]:
    with SearchServer() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.may_answer.set()
        server.shutdown()


def fail_during_load(measure_module: ModuleType, search_server: SearchServer, query: str, failure: type[BaseException]) -> None:
    with measure_module.search_meanwhile([search_server.url], "photos", {query: [b"{}"]}, 1000):
        assert search_server.requested.wait(60)
        raise failure("the load has failed")


def test_search_times(measure_module: ModuleType, search_server: SearchServer) -> None:
    search_server.may_answer.set()
    with measure_module.search_meanwhile([search_server.url], "photos", {"a cat": [b"{}"], "a dog": [b"{}"]}, 1000) as times:
        assert search_server.requested.wait(60)
    assert times["a cat"]
    assert all(each > 0 for each in times["a cat"])
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failed_loads_do_not_wait_for_times(
    measure_module: ModuleType, search_server: SearchServer, failure: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    search_server.may_answer.set()
    longer_than_a_pipe = "a cat" * 100_000  # as many times are: nobody reads them, and the process would wait for that
    with pytest.raises(failure):
        fail_during_load(measure_module, search_server, longer_than_a_pipe, failure)
    assert multiprocessing.active_children() == []
    assert capfd.readouterr().err == ""


def test_unanswered_queries_do_not_delay_the_end(
    measure_module: ModuleType, search_server: SearchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure_module, "_END_S", 0.05)
    with pytest.raises(RuntimeError, match="has failed"):
        fail_during_load(measure_module, search_server, "a cat", RuntimeError)
    assert multiprocessing.active_children() == []
