"""Metrics and traces of an ingest and of the server, without a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.commands import CommandRunner
from support.errors import expect_error
from support.messages import forward_messages
from support.servers.otlp_collector import parse_attributes, start_collector
from support.servers.recording_proxy import RecordingProxy, StubResponse

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.transport import OutgoingRequest, RequestHook
from stair_es.errors import IngestError, UsageError
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.state import Batch, Outcome
from stair_es.optional import format_install_command
from stair_es.sources.base import SourceItem
from stair_es.sources.io.local_file import InlineBytes
from stair_es.telemetry import ingest, server
from stair_es.telemetry.http import is_failed_request, parse_operation
from stair_es.telemetry.ingest_metrics import IngestMetrics, MetricsTextfile, build_registry, serve_metrics
from stair_es.telemetry.server_metrics import ServerMetrics
from stair_es.telemetry.spans import DecayingSampler, trace_cluster_requests
from stair_es.telemetry.tracing import open_tracer

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "reference" / "metrics.md").read_text()
Values = dict[tuple[str, ...], float]


def read_samples(text: str) -> Values:
    """(name, label values...) -> value, without the label `index`."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name.removeprefix("stair_es_ingest_"), *(v for k, v in sample.labels.items() if k != "index")): sample.value
        for sample in samples
    }


@pytest.fixture
def run_accounting(tmp_path: Path) -> Iterator[RunAccounting]:
    with Manifest(tmp_path) as manifest:
        run = RunAccounting(manifest, DeadLetters(tmp_path / "failed.jsonl", "photos"))
        run.dead_letters.prepare_file()
        items = [SourceItem(f"mem:{i}", "mem:", InlineBytes(b"x")) for i in range(4)]
        run.accept_listed(items)
        outcomes = [
            Outcome(items[0], "written", "write"),
            Outcome(items[1], "unchanged", "check"),
            Outcome(items[2], "failed", "read"),
        ]
        run.record_batch(Batch([*outcomes], {"read": 0.5, "decode": 1.5}))
        yield run
        run.dead_letters.close()


@pytest.fixture
def run_metrics(run_accounting: RunAccounting) -> IngestMetrics:
    """A finished run with all metrics."""
    run_accounting.encoder_idle = 0.25
    return IngestMetrics(
        index='pho"tos', start_s=1.0, accounting=run_accounting, end_s=2.0, exit_code=3, success_s=2.0, swap_pending=False
    )


def test_the_metrics_of_a_run_are_its_accounting(run_metrics: IngestMetrics) -> None:
    samples = read_samples(generate_latest(build_registry(run_metrics)).decode())
    assert samples["listed_images_total",] == 4
    assert [samples["images_total", kind] for kind in ("written", "unchanged", "failed")] == [1, 1, 1]
    assert (samples["failed_images_total", "read"], samples["failed_images_total", "decode"]) == (1, 0)
    assert (samples["stage_seconds_total", "decode"], samples["encoder_idle_ratio",]) == (1.5, 0.25)
    assert (samples["exit_code",], samples["swap_pending",], samples["listing_done",]) == (3, 0, 0)
    [labels] = {sample.labels["index"] for family in build_registry(run_metrics).collect() for sample in family.samples}
    assert labels == 'pho"tos'


def list_metric_names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (stair_es_\w+)", text, re.MULTILINE))


def test_names_follow_the_rules_and_the_page_of_them_names_each(run_metrics: IngestMetrics) -> None:
    text = generate_latest(build_registry(run_metrics)).decode() + generate_latest(ServerMetrics().registry).decode()
    kinds = dict(re.findall(r"^# TYPE (stair_es_\w+) (\w+)", text, re.MULTILINE))
    kinds = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    assert len(kinds) > 20
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"milli|_ms\b|minutes|kilo|megabytes", name)
        if kind in ("histogram", "summary"):
            assert name.endswith("_seconds")
    documented = set(re.findall(r"^\| `(stair_es_\w+)", DOCS, re.MULTILINE))
    assert documented == set(kinds)


