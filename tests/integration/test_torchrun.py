"""`stair-es train` under torchrun: two processes over gloo, one of which is killed; signals; wrong options."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from support.models import tiny_training
from support.polling import poll_until

from stair_es.training.train import train_model

ROOT = Path(__file__).parents[2]
CHANGES = {"recipe.steps": 40, "validation.every": 3, "data.augment": "strong"}
TIMEOUT_S = 300.0
pytestmark = pytest.mark.nightly("torchrun; test_train_workers has two and four workers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set, and in `straight` the checkpoint of two undisturbed workers."""
    folder = tmp_path_factory.mktemp("torchrun")
    tiny_training.write_set(folder / "set", dropout=0.0)
    with start_torchrun(folder, "straight") as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert errors.count("model: ") == 1  # the first worker alone prints
    return folder


@contextmanager
def start_torchrun(folder: Path, out: str, *more: str, launcher: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """Start two workers; what still runs at the end of the context is ended."""
    changes = [part for name, value in CHANGES.items() for part in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *launcher]
    command += ["-m", "stair_es.cli", "train", "set/tiny.toml", "--out", out, "--device", "cpu", *changes, *more]
    environment = os.environ | {"STAIR_ES_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(TIMEOUT_S)


def wait_for_steps(process: subprocess.Popen[str], out: Path, step: int) -> None:
    """Wait until the log has come to a step."""

    def has_come() -> bool:
        assert process.poll() is None, process.communicate()
        return (out / "log.csv").is_file() and f"\n{step}," in (out / "log.csv").read_text()

    poll_until(has_come)


def find_worker(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    return next(each for each in psutil.Process(process.pid).children() if each.environ().get("RANK") == str(rank))


def read_losses(out: Path) -> list[float]:
    with (out / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]


def test_two_processes_match_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(folder / "home"))
    train_model(tiny_training.read_config(folder / "set", CHANGES), folder / "alone", device="cpu")
    assert read_losses(folder / "straight")[:10] == pytest.approx(read_losses(folder / "alone")[:10], rel=1e-3)
    one, two = (load_file(folder / name / "model.safetensors") for name in ("alone", "straight"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name].float(), tensor.float(), atol=2e-2, rtol=1e-2, msg=name)


def test_a_killed_worker_restarts_all_to_the_same_model_bit_for_bit(folder: Path) -> None:
    with start_torchrun(folder, "killed", "--restart", launcher=("--max-restarts", "1")) as process:
        wait_for_steps(process, folder / "killed", 8)
        find_worker(process, 1).kill()
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert "resuming the training in killed" in errors  # the first start alone obeys --restart
    for name in ("model.safetensors", "log.csv"):
        assert (folder / "killed" / name).read_bytes() == (folder / "straight" / name).read_bytes(), name


def test_a_lost_worker_or_a_signal_ends_all_and_keeps_the_state(folder: Path) -> None:
    with start_torchrun(folder, "ended") as process:
        wait_for_steps(process, folder / "ended", 4)
        find_worker(process, 1).kill()
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, errors
    assert "lost the connection to another worker" in errors
    with start_torchrun(folder, "ended") as process:
        wait_for_steps(process, folder / "ended", 12)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode != 0
    assert "resuming the training in ended" in errors
    assert (folder / "ended" / "state.pt").is_file()
    assert not (folder / "ended" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "code"), [(("--workers", "2"), "option-conflict"), (("--set", "batch.size=7"), "config-error")]
)
def test_an_error_ends_all_workers(folder: Path, options: tuple[str, ...], code: str) -> None:
    with start_torchrun(folder, "none", "--json", *options) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, errors
    assert f'"code": "{code}"' in output
    assert not (folder / "none").exists()
