"""Documents and queries of ours through the Python clients that users have, each in the versions that they have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from filelock import FileLock
from opensearchpy import OpenSearch
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document
from stair_es.cluster.index.mappings import build_index_body
from stair_es.config.defaults import DataDir
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import SparseVector

_SCRIPT = Path(__file__).parents[1] / "support" / "oracles" / "client_round_trip.py"
_OLDEST_PROMISED = "opensearch-py==2.4.0"
_TOLERANCE = 0.004
"""Engines keep nine bits of a weight."""

# The clients of Elasticsearch refuse OpenSearch.
VectorField = Literal["rank_features", "sparse_vector"]
_OTHER_CLIENT = pytest.mark.nightly("clients between the oldest and the newest")
_ENGINES = [
    ("node_url", "rank_features", "opensearch-py==2.4.0"),
    pytest.param("node_url", "rank_features", "opensearch-py==2.8.0", marks=_OTHER_CLIENT),
    ("node_url", "rank_features", "opensearch-py"),
    ("elasticsearch7_url", "rank_features", "opensearch-py==2.4.0"),
    ("elasticsearch7_url", "rank_features", "opensearch-py"),
    ("elasticsearch7_url", "rank_features", "elasticsearch==7.17.13"),
    ("elasticsearch7_url", "rank_features", "elasticsearch==8.19.3"),
    ("elasticsearch7_url", "rank_features", "elasticsearch==9.5.1"),
    pytest.param("elasticsearch9_url", "sparse_vector", "elasticsearch==7.17.13", marks=_OTHER_CLIENT),
    ("elasticsearch9_url", "rank_features", "elasticsearch==9.5.1"),
    pytest.param("elasticsearch9_url", "sparse_vector", "elasticsearch==8.19.3", marks=_OTHER_CLIENT),
    ("elasticsearch9_url", "sparse_vector", "elasticsearch==9.5.1"),
    pytest.param("elasticsearch9_url", "sparse_vector", "opensearch-py==2.4.0", marks=_OTHER_CLIENT),
    ("elasticsearch9_url", "sparse_vector", "opensearch-py"),
]


@dataclass(frozen=True)
class Task:
    """What to write and to ask for, and what must come back."""

    values: dict[str, Any]
    exact: dict[str, float]
    """Dot products, the best first."""


def draw_vector(rng: np.random.Generator, size: int) -> SparseVector:
    words = [*(f"word{i}" for i in range(200)), "a.b", "##ing", "café", "犬", ".", "it's"]
    return SparseVector.from_pairs((str(word), float(rng.uniform(0.05, 3))) for word in rng.choice(words, size, replace=False))


def build_metadata(name: str) -> ImageMetadata:
    return ImageMetadata(
        uri=f"file:///{name}.jpg",
        name=f"{name}.jpg",
        bytes=1,
        source="/photos",
        version=None,
        sha256=name,
        width=1,
        height=1,
        format="JPEG",
        taken_at="2026-11-24T12:00:00",
        thumbnail="data:image/webp;base64,AA==",
    )


def build_task(url: str, vector: VectorField) -> Task:
    rng = np.random.default_rng(7)
    settings = DocumentSettings(vector=vector)
    vectors = {f"image{i}": draw_vector(rng, 40) for i in range(50)}
    query_vector = draw_vector(rng, 30)
    with Cluster(Connection(url=url)) as cluster:
        body = build_index_body(get_cluster_info(cluster), settings)
    documents = [
        (
            name,
            build_document(
                stored,
                build_metadata(name),
                fields={"caption": "ein Bild"},
                model_id="drawn@1",
                fingerprint="f",
                ingested_at="2026-11-24T12:00:00Z",
                settings=settings,
            ),
        )
        for name, stored in vectors.items()
    ]
    values = {
        "url": url,
        "index": f"test-{uuid.uuid4().hex[:12]}",
        "body": body,
        "documents": documents,
        "query": build_search_request(SearchQuery(vector=query_vector), vector, max_clauses=1024).body,
    }
    exact = {name: query_vector.dot(stored) for name, stored in vectors.items()}
    return Task(values, dict(sorted(exact.items(), key=lambda pair: -pair[1])))


def install_client(requirement: str) -> Path | None:
    """A folder with this client, fetched once a machine; None for the one that stair-es itself uses here."""
    if "==" not in requirement:
        return None
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = DataDir.from_env().path / "test-clients" / python / requirement.replace("==", "-")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                installed = Path(scratch) / "made"
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts", "--target", str(installed)]
                subprocess.run([*pip, requirement], check=True)
                installed.rename(folder)
    return folder


def run_task(task: Task, role: str, requirement: str, environ: dict[str, str] | None = None) -> list[tuple[str, float]]:
    name, _, version = requirement.partition("==")
    folder = install_client(requirement)
    path = {"PYTHONPATH": str(folder)} if folder else {}
    values = json.dumps({**task.values, "by": role, "client": name})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_") or name == "STAIR_ES_HOME"}
    completed = subprocess.run(
        [sys.executable, str(_SCRIPT)],
        input=values,
        env={**clean, **path, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    answer = json.loads(completed.stdout)
    assert not version or answer["version"] == version
    return [(id_, score) for id_, score in answer["hits"]]


def check_hits(task: Task, hits: list[tuple[str, float]]) -> None:
    best = list(task.exact.values())[: len(hits)]
    assert len(hits) == 10
    assert [score for _, score in hits] == pytest.approx(best, rel=_TOLERANCE)
    for id_, score in hits:
        assert score == pytest.approx(task.exact[id_], rel=_TOLERANCE)


@pytest.fixture
def started_tasks() -> Iterator[list[Task]]:
    """A list of tasks whose indices are deleted afterwards."""
    tasks = list[Task]()
    yield tasks
    for task in tasks:
        client = OpenSearch([task.values["url"]])
        client.indices.delete(index=f"{task.values['index']}-1,{task.values['index']}", params={"ignore_unavailable": "true"})
        client.close()


@pytest.mark.parametrize(("engine", "vector", "requirement"), _ENGINES)
def test_clients_write_and_search(
    engine: str, vector: VectorField, requirement: str, request: pytest.FixtureRequest, started_tasks: list[Task]
) -> None:
    task = build_task(request.getfixturevalue(engine), vector)
    started_tasks.append(task)
    check_hits(task, run_task(task, "client", requirement))


@pytest.mark.parametrize("requirement", [_OLDEST_PROMISED, "opensearch-py==2.8.0"])
def test_bulk_path_with_older_clients(node_url: str, requirement: str) -> None:
    """Connection, login, retries, bulk: all that leans on the client's inner parts."""
    busy_left = [2]

    def count_busy(request: RecordedRequest) -> StubResponse | None:
        if request.headers.get("authorization") != "ApiKey aWQ6aHVudGVyMg==":
            return StubResponse(status=401)
        if "/_bulk" not in request.target:
            return None
        busy_left[0] -= 1
        headers = {"retry-after": "0", "content-type": "application/json"}
        return StubResponse(status=429, headers=headers) if busy_left[0] >= 0 else None

    with RecordingProxy(node_url, gate=count_busy) as proxy:
        task = build_task(node_url, "rank_features")
        task.values["url"] = proxy.url
        hits = run_task(task, "stair-es", requirement, {"STAIR_ES_API_KEY": "id:hunter2"})
    check_hits(task, hits)
    assert busy_left[0] < 0, "it was busy twice, and asked again"
    client = OpenSearch([node_url])
    client.indices.delete(index=task.values["index"])
    client.close()
