"""The benchmark of a growing cluster: partial results and sent documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.benchmarks import import_benchmark

from stair_es.types import SparseVector

growth = import_benchmark("growth")
corpus = import_benchmark("cluster_growth.corpus")
index = import_benchmark("cluster_growth.index")
measure = import_benchmark("cluster_growth.measure")
http = import_benchmark("harness.http")
result = import_benchmark("harness.result")


def build_step(documents: int) -> Any:  # noqa: ANN401  of a module that is found at run time
    stored = measure.Stored(documents=documents, primary_bytes=900 * documents, all_bytes=900 * documents, segments=6)
    return index.Step(
        name=f"{documents:,}",
        stored=stored,
        idle_ms={"3 tokens": (1.25, 4.0), "an image": (7.0, 9.0)},
        docs_per_s=5000.0,
        docs_per_s_searched=4000.0,
        searched_ms={"3 tokens": (3.0, 30.0)},
        searches=40,
        heap_min_mb=200.0,
        heap_max_mb=900.0,
        collecting_share=0.02,
        settle_s=3.0,
    )


class NoLoads:
    """Stands for the documents, which take long to draw."""

    size, loads = 10_000, 3

    def __init__(self, *_: object) -> None:
        pass

    def draw(self) -> None:
        pass


def test_interrupted_runs_keep_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "growth.json"

    def measure_once(*_: object) -> Iterator[Any]:
        yield build_step(10_000)
        assert json.loads(file.read_text())["figures"]["steps"][0]["docs_per_s"] == 5000  # it is on disk before the next load
        raise RuntimeError("node-1 has died")

    monkeypatch.setattr(growth, "Loads", NoLoads)
    monkeypatch.setattr(growth, "measure", measure_once)
    monkeypatch.setattr(sys, "argv", ["growth.py", "--docs", "30000", "--loads", "3", "--json", str(file)])
    with pytest.raises(RuntimeError, match="node-1"):
        growth.main()
    kept = result.Result.read(file)
    assert "node-1 has died" in kept.remarks[0]
    assert kept.tables[0].rows == (("10,000", "5,000", "4,000", "900", "6", "200 to 900", "2.0", "3"),)
    assert kept.tables[1].rows == (("10,000", "1.2 / 4.0", "7.0 / 9.0"),)
    assert kept.tables[2].rows == (("10,000", "40", "3.0 / 30.0", "-"),)
    assert "ended early" in capsys.readouterr().out


def test_documents_have_unique_ids_and_hashes() -> None:
    rng = np.random.default_rng(0)
    vector = SparseVector(("dog", "grass"), (0.5, 0.25))
    documents = [corpus._build_document(row, vector, rng, None) for row in range(50)]
    assert len({id_ for id_, _ in documents}) == 50
    for field in ("sha256", "uri"):
        assert len({doc[field] for _, doc in documents}) == 50
    _, doc = documents[0]
    assert (len(doc["version"]), len(doc["sha256"]), len(doc["fingerprint"])) == (32, 64, 32)
    assert doc["tokens"] == {"dog": 0.5, "grass": 0.25}
    assert "thumbnail" not in doc


def test_partial_loads_fail(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="10000"):
        corpus.Loads(tmp_path, 15_000, 1)


class StubNode:
    """A node whose answers are given, by path."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def request_json(self, method: str, path: str) -> Any:  # noqa: ANN401  JSON
        return self.answers.get(path, {}) if method == "GET" else {}


def _build_node_stats(name: str, used_bytes: int, *collected_ms: int) -> dict[str, Any]:
    collectors = {str(number): {"collection_time_in_millis": each} for number, each in enumerate(collected_ms)}
    return {"name": name, "jvm": {"mem": {"heap_used_in_bytes": used_bytes}, "gc": {"collectors": collectors}}}


def test_a_heap_is_read_in_millions_of_bytes() -> None:
    nodes = {"x": _build_node_stats("node-1", 250_000_000, 100, 20), "y": _build_node_stats("node-2", 500_000, 3)}
    first, second = http.read_heaps(StubNode({"/_nodes/stats/jvm": {"nodes": nodes}}))
    assert (first.node, first.used_mb, first.collecting_s) == ("node-1", 250, 0.12)
    assert (second.node, second.used_mb, second.collecting_s) == ("node-2", 0.5, 0.003)


def test_the_size_of_an_index_is_read_with_and_without_replicas() -> None:
    def build_stats(**stats: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
        return {"indices": {"photos": stats}}

    store = build_stats(primaries={"store": {"size_in_bytes": 900}}, total={"store": {"size_in_bytes": 1800}})
    node = StubNode(
        {
            "/photos/_stats/store": store,
            "/photos/_stats/segments": build_stats(primaries={"segments": {"count": 6}}),
            "/photos/_count": {"count": 7},
        }
    )
    stored = measure.read_stored(node, "photos")
    assert (stored.documents, stored.primary_bytes, stored.all_bytes, stored.segments) == (7, 900, 1800, 6)
