"""The installed `stair-es train`, killed in the middle and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.models import tiny_training

CHANGES = ("recipe.name=stair-grounded", "recipe.steps=16", "optim.ema=0.9", "data.augment=strong", "validation.every=3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path / "set")
    return tmp_path / "set"


def build_command(folder: Path, out: str, *more: str) -> list[str]:
    changes = [part for change in CHANGES for part in ("--set", change)]
    stair_es = str(Path(sys.executable).with_name("stair-es"))
    return [
        stair_es,
        "train",
        str(folder / "tiny.toml"),
        "--out",
        str(folder / out),
        "--device",
        "cpu",
        *changes,
        *more,
    ]


def build_environment(folder: Path) -> dict[str, str]:
    return os.environ | {"STAIR_ES_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}


def start_training(folder: Path, out: str, *more: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(build_command(folder, out, *more), stdout=pipe, stderr=pipe, text=True, env=build_environment(folder))


def run_training(folder: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        build_command(folder, out, *more),
        capture_output=True,
        text=True,
        env=build_environment(folder),
        check=False,
    )


def wait_for_steps(folder: Path, out: str, running: subprocess.Popen[str], step: int) -> None:
    """Until the log has come to a step; the run must not be at its end by then."""
    log = folder / out / "log.csv"
    limit = time.monotonic() + 300
    while time.monotonic() < limit:
        assert running.poll() is None, running.communicate()
        if log.is_file() and f"\n{step}," in log.read_text():
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} didn't come")


def test_a_killed_run_continues_to_the_same_model_bit_for_bit(folder: Path) -> None:
    straight = run_training(folder, "straight", "--json")
    assert straight.returncode == 0, straight.stderr
    output = json.loads(straight.stdout)
    assert (output["steps"], output["checkpoint"], output["pairs"]) == (
        16,
        str(folder / "straight"),
        tiny_training.PAIRS,
    )
    for step in (4, 11):  # in the first stage and in the last but one, after a saved state that isn't of this step
        with start_training(folder, "killed") as running:
            try:
                wait_for_steps(folder, "killed", running, step)
            finally:
                running.send_signal(signal.SIGKILL)
            running.communicate(timeout=120)
        assert running.returncode == -signal.SIGKILL
        assert (folder / "killed" / "state.pt").is_file()
        assert not (folder / "killed" / "model.safetensors").exists()
    last = run_training(folder, "killed", "--json")
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
        try:
            wait_for_steps(folder, "out", running, 4)
            running.send_signal(number)
            out, errors = running.communicate(timeout=120)
        finally:
            running.kill()
    assert (running.returncode, out) == (code, "")
    *_, hint, reason = errors.strip().splitlines()
    assert "resumes" in hint
    assert name in reason
    assert "Traceback" not in errors


def test_errors_are_reported_as_json_too(folder: Path) -> None:
    done = run_training(folder, "out", "--json", "--set", "optim.lr=-1")
    assert done.returncode == 2
    error = json.loads(done.stdout)
    assert (error["code"], "tiny.toml.optim.lr" in error["error"]) == ("config-error", True)
    assert error["error"] in done.stderr
    assert not (folder / "out").exists()
