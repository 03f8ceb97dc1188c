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
IngestItems = Callable[..., IngestReport]


@dataclass
class RateLimitedServer:
    """A server under two names; the test sets what it answers under each."""

    get_retry_after: Callable[[str], float | None] = lambda path: None
    """Returns the Retry-After of the response for a path; None for the image."""
    requests: list[tuple[float, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer_request(self, request: Request) -> Response:
        with self.lock:
            wait_s = self.get_retry_after(request.path)
            self.requests.append((time.monotonic(), request.path))
        if wait_s is not None:
            return Response(status=429, headers={"retry-after": f"{wait_s:.0f}"})
        return Response(kind="image/jpeg", body=PHOTOS[int(request.path[2:-4])].read_bytes())

    def list_items(self, host: Literal["a", "b"], count: int) -> list[SourceItem | ListingFailure]:
        """List the images of one host."""
        base = self.url if host == "a" else self.url.replace("127.0.0.1", "127.1")
        urls = [f"{base}/{host}{number}.jpg" for number in range(count)]
        return [SourceItem(url, "given:", UrlLocator(url)) for url in urls]


@pytest.fixture
def rate_limited_server() -> Iterator[RateLimitedServer]:
    server = RateLimitedServer()
    with start_server(server.answer_request) as server.url:
        yield server


@pytest.fixture
def ingest_items(node_url: str, index_name: str, tmp_path: Path) -> IngestItems:
    options = IngestOptions(
        alias=index_name,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        batch_images=4,
        dead_letters=tmp_path / "letters.jsonl",
    )

    def ingest(
        items: list[SourceItem | ListingFailure],
        patience_s: float,
        progress: Callable[[RunAccounting], None] = lambda _: None,
        runner: Literal["local", "ray"] = "local",
    ) -> IngestReport:
        read_limits = ReadLimits(url_policy=UrlPolicy(allow_private=True, patience_s=patience_s))
        run_options = replace(options, source=SourceOptions(read_limits=read_limits), runner=runner)
        return run_ingest([ListSource(items)], Connection(url=node_url), run_options, progress=progress)

    return ingest


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_retry_after_loses_no_image_and_delays_no_other_host(
    rate_limited_server: RateLimitedServer, ingest_items: IngestItems, runner: str
) -> None:
    retry_after_s, times_s, messages = 3.0, list[float](), list[str]()

    def delay_first_host(path: str) -> float | None:
        if path.startswith("/b"):
            return None
        times_s.append(time.monotonic())
        return retry_after_s if sum(path.startswith("/b") for _, path in rate_limited_server.requests) < 20 else None

    rate_limited_server.get_retry_after = delay_first_host
    hosts = (rate_limited_server.list_items("a", 20), rate_limited_server.list_items("b", 20))
    mixed = [item for pair in zip(*hosts, strict=True) for item in pair]
    report = ingest_items(mixed, 60.0, lambda accounting: messages.append(accounting.waiting_message), runner)
    assert (report.seen, report.written, report.failed) == (40, 40, 0)  # b's images are read while a's wait, or none of a's is
    assert sum(time_s < times_s[0] + retry_after_s for time_s in times_s) <= 10  # one of each batch that was under way
    assert any("127.0.0.1" in message for message in messages)
    assert messages[-1] == ""


def test_endless_retry_after_fails_with_a_reason(rate_limited_server: RateLimitedServer, ingest_items: IngestItems) -> None:
    rate_limited_server.get_retry_after = lambda path: 1.0 if path.startswith("/a") else None
    items = rate_limited_server.list_items("a", 6) + rate_limited_server.list_items("b", 6)
    report = ingest_items(items, 3.0)
    assert (report.seen, report.written, report.failed) == (12, 6, 6)
    [reason] = report.failure_reasons
    assert (reason.stage, reason.images) == ("read", 6)
    assert all(fact in reason.reason for fact in ("127.0.0.1", "429", " 1 s", " 3 s"))
    times_s = [time_s for time_s, path in rate_limited_server.requests if path.startswith("/a")]
    assert 2.9 < max(times_s) - min(times_s) < 120

    rate_limited_server.get_retry_after = lambda path: None
    again = ingest_items(items, 3.0)
    assert (again.written, again.unchanged, again.failed) == (6, 6, 0)


def test_one_url_with_an_endless_retry_after_fails_alone(
    rate_limited_server: RateLimitedServer, ingest_items: IngestItems
) -> None:
    rate_limited_server.get_retry_after = lambda path: 99999999999 if path == "/a3.jpg" else None
    report = ingest_items(rate_limited_server.list_items("a", 24), 2.0)
    assert (report.seen, report.written, report.failed) == (24, 23, 1)
    [reason] = report.failure_reasons
    assert all(fact in reason.reason for fact in ("127.0.0.1", "429", " 99999999999 s", " 2 s"))


def test_a_run_that_waits_for_a_host_can_be_interrupted(
    rate_limited_server: RateLimitedServer, ingest_items: IngestItems
) -> None:
    rate_limited_server.get_retry_after = lambda path: 600.0
    timers: list[threading.Timer] = []
    interrupted_s: list[float] = []

    def send_interrupt() -> None:
        interrupted_s.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def start_timer(accounting: RunAccounting) -> None:
        if accounting.waiting_message and not timers:
            timers.append(threading.Timer(0.3, send_interrupt))
            timers[0].start()

    with pytest.raises(KeyboardInterrupt):
        ingest_items(rate_limited_server.list_items("a", 10), 600.0, start_timer)
    assert time.monotonic() - interrupted_s[0] < 120
