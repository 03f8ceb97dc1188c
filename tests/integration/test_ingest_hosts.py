"""Ingests from two hosts, of which one asks to wait for too long. Waits that end: see `test_ray`."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.corpora.ingest_sources import ListSource
from support.servers.rate_limited_server import RateLimitedServer, start_rate_limited_server

from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions, UrlPolicy

IngestItems = Callable[..., IngestReport]


@pytest.fixture
def rate_limited_server() -> Iterator[RateLimitedServer]:
    with start_rate_limited_server() as server:
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
    ) -> IngestReport:
        read_limits = ReadLimits(url_policy=UrlPolicy(allow_private=True, patience_s=patience_s))
        run_options = replace(options, source=SourceOptions(read_limits=read_limits))
        return run_ingest([ListSource(items)], Connection(url=node_url), run_options, progress=progress)

    return ingest


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
