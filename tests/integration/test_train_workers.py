"""Several processes: losses and gradients are those of one process with the whole batch."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file
from support.models import tiny_training
from support.models.torch_workers import CASES, build_model, compute_case, run_steps, run_worker
from torch import multiprocessing

from stair_es.training.workers import SingleProcess

TEXT_BIAS = "text.head.bias_F"


def run_workers(folder: Path, count: int) -> None:
    """Run the processes, whose results are files in the folder."""
    multiprocessing.start_processes(run_worker, (str(folder), count), nprocs=count, start_method="forkserver")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradients_are_those_of_one_process(tmp_path: Path, count: int) -> None:
    run_workers(tmp_path, count)
    ranks = [torch.load(tmp_path / f"{rank}-cases.pt", weights_only=True) for rank in range(count)]
    for case_name, case in CASES.items():
        expected = compute_case(case, SingleProcess())
        for gradients in (rank[case_name] for rank in ranks):
            assert gradients.keys() == expected.keys()
            for name, tensor in expected.items():
                atol = 1e-5 * max(1.0, float(tensor.abs().max()))  # small values are sums of large ones, in another order
                torch.testing.assert_close(gradients[name], tensor, atol=atol, rtol=1e-5, msg=f"{case_name}: {name}")
                assert torch.equal(gradients[name], ranks[0][case_name][name]), f"{case_name}: {name}"
    for rank in range(count):
        results = torch.load(tmp_path / f"{rank}-collectives.pt", weights_only=True)
        rows = [float(row) for row in range(1, count + 1) for _ in range(2)]
        total = count * (count - 1) / 2
        assert {name: value.tolist() for name, value in results.items()} == {
            "gathered": rows,
            "narrow": rows,
            "sums": [*(total + count * number for number in range(5)), total + count, total + count],
            "first": [7],
        }


def test_updates_match_and_a_finished_training_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    tiny_training.write_set(tmp_path / "set")
    tiny_training.run_training(tmp_path / "set", tmp_path / "out")
    checkpoint = (tmp_path / "out" / "model.safetensors").read_bytes()
    run_workers(tmp_path, 2)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == checkpoint  # it was finished already
    single = run_steps(build_model(), SingleProcess(), chunk=0)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, expected in single.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, atol=2e-5, rtol=1e-4, msg=name)
    assert not torch.equal(dict(build_model().named_parameters())[TEXT_BIAS], single[TEXT_BIAS])


@pytest.mark.nightly("torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch.compile itself
def test_a_compiled_training_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # All that the default backend does apart from C++ or Triton, whose compilers many machines lack.
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    tiny_training.write_set(tmp_path / "set")
    changes = {"recipe.steps": 1, "data.validation": []}
    for name, is_compiled in (("plain", False), ("compiled", True)):
        tiny_training.run_training(tmp_path / "set", tmp_path / name, {**changes, "optim.compile": is_compiled})
    plain, compiled = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-3, rtol=1e-3, msg=name)  # AdamW's first step is a sign
