"""Whole ingests from two hosts, of which one asks to wait: it is waited for while the other one goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from support.corpora.ingest_sources import ListSource
from support.servers.fault_proxy import Request, Response, start_server

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions, UrlPolicy
from stair_es.sources.http.locator import UrlLocator

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
Run = Callable[..., IngestReport]


@dataclass
class RateLimitedServer:
    """A server under two names; what it says under each is up to the test."""

    asks_to_wait: Callable[[str, int], float | None] = lambda name, count: None
    """Path and how many requests there were for the host before -> the Retry-After of the answer; None for the image."""
    requests: list[tuple[float, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer(self, request: Request) -> Response:
        with self.lock:
            host, path = request.path[1], request.path
            wait_s = self.asks_to_wait(path, sum(asked[1] == host for _, asked in self.requests))
            self.requests.append((time.monotonic(), path))
        if wait_s is not None:
            return Response(status=429, headers={"retry-after": f"{wait_s:.0f}"})
        return Response(kind="image/jpeg", body=PHOTOS[int(path[2:-4])].read_bytes())

    def items(self, host: Literal["a", "b"], count: int) -> list[SourceItem | ListingFailure]:
        """The images of one host."""
        base = self.url if host == "a" else self.url.replace("127.0.0.1", "127.1")
        urls = [f"{base}/{host}{number}.jpg" for number in range(count)]
        return [SourceItem(url, "given:", UrlLocator(url)) for url in urls]


@pytest.fixture
def site() -> Iterator[RateLimitedServer]:
    server = RateLimitedServer()
    with start_server(server.answer) as server.url:
        yield server


@pytest.fixture
def options(index_name: str, tmp_path: Path) -> IngestOptions:
    return IngestOptions(
        alias=index_name,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        runner="local",
        batch_images=4,
        dead_letters=tmp_path / "letters.jsonl",
    )


@pytest.fixture
def run(node_url: str, options: IngestOptions) -> Run:
    def run_(
        items: list[SourceItem | ListingFailure],
        patience_s: float,
        progress: Callable[[RunAccounting], None] = lambda _: None,
        **more: object,
    ) -> IngestReport:
        read_limits = ReadLimits(url_policy=UrlPolicy(allow_private=True, patience_s=patience_s))
        chosen = replace(options, source=SourceOptions(read_limits=read_limits), **more)  # type: ignore[arg-type]
        return run_ingest([ListSource(items)], Connection(url=node_url), chosen, progress=progress)

    return run_


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_retry_after_loses_no_image_and_delays_no_other_host(site: RateLimitedServer, run: Run, runner: str) -> None:
    rest_s, began, waiting = 3.0, list[float](), list[str]()

    def asks_to_wait(path: str, _: int) -> float | None:
        if path.startswith("/b"):
            return None
        began.append(time.monotonic())
        return rest_s if sum(path.startswith("/b") for _, path in site.requests) < 20 else None

    site.asks_to_wait = asks_to_wait
    mixed = [item for pair in zip(site.items("a", 20), site.items("b", 20), strict=True) for item in pair]
    report = run(mixed, 60.0, progress=lambda accounting: waiting.append(accounting.waiting_message), runner=runner)
    assert (report.seen, report.written, report.failed) == (40, 40, 0)  # b's images are read while a's wait, or none of a's is
    assert sum(at < began[0] + rest_s for at in began) <= 10  # one of each batch that was under way
    assert any(text.startswith("waiting ") and " s for 127.0.0.1 (" in text for text in waiting)
    assert waiting[-1] == ""


def test_endless_retry_after_fails_with_a_reason(site: RateLimitedServer, run: Run) -> None:
    site.asks_to_wait = lambda path, _: 1.0 if path.startswith("/a") else None
    report = run(site.items("a", 6) + site.items("b", 6), 3.0)
    assert (report.seen, report.written, report.failed) == (12, 6, 6)
    [reason] = report.failure_reasons
    assert (reason.stage, reason.images) == ("read", 6)
    assert reason.reason == "127.0.0.1: 429 Too Many Requests, asks to wait 1 s, after 3 s of waiting for the host"
    asked = [at for at, path in site.requests if path.startswith("/a")]
    assert 2.9 < max(asked) - min(asked) < 120

    site.asks_to_wait = lambda path, _: None
    again = run(site.items("a", 6) + site.items("b", 6), 3.0)
    assert (again.written, again.unchanged, again.failed) == (6, 6, 0)


def test_one_url_with_an_endless_retry_after_fails_alone(site: RateLimitedServer, run: Run) -> None:
    site.asks_to_wait = lambda path, _: 99999999999 if path == "/a3.jpg" else None
    report = run(site.items("a", 24), 2.0)
    assert (report.seen, report.written, report.failed) == (24, 23, 1)
    assert report.failure_reasons[0].reason == (
        "127.0.0.1: 429 Too Many Requests, asks to wait 99999999999 s, after 2 s of waiting for the host"
    )


def test_a_run_that_waits_for_a_host_can_be_interrupted(site: RateLimitedServer, run: Run) -> None:
    site.asks_to_wait = lambda path, _: 600.0
    timers: list[threading.Timer] = []
    interrupted: list[float] = []

    def interrupt() -> None:
        interrupted.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt_soon(accounting: RunAccounting) -> None:
        if accounting.waiting_message and not timers:
            timers.append(threading.Timer(0.3, interrupt))
            timers[0].start()

    with pytest.raises(KeyboardInterrupt):
        run(site.items("a", 10), 600.0, progress=interrupt_soon)
    assert time.monotonic() - interrupted[0] < 120
