"""`stair-es train`, killed in the middle and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest
from support.commands import CommandRunner
from support.models import tiny_training
from support.polling import poll_until
from support.warm_commands import WarmCommand, start_warm

CHANGES = ("recipe.name=stair-grounded", "recipe.steps=16", "optim.ema=0.9", "data.augment=strong", "validation.every=3")
SHARDS = (
    "data.train=[{shards='shards/{000..010}.tar'}]",
    "data.readers=2",
    "data.shuffle=4",
    "batch.accumulate=2",
    "optim.name=lamb",
)
"""50 pairs, one broken image and a missing tar: the killed run is in a later epoch."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path / "set")
    tiny_training.write_shards(tmp_path / "set", pairs=50, per_shard=5, **{"x.png": b"broken", "x.txt": b"a dog"})
    return tmp_path / "set"


def build_arguments(folder: Path, out: str, *more: str) -> list[str]:
    changes = [part for change in CHANGES for part in ("--set", change)]
    return ["train", str(folder / "tiny.toml"), "--out", str(folder / out), "--device", "cpu", *changes, *more]


def start_training(folder: Path, out: str, *more: str) -> AbstractContextManager[WarmCommand]:
    return start_warm(build_arguments(folder, out, *more), os.environ | {"STAIR_ES_HOME": str(folder / "home")})


def run_training(folder: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    with start_training(folder, out, *more) as running:
        return running.wait()


def wait_for_steps(folder: Path, out: str, running: WarmCommand, step: int) -> None:
    """Until the log has come to a step; the run must not be at its end by then."""
    log = folder / out / "log.csv"

    def has_come() -> bool:
        assert running.process.is_alive(), running.wait()
        return log.is_file() and f"\n{step}," in log.read_text()

    poll_until(has_come)


@pytest.mark.parametrize(
    ("data", "kills"),
    [
        pytest.param((), (4, 11), id="pairs"),
        pytest.param(SHARDS, (11,), id="shards", marks=pytest.mark.nightly("killed while it reads shards")),
    ],
)
def test_a_killed_run_continues_to_the_same_model_bit_for_bit(
    folder: Path, data: tuple[str, ...], kills: tuple[int, ...]
) -> None:
    changes = [part for change in data for part in ("--set", change)]
    straight = run_training(folder, "straight", "--json", *changes)
    assert straight.returncode == 0, straight.stderr
    output = json.loads(straight.stdout)
    assert (output["steps"], output["checkpoint"], output["pairs"]) == (
        16,
        str(folder / "straight"),
        None if data else tiny_training.PAIRS,
    )
    assert len(output["problems"]) == (2 if data else 0)
    for step in kills:  # in the first stage and in the last but one, after a saved state that isn't of this step
        with start_training(folder, "killed", *changes) as running:
            wait_for_steps(folder, "killed", running, step)
            readers = psutil.Process(running.process.pid).children(recursive=True)
            running.send_signal(signal.SIGKILL)
            assert running.wait().returncode == -signal.SIGKILL
            assert len(readers) >= (2 if data else 0)
            assert psutil.wait_procs(readers, timeout=120)[1] == []
        assert (folder / "killed" / "state.pt").is_file()
        assert not (folder / "killed" / "model.safetensors").exists()
    last = run_training(folder, "killed", "--json", *changes)
    assert last.returncode == 0, last.stderr
    assert "resuming the training" in last.stderr
    for name in ("model.safetensors", "log.csv", "config.json", "README.md", "train.toml"):
        assert (folder / "killed" / name).read_bytes() == (folder / "straight" / name).read_bytes(), name
    assert json.loads(last.stdout) | {"checkpoint": ""} == output | {"checkpoint": ""}
    once_more = run_training(folder, "killed", "--restart", "--json", "--set", "recipe.steps=4")
    assert once_more.returncode == 0, once_more.stderr
    assert json.loads(once_more.stdout)["steps"] == 4


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "SIGTERM")])
def test_signals_exit_with_their_code_and_a_hint(folder: Path, number: int, code: int, name: str) -> None:
    with start_training(folder, "out", "--set", "recipe.steps=100000") as running:
        wait_for_steps(folder, "out", running, 4)
        running.send_signal(number)
        done = running.wait()
    assert (done.returncode, done.stdout) == (code, "")
    *_, hint, reason = done.stderr.strip().splitlines()
    assert "resumes" in hint
    assert name in reason
    assert "Traceback" not in done.stderr


def test_settings_are_checked_before_the_folder_is_made(folder: Path) -> None:
    error = CommandRunner({}).read_error(*build_arguments(folder, "out", "--set", "optim.lr=-1"))
    assert (error.exit_code, error.code, "tiny.toml.optim.lr" in error.message) == (2, "config-error", True)
    assert not (folder / "out").exists()
