"""Metric loggers: built-in ones in their offline modes, third-party ones, and those that fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.errors import expect_error
from support.models.tiny_training import run_training
from support.plugin_metadata import write_entry_points

from stair_es import plugins
from stair_es.errors import MissingExtra
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.checkpointing import STATE_FILE
from stair_es.training.config.schema import LogConfig
from stair_es.training.metric_loggers import LoggedRun, MetricLog, WandbLogger, flatten_values

PLUGINS = """
from pathlib import Path

class Recorder:
    def __init__(self, run):
        self.path = run.folder / "recorded.txt"
        self.path.write_text(f"{run.project} {run.name} {run.step} {run.parameters['recipe.name']}\\n")

    def log_metrics(self, step, values):
        with self.path.open("a") as file:
            file.write(f"{step} {' '.join(values)}\\n")

    def close(self):
        with self.path.open("a") as file:
            file.write("closed\\n")

class Failing(Recorder):
    def log_metrics(self, step, values):
        raise RuntimeError("disk full")

def refuse(run):
    raise OSError("no server")
"""


@pytest.fixture
def third_parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loggers of another package: one that records, one that fails while logging, and one that can't be opened."""
    site = tmp_path / "site"
    names = (("recorder", "Recorder"), ("failing", "Failing"), ("refused", "refuse"))
    points = [f"{name} = recording_loggers:{value}" for name, value in names]
    write_entry_points(site, "recording", *points, group="metric_loggers")
    (site / "recording_loggers.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(str(site))
    plugins.list_plugins.cache_clear()
    yield
    plugins.list_plugins.cache_clear()


def build_run(folder: Path, step: int) -> LoggedRun:
    return LoggedRun(folder=folder, project="pets", name="first", step=step, parameters={"optim.lr": 0.1})


@pytest.mark.usefixtures("third_parties")
def test_loggers_of_others_and_failing_ones(training_folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    callbacks = replace(NO_CALLBACKS, on_message=messages.append)
    changes = {"log.to": ["failing", "recorder", "refused"], "log.project": "pets"}
    assert run_training(training_folder, tmp_path / "out", changes, callbacks=callbacks).steps == 6
    lines = (tmp_path / "out" / "recorded.txt").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("pets tiny 0 grounded", "closed")
    assert any(line.startswith("1 train/loss ") for line in lines)
    assert any(line.startswith("6 val/t2i@1 ") for line in lines)
    failures = [line for line in messages if "metric logger" in line]
    assert sorted("disk full" in line or "no server" in line for line in failures) == [True, True]
    with expect_error("unknown-metric-logger") as caught:
        run_training(training_folder, tmp_path / "other", {"log.to": ["recoder"]})
    assert "recorder" in caught.value.remedy


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra) as caught:
        MetricLog(LogConfig(to=(name,)), build_run(tmp_path, 0), print)
    assert name in caught.value.remedy


def test_loggers_change_no_result(training_folder: Path, tmp_path: Path) -> None:
    run_training(training_folder, tmp_path / "one", {"log.to": ["tensorboard"]})
    run_training(training_folder, tmp_path / "one", {"log.to": [], "log.run": "other"})  # the state fits
    run_training(training_folder, tmp_path / "two", {"log.to": []})
    assert list((tmp_path / "one" / "tensorboard").iterdir())
    assert not (tmp_path / "two" / "tensorboard").exists()
    for name in ("model.safetensors", "log.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / STATE_FILE).is_file()


def test_wandb_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    messages: list[str] = []
    for step in (0, 2, 0):
        log = MetricLog(LogConfig(to=("wandb",)), build_run(tmp_path, step), messages.append)
        for number in range(step + 1, step + 3):
            log.log_metrics(number, "grounded", "train", {"loss": 1 / number})
        log.close()
    wandb.teardown()
    assert messages == []
    ids = [path.name.rpartition("-")[2] for path in sorted((tmp_path / "wandb").glob("offline-run-*"))]
    assert len(ids) == 3
    assert len(set(ids)) == 2  # a training that starts over is another run
    assert (tmp_path / "wandb.id").read_text().strip() in ids
    assert WandbLogger.description


def test_parameters_have_no_credentials() -> None:
    shards = [{"shards": ["https://host/{0..9}.tar?sig=hunter2", "data/{0..9}.tar"]}]
    values = {"log": {"copy_to": "ftp://me:hunter2@host/run"}, "data": {"train": shards, "captions_prompt": "what @ //[it"}}
    parameters = dict(flatten_values(values))
    assert parameters.keys() == {"log.copy_to", "data.train", "data.captions_prompt"}
    assert "hunter2" not in str(parameters)
    assert [fact for fact in ("ftp://me@host/run", "data/{0..9}.tar", "what @ //[it") if fact not in str(parameters)] == []
