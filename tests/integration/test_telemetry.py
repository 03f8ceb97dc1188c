"""Metrics and traces of a real ingest and of the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.corpora.web_corpus import PHOTOS, Corpus
from support.messages import forward_messages
from support.servers.hostile_http_server import PageClient, serve_page
from support.servers.otlp_collector import Collector, parse_attributes, start_collector
from support.servers.recording_proxy import RecordingProxy

from stair_es.cluster.client.connection import Connection
from stair_es.telemetry.server import open_server_telemetry
from stair_es.web.auth import AccessPolicy

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))
TOKEN = "a-token-that-is-long-enough"
BEARER = f"Bearer {TOKEN}"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Samples = dict[tuple[str, ...], float]
"""Name and label values -> value."""


def parse_metrics(text: str) -> Samples:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_metrics_of_an_ingest_match_its_report(node_url: str, index_name: str, tmp_path: Path) -> None:
    for name in ("tabby-cat", "dairy-cow", "red-panda"):
        shutil.copy(PHOTOS / f"{name}.jpg", tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    file = tmp_path / "photos.prom"
    with start_collector() as collector:
        command = [STAIR_ES, "ingest", str(tmp_path), "--index", index_name, "--url", node_url, "--model", "stair-mini"]
        files = ["--metrics-file", str(file), "--dead-letters", str(tmp_path / "failed.jsonl")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRACEPARENT": PARENT, **collector.environment}
        done = subprocess.run(
            [*command, *files, "--batch-size", "2", "--json"], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    found = {
        (name.removeprefix("stair_es_ingest_"), *rest[1:]): value
        for (name, *rest), value in parse_metrics(file.read_text()).items()
    }
    assert [found["images_total", outcome] for outcome in ("written", "unchanged", "failed")] == [3, 0, 1]
    assert found["listed_images_total",] == report["seen"] == 4
    assert found["failed_images_total", "decode"] == report["failed"] == 1
    assert (found["bulk_requests_total",], found["bulk_documents_total",]) == (report["bulk_requests"], 3)
    assert (found["exit_code",], found["listing_done",], found["swap_pending",]) == (3, 1, 0)
    assert {stage: round(found["stage_seconds_total", stage], 3) for stage in report["stage_seconds"]} == report["stage_seconds"]
    assert found["end_timestamp_seconds",] == found["last_success_timestamp_seconds",]
    _check_spans(collector, index_name)


def _check_spans(collector: Collector, index: str) -> None:
    [run] = collector.find_spans("ingest")
    assert f"{run.trace_id.hex()}-{run.parent_span_id.hex()}" == PARENT[3:-3]
    attributes = parse_attributes(run.attributes)
    assert (attributes["stair_es.index"], attributes["stair_es.written"], attributes["stair_es.failed"]) == (index, 3, 1)
    assert {span.trace_id for span in collector.spans} == {run.trace_id}
    batches = [span for span in collector.get_children(run) if span.name == "batch"]
    assert sum(int(parse_attributes(batch.attributes)["stair_es.images"]) for batch in batches) == 4
    for batch in batches:
        stages = sorted(collector.get_children(batch), key=lambda span: span.start_time_unix_nano)
        assert [stage.name for stage in stages][:3] == ["read", "decode", "encode"]
        assert batch.start_time_unix_nano == stages[0].start_time_unix_nano >= run.start_time_unix_nano
        assert batch.end_time_unix_nano == stages[-1].end_time_unix_nano <= run.end_time_unix_nano
    requests = [span for span in collector.get_children(run) if span.kind == span.SPAN_KIND_CLIENT]
    assert len(requests) + len(batches) == len(collector.get_children(run))
    [bulk, *_] = [span for span in requests if re.fullmatch(rf"bulk {index}-.+\.write", span.name)]
    assert parse_attributes(bulk.attributes)["db.system.name"] == "opensearch"


def test_hanging_run_exports_metrics(tmp_path: Path) -> None:
    shutil.copy(PHOTOS / "tabby-cat.jpg", tmp_path)
    file = tmp_path / "photos.prom"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(120)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [STAIR_ES, "ingest", str(tmp_path), "--url", url, "--index", "photos"]
        options = ["--metrics-file", str(file), "--metrics-port", "0"]
        with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            try:
                assert running.stderr is not None
                address = re.search(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", running.stderr.readline())
                assert address
                connection, _ = server.accept()
                with connection, urllib.request.urlopen(address[1], timeout=120) as response:
                    running_metrics = parse_metrics(response.read().decode())
                    running.send_signal(signal.SIGTERM)
                    running.communicate(timeout=120)
            finally:
                running.kill()
    assert running_metrics["stair_es_ingest_start_timestamp_seconds", "photos"] > 0
    assert ("stair_es_ingest_exit_code", "photos") not in running_metrics
    final_metrics = parse_metrics(file.read_text())
    assert final_metrics["stair_es_ingest_exit_code", "photos"] == running.returncode == 143
    assert final_metrics["stair_es_ingest_end_timestamp_seconds", "photos"] > 0
    assert ("stair_es_ingest_last_success_timestamp_seconds", "photos") not in final_metrics


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with start_collector() as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        yield started


def read_metrics(page: PageClient) -> Samples:
    response = page.get("/metrics", authorization=BEARER)
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (name.removeprefix("stair_es_server_"), *rest): value
        for (name, *rest), value in parse_metrics(response.body.decode()).items()
        if name.startswith("stair_es_server_") and not name.endswith("_bucket")
    }


def test_metrics_of_the_page_match_its_requests(node_url: str, corpus: Corpus, collector: Collector) -> None:
    messages: list[str] = []
    with (
        forward_messages(messages.append),
        open_server_telemetry(metrics=True) as observer,
        serve_page(Connection(url=node_url), corpus.alias, guard=AccessPolicy(token=TOKEN), observer=observer) as page,
    ):
        search = page.post("/api/search", {"text": "a red panda"}, authorization=BEARER, traceparent=PARENT)
        assert search.status == 200
        assert page.post("/api/search", {"text": "a red panda"}, authorization=BEARER).status == 200
        thumbnail = "/" + search.json["hits"][0]["thumbnail"]
        assert [page.get(thumbnail, authorization=BEARER).status for _ in range(3)] == [200] * 3
        image = (PHOTOS / "tabby-cat.jpg").read_bytes()
        assert page.request("POST", "/api/image", image, {"content-type": "image/jpeg", "authorization": BEARER}).status == 200
        assert page.get("/api/search", authorization=BEARER).status == 405
        assert page.get("/nothing", authorization=BEARER).status == 404
        assert [page.get(path).status for path in ("/", "/metrics", "/api/about")] == [401] * 3
        assert page.request("BREW", "/", None, {"authorization": BEARER}).status == 405
        text = page.get("/metrics", authorization=BEARER).body.decode()
        found = read_metrics(page)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "requests_total"}
    assert requests == {
        ("POST", "/api/search", "200"): 2,
        ("GET", "/thumb/{id}", "200"): 3,
        ("POST", "/api/image", "200"): 1,
        ("GET", "/api/search", "405"): 1,
        ("GET", "none", "404"): 1,
        ("GET", "none", "401"): 3,
        ("_OTHER", "/", "405"): 1,
        ("GET", "/metrics", "200"): 1,
    }
    assert (found["encode_seconds_count", "text"], found["encode_seconds_count", "image"]) == (1, 1)
    assert (found["thumbnails_total", "no"], found["thumbnails_total", "yes"]) == (1, 2)
    assert (found["requests_in_progress",], found["uploads_in_progress",]) == (1, 0)
    assert found["request_seconds_count", "/api/search"] == 3
    assert found["search_took_seconds_count",] == 5  # and questions about captions, texts of pictures and the rarest word
    assert found["cluster_request_seconds_count", "search"] == 6
    assert found["search_took_seconds_sum",] <= found["cluster_request_seconds_sum", "search"]
    assert not any(key[0] == "cluster_errors_total" for key in found)
    assert not any(word in text for word in ("panda", corpus.alias, corpus.get_id("red-panda"), TOKEN))
    assert not messages
    _check_page_spans(collector, corpus.alias)


def _check_page_spans(collector: Collector, alias: str) -> None:
    first, second = collector.find_spans("POST /api/search")
    assert f"{first.trace_id.hex()}-{first.parent_span_id.hex()}" == PARENT[3:-3]
    assert second.trace_id != first.trace_id
    assert not second.parent_span_id
    assert [span.name for span in collector.get_children(first)] == [
        *[f"search {alias}"] * 2,  # whether an image has a caption, and one a text in it
        "encode text",
        f"search {alias}",  # whether one has the rarest word
        f"search {alias}",
    ]
    assert [span.name for span in collector.get_children(second)] == [f"search {alias}"]
    attributes = parse_attributes(first.attributes)
    assert (first.kind, attributes["http.route"], attributes["http.response.status_code"]) == (
        first.SPAN_KIND_SERVER,
        "/api/search",
        200,
    )
    assert {parse_attributes(span.attributes)["http.response.status_code"] for span in collector.find_spans("GET")} == {
        200,
        401,
        404,
        405,
    }
    everything = b"".join(span.SerializeToString() for span in collector.spans)
    assert not any(word in everything for word in (b"red panda", TOKEN.encode()))


def test_page_survives_a_cluster_outage(node_url: str, corpus: Corpus) -> None:
    with open_server_telemetry(metrics=True) as observer, RecordingProxy(node_url) as proxy:
        guard = AccessPolicy(token=TOKEN)
        with serve_page(Connection(url=proxy.url), corpus.alias, guard=guard, observer=observer) as page:
            proxy.kill()
            assert page.post("/api/search", {"text": "cat"}, authorization=BEARER).status == 503
            assert page.get("/health", host="10.0.0.7:8077").body == b"ok\n"
            assert page.get("/health", host="evil.example", origin="http://evil.example").status == 200
            assert page.get("/health/", host="evil.example").status == 403
            found = read_metrics(page)
    assert found["cluster_errors_total", "search", "none"] == 1
    assert found["requests_total", "POST", "/api/search", "503"] == 1


def test_metrics_are_off_by_default(node_url: str, corpus: Corpus) -> None:
    with serve_page(Connection(url=node_url), corpus.alias) as page:
        assert page.get("/metrics").status == 404
        assert page.request("HEAD", "/health").status == 200
        assert page.request("POST", "/health").status == 405
