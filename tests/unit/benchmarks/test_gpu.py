"""The benchmark of a GPU, on the CPU with tiny models."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from support.benchmarks import import_benchmark
from support.models import tiny_checkpoints, tiny_dense

bench = import_benchmark("gpu")


def write_d2s(folder: Path) -> Path:
    tiny_dense.write_blip(folder / "blip")
    config, weights = tiny_checkpoints.build_d2s_config("../blip"), tiny_checkpoints.draw_d2s_weights()
    return tiny_checkpoints.write_checkpoint(folder / "d2s", config, weights)


@pytest.mark.parametrize(("write", "networks"), [(tiny_dense.write_clip, 1), (write_d2s, 2)], ids=["clip", "d2s"])
def test_all_loops_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path], networks: int
) -> None:
    """D2S has two networks, its BLIP and its head; CLIP has no tokens."""
    model, file = write(tmp_path / "model"), tmp_path / "result.json"
    options = {"--model": model, "--device": "cpu", "--images": 5, "--batch": 2, "--rounds": 1, "--json": file}
    monkeypatch.setattr(sys, "argv", ["gpu.py", *(str(each) for option in options.items() for each in option)])
    bench.main()
    result = json.loads(file.read_text())
    rates = result["figures"]["images_per_s"]
    assert list(rates) == [row[0] for row in result["tables"][0]["rows"]] == ["decode", "encode", "whole", "bare"]
    assert min(rates.values()) > 0
    assert "float32 on CPU" in result["about"]
    assert [ratio["against"] for ratio in result["ratios"]] == ["the bare network"]
    encoder = bench.registry.load_encoder(bench.ModelSpec(name=str(model)))
    assert len(bench.capture_computations(encoder, 3)) == networks


def test_on_a_gpu_the_whole_has_a_goal_too() -> None:
    rates = {"decode": [300.0, 200.0, 250.0], "encode": [90.0], "whole": [72.0], "bare": [100.0]}
    result = bench.build_result("x", rates, 4, is_on_gpu=True)
    assert [round(ratio.value, 2) for ratio in result.ratios] == [0.9, 0.8]
    assert "1.4 cores" in result.remarks[0]
