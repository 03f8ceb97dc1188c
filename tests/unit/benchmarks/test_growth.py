"""The benchmark of a growing cluster: partial results and sent documents."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stair_es.types import SparseVector


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """Modules of a folder that is no package."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        yield {
            name: importlib.import_module(name)
            for name in (
                "growth",
                "cluster_growth.corpus",
                "cluster_growth.index",
                "cluster_growth.measure",
                "harness.http",
                "harness.result",
            )
        }
    finally:
        sys.path.pop(0)


def step(bench: dict[str, ModuleType], documents: int) -> Any:  # noqa: ANN401  of a module that is found at run time
    stored = bench["cluster_growth.measure"].Stored(
        documents=documents, primary_bytes=900 * documents, all_bytes=900 * documents, segments=6
    )
    return bench["cluster_growth.index"].Step(
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


def test_interrupted_runs_keep_measurements(
    bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    growth, file = bench["growth"], tmp_path / "growth.json"

    class Loads:
        size, loads = 10_000, 3

        def __init__(self, *_: object) -> None:
            pass

        def draw(self) -> None:
            pass

    def measure(*_: object) -> Iterator[Any]:
        yield step(bench, 10_000)
        assert json.loads(file.read_text())["figures"]["steps"][0]["docs_per_s"] == 5000  # it is on disk before the next load
        raise RuntimeError("node-1 has died")

    monkeypatch.setattr(growth, "Loads", Loads)
    monkeypatch.setattr(growth, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["growth.py", "--docs", "30000", "--loads", "3", "--json", str(file)])
    with pytest.raises(RuntimeError, match="node-1"):
        growth.main()
    kept = bench["harness.result"].Result.read(file)
    assert kept.remarks[0] == "**it ended early**: RuntimeError: node-1 has died"
    assert kept.tables[0].rows == (("10,000", "5,000", "4,000", "900", "6", "200 to 900", "2.0", "3"),)
    assert kept.tables[1].rows == (("10,000", "1.2 / 4.0", "7.0 / 9.0"),)
    assert kept.tables[2].rows == (("10,000", "40", "3.0 / 30.0", "-"),)
    assert "ended early" in capsys.readouterr().out


def test_documents_have_unique_ids_and_hashes(bench: dict[str, ModuleType]) -> None:
    rng = np.random.default_rng(0)
    vector = SparseVector(("dog", "grass"), (0.5, 0.25))
    made = [bench["cluster_growth.corpus"]._build_document(row, vector, rng, None) for row in range(50)]
    assert len({id_ for id_, _ in made}) == len({doc["sha256"] for _, doc in made}) == len({doc["uri"] for _, doc in made}) == 50
    _, doc = made[0]
    assert (len(doc["version"]), len(doc["sha256"]), len(doc["fingerprint"])) == (32, 64, 32)
    assert doc["tokens"] == {"dog": 0.5, "grass": 0.25}
    assert "thumbnail" not in doc


def test_partial_loads_fail(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="multiple of 10000"):
        bench["cluster_growth.corpus"].Loads(tmp_path, 15_000, 1)


class AnswersByPath:
    """A node whose answers are given, by path."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def request_json(self, method: str, path: str) -> Any:  # noqa: ANN401  JSON
        return self.answers.get(path, {}) if method == "GET" else {}


def _build_node_stats(name: str, used_bytes: int, *collected_ms: int) -> dict[str, Any]:
    collectors = {str(number): {"collection_time_in_millis": each} for number, each in enumerate(collected_ms)}
    return {"name": name, "jvm": {"mem": {"heap_used_in_bytes": used_bytes}, "gc": {"collectors": collectors}}}


def test_a_heap_is_read_in_millions_of_bytes(bench: dict[str, ModuleType]) -> None:
    nodes = {"x": _build_node_stats("node-1", 250_000_000, 100, 20), "y": _build_node_stats("node-2", 500_000, 3)}
    first, second = bench["harness.http"].read_heaps(AnswersByPath({"/_nodes/stats/jvm": {"nodes": nodes}}))
    assert (first.node, first.used_mb, first.collecting_s) == ("node-1", 250, 0.12)
    assert (second.node, second.used_mb, second.collecting_s) == ("node-2", 0.5, 0.003)


def test_the_size_of_an_index_is_read_with_and_without_replicas(bench: dict[str, ModuleType]) -> None:
    def build_stats(**stats: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
        return {"indices": {"photos": stats}}

    store = build_stats(primaries={"store": {"size_in_bytes": 900}}, total={"store": {"size_in_bytes": 1800}})
    http = AnswersByPath(
        {
            "/photos/_stats/store": store,
            "/photos/_stats/segments": build_stats(primaries={"segments": {"count": 6}}),
            "/photos/_count": {"count": 7},
        }
    )
    stored = bench["cluster_growth.measure"].read_stored(http, "photos")
    assert (stored.documents, stored.primary_bytes, stored.all_bytes, stored.segments) == (7, 900, 1800, 6)
