"""The benchmark of a growing cluster: what it keeps when it ends early, and the documents that it sends."""

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
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        yield {
            name: importlib.import_module(name)
            for name in ("growth", "growth_corpus", "growth_index", "growth_measure", "result")
        }
    finally:
        sys.path.pop(0)


def step(bench: dict[str, ModuleType], documents: int) -> Any:  # noqa: ANN401  of a module that is found at run time
    stored = bench["growth_measure"].Stored(
        documents=documents, primary_bytes=900 * documents, all_bytes=900 * documents, segments=6
    )
    return bench["growth_index"].Step(
        name=f"{documents:,}",
        stored=stored,
        idle_ms={"3 tokens": (1.25, 4.0), "an image": (7.0, 9.0)},
        docs_per_s=5000.0,
        docs_per_s_asked=4000.0,
        asked_ms={"3 tokens": (3.0, 30.0)},
        asked=40,
        heap_least_mb=200.0,
        heap_most_mb=900.0,
        collecting_share=0.02,
        settle_s=3.0,
    )


def test_a_run_that_ends_early_keeps_what_was_measured(
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
    kept = bench["result"].Result.read(file)
    assert kept.remarks[0] == "**it ended early**: RuntimeError: node-1 has died"
    assert kept.tables[0].rows == (("10,000", "5,000", "4,000", "900", "6", "200 to 900", "2.0", "3"),)
    assert kept.tables[1].rows == (("10,000", "1.2 / 4.0", "7.0 / 9.0"),)
    assert kept.tables[2].rows == (("10,000", "40", "3.0 / 30.0", "-"),)
    assert "ended early" in capsys.readouterr().out


def test_documents_have_ids_and_hashes_of_their_own(bench: dict[str, ModuleType]) -> None:
    rng = np.random.default_rng(0)
    vector = SparseVector(("dog", "grass"), (0.5, 0.25))
    made = [bench["growth_corpus"]._document(row, vector, rng, None) for row in range(50)]
    assert len({id_ for id_, _ in made}) == len({doc["sha256"] for _, doc in made}) == len({doc["uri"] for _, doc in made}) == 50
    _, doc = made[0]
    assert (len(doc["version"]), len(doc["sha256"]), len(doc["fingerprint"])) == (32, 64, 32)
    assert doc["tokens"] == {"dog": 0.5, "grass": 0.25}
    assert "thumbnail" not in doc


def test_a_load_is_made_of_whole_parts(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="multiple of 10000"):
        bench["growth_corpus"].Loads(tmp_path, 15_000, 1)