def test_alerts_use_existing_metrics(run_metrics: IngestMetrics) -> None:
    metric_names = list_metric_names(
        generate_latest(build_registry(run_metrics)).decode() + generate_latest(ServerMetrics().registry).decode()
    )
    groups = yaml.safe_load((ROOT / "deploy" / "observe" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        used = {re.sub(r"_bucket$", "", name) for name in re.findall(r"stair_es_\w+", rule["expr"])}
        assert used
        assert used <= metric_names, rule["alert"]
        assert f"`{rule['alert']}`" in DOCS
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"info", "warning"}


def test_failed_run_keeps_the_last_success_and_a_complete_file(tmp_path: Path, run_accounting: RunAccounting) -> None:
    path = tmp_path / "photos.prom"
    with ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(file=path)) as observer:
        assert "exit_code" not in path.read_text()
        observer.record_start(run_accounting)
    first = read_samples(path.read_text())
    assert (first["exit_code",], first["images_total", "failed"]) == (0, 1)
    during: list[Values] = []

    def fail_run() -> None:
        during.append(read_samples(path.read_text()))
        raise IngestError("no")

    with pytest.raises(IngestError), ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(file=path)):
        fail_run()
    assert ("images_total", "failed") not in during[0]
    second = read_samples(path.read_text())
    assert second["exit_code",] == 1
    assert second["last_success_timestamp_seconds",] == first["last_success_timestamp_seconds",]
    assert second["end_timestamp_seconds",] >= first["end_timestamp_seconds",]
    assert [file.name for file in tmp_path.glob("photos.prom*")] == ["photos.prom"]


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143), (UsageError("x"), 2), (OSError(), 1)]
)
def test_the_exit_code_is_the_command_s(tmp_path: Path, error: BaseException, code: int) -> None:
    path = tmp_path / "photos.prom"
    with pytest.raises(type(error)), ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(file=path)):
        raise error
    assert read_samples(path.read_text())["exit_code",] == code


def test_readers_see_whole_files(tmp_path: Path, run_metrics: IngestMetrics) -> None:
    path, stop, counts = tmp_path / "photos.prom", threading.Event(), list[int]()
    file = MetricsTextfile(path, run_metrics)

    def read_repeatedly() -> None:
        while not stop.is_set():
            counts.append(len(read_samples(path.read_text())))

    reader = threading.Thread(target=read_repeatedly)
    reader.start()
    for _ in range(50):
        file.write()
    stop.set()
    reader.join()
    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    ("targets", "code", "fact"),
    [
        ({"file": Path("photos.txt")}, "invalid-metrics-file", ".prom"),
        ({"file": Path("nowhere/photos.prom")}, "metrics-not-written", "nowhere"),
        ({"port": 0, "host": "203.0.113.7"}, "metrics-port-unavailable", "203.0.113.7"),
    ],
)
def test_invalid_targets_are_rejected_before_a_run(
    targets: dict[str, Any], code: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with expect_error(code) as caught, ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(**targets)):
        pass
    assert fact in caught.value.message


def test_a_used_port_is_rejected_before_a_run(run_metrics: IngestMetrics) -> None:
    with serve_metrics(run_metrics, "127.0.0.1", 0) as url:
        targets = ingest.MetricsTargets(port=urlsplit(url).port)
        with expect_error("metrics-port-unavailable"), ingest.open_ingest_telemetry("photos", targets):
            pass


def test_metrics_need_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for telemetry in (
        ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(port=0)),
        server.open_server_telemetry(metrics=True),
    ):
        with expect_error("missing-extra") as caught, telemetry:
            pass
        assert format_install_command("metrics") in caught.value.remedy


def test_an_address_without_a_port_is_rejected(tmp_path: Path) -> None:
    error = CommandRunner({}).read_error("ingest", tmp_path, "--metrics-host", "0.0.0.0")
    assert (error.code, "--metrics-port 9464" in error.remedy) == ("metrics-host-without-port", True)


def test_full_disk_ends_no_run(tmp_path: Path) -> None:
    folder, messages = tmp_path / "folder", list[str]()
    folder.mkdir()
    with (
        forward_messages(messages.append),
        ingest.open_ingest_telemetry("photos", ingest.MetricsTargets(file=folder / "photos.prom")),
    ):
        (folder / "photos.prom").unlink()
        folder.rmdir()
    assert [str(folder) in message for message in messages] == [True]


def test_a_port_serves_the_progress_of_the_run(run_metrics: IngestMetrics, run_accounting: RunAccounting) -> None:
    with serve_metrics(run_metrics, "127.0.0.1", 0) as url:
        for listed in (4, 5):
            run_accounting.listed = listed
            with urllib.request.urlopen(url) as response:
                assert read_samples(response.read().decode())["listed_images_total",] == listed


def test_a_long_run_is_thinned() -> None:
    sampler = DecayingSampler()
    kept = [i for i in range(1, 100_001) if sampler()]
    assert kept[:200] == list(range(1, 201))
    assert kept[200:203] == [202, 204, 206]
    assert 1000 < len(kept) < 2000
    assert kept[-1] > 99_000


@pytest.mark.parametrize(
    ("path", "operation", "target"),
    [
        ("/", "info", ""),
        ("/photos", "indices", "photos"),
        ("/photos/_search", "search", "photos"),
        ("/_search/point_in_time", "search", ""),
        ("/photos/_doc/_id%2F1", "doc", "photos"),
        ("/_tasks/node:12345", "tasks", ""),
        ("/a%2Cb/_bulk", "bulk", "a,b"),
    ],
)
def test_requests_have_few_names(path: str, operation: str, target: str) -> None:
    assert parse_operation(OutgoingRequest("GET", path, "http://localhost:9200")) == (operation, target)


def test_a_missing_index_is_not_a_failed_request() -> None:
    statuses = {200: False, 404: False, 400: True, 429: True, 503: True, None: True}
    assert {status: is_failed_request(OutgoingRequest("GET", "/", "", status=status)) for status in statuses} == statuses


def test_requests_carry_their_span_id_and_no_query_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        start_collector() as collector,
        RecordingProxy(None, gate=lambda request: StubResponse(status=404 if "none" in request.target else 503)) as node,
    ):
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        connection = Connection(url=f"{node.url}/es")
        with open_tracer() as tracer:
            assert tracer is not None
            with Cluster(replace(connection, request_hooks=(trace_cluster_requests(tracer),))) as cluster:
                assert not cluster.client.indices.exists(index="none")
                with pytest.raises(Exception, match="503"):
                    cluster.client.search(index="photos", body={"query": {"match": {"caption": "secret words"}}})
            unsampled = trace_cluster_requests(tracer, should_keep=lambda: False)
            with Cluster(replace(connection, request_hooks=(unsampled,))) as cluster:
                cluster.client.indices.exists(index="none")
            with Cluster(connection) as cluster:
                cluster.client.indices.exists(index="none")
    exists, search = collector.spans
    assert [span.name for span in collector.spans] == ["indices none", "search photos"]
    sent = [request.headers.get("traceparent", "")[:52] for request in node.requests]  # without the flags
    assert sent == [f"00-{span.trace_id.hex()}-{span.span_id.hex()}" for span in (exists, search)] + ["", ""]
    assert exists.status.code == 0
    assert search.status.code == 2
    span_attributes = parse_attributes(search.attributes)
    expected = {
        "error.type": "503",
        "http.response.status_code": 503,
        "db.collection.name": "photos",
        "url.full": f"{node.url}/es/photos/_search",
    }
    assert {name: span_attributes[name] for name in expected} == expected
    assert b"secret" not in search.SerializeToString()
    assert collector.resource["service.name"] == "stair-es"


def test_hooks_nest_within_their_process() -> None:
    order = list[str]()

    def build_hook(name: str) -> RequestHook:
        @contextmanager
        def watch_request(request: OutgoingRequest) -> Iterator[None]:
            order.append(name)
            yield
            order.append(f"{name} {request.status}")

        return watch_request

    with RecordingProxy(None, gate=lambda request: StubResponse(status=200)) as node:
        connection_with_hooks = Connection(url=node.url, request_hooks=(build_hook("outer"), build_hook("inner")))
        sent = pickle.loads(pickle.dumps(connection_with_hooks))
        for connection in (connection_with_hooks, sent):
            with Cluster(connection) as cluster:
                cluster.client.indices.exists(index="photos")
    assert order == ["outer", "inner", "inner 200", "outer 200"]
    assert sent == Connection(url=node.url)


ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def trace_nothing(environ: Mapping[str, str]) -> list[str]:
    """Return the messages about traces that can't be sent."""
    messages: list[str] = []
    with forward_messages(messages.append), open_tracer(environ) as tracer:
        assert tracer is None
    return messages


@pytest.mark.parametrize(
    "environ",
    [{}, {**ON, "OTEL_SDK_DISABLED": "True"}, {**ON, "OTEL_TRACES_EXPORTER": "none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}],
)
def test_without_a_collector_there_is_no_tracer(environ: dict[str, str]) -> None:
    assert trace_nothing(environ) == []


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "'otlp' and 'none'"),
        ({}, format_install_command("traces")),
    ],
)
def test_an_obstacle_to_traces_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, more: dict[str, str], remedy: str) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    [message] = trace_nothing({**ON, **more})
    assert remedy in message
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in message


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")]
)
def test_invalid_variables_affect_nothing_else(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for each, text in {**ON, name: value}.items():
        monkeypatch.setenv(each, text)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in trace_nothing(os.environ)[-1]


def test_an_unreachable_collector_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ON, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_BSP_SCHEDULE_DELAY": "10"}.items():
        monkeypatch.setenv(name, value)
    messages: list[str] = []
    with forward_messages(messages.append), open_tracer() as tracer:
        assert tracer is not None
        for _ in range(3):
            tracer.start_span("x").end()
            logging.getLogger("opentelemetry.test").warning("away since %d", time.monotonic_ns())
    assert ["away since" in text for text in messages].count(True) == 1
    assert len(messages) > 1
    assert len({text[:20] for text in messages}) == len(messages)
    assert all(text.startswith("traces: ") for text in messages)
