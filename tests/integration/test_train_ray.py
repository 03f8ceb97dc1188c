"""Several workers on a local Ray match one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.errors import expect_error
from support.models import tiny_training

from stair_es.errors import StairError, UsageError
from stair_es.system import ray_session
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks, StepMetrics
from stair_es.training.ray_train import train_on_ray
from stair_es.training.train import train_model

SMALL = {"optim.lr": 1e-3, "optim.backbone_lr": 1e-4, "validation.keep": "last", "model.text.backbone.name": "text"}


@pytest.fixture
def training_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    tiny_training.write_set(tmp_path / "set")
    still = (tmp_path / "set" / "text" / "config.json").read_text()
    without = still.replace("{", '{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, ', 1)
    (tmp_path / "set" / "text" / "config.json").write_text(without)  # dropout is drawn worker by worker
    return tmp_path / "set"


@pytest.fixture
def open_session() -> Iterator[None]:
    with ray_session.open_ray_session("train", None, error_type=StairError, alternative=""):
        yield


def read_losses(out: Path) -> list[float]:
    with (out / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]


@pytest.mark.usefixtures("open_session")
def test_two_workers_match_one_and_resume(training_folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(training_folder, SMALL)
    alone = train_model(config, tmp_path / "alone", device="cpu")
    messages: list[str] = []
    metrics: list[StepMetrics] = []
    callbacks = Callbacks(on_message=messages.append, on_metrics=metrics.append, on_progress=lambda what, done, total: None)
    together = train_on_ray(config, tmp_path / "together", callbacks, workers=2, device="cpu")
    assert (together.steps, together.pairs, together.best_step) == (alone.steps, alone.pairs, alone.best_step)
    assert read_losses(tmp_path / "together") == pytest.approx(read_losses(tmp_path / "alone"), rel=1e-3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "together"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name].float(), tensor.float(), atol=2e-3, rtol=1e-3, msg=name)
    assert [step_metrics.step for step_metrics in metrics if "loss" in step_metrics.values] == [1, 2, 3, 4, 5, 6]
    assert sum(line.startswith("model: ") for line in messages) == 1  # the first worker alone speaks
    again = train_on_ray(config, tmp_path / "together", NO_CALLBACKS, workers=2, device="cpu")  # it is finished already
    assert again.steps == alone.steps
    two_again = load_file(tmp_path / "together" / "model.safetensors")
    assert all(torch.equal(two[name], two_again[name]) for name in two)
    with expect_error("state-of-other-training", UsageError):
        train_on_ray(
            tiny_training.read_config(training_folder, {**SMALL, "seed": 5}),
            tmp_path / "together",
            NO_CALLBACKS,
            workers=2,
            device="cpu",
        )


def test_impossible_settings_are_reported_first(training_folder: Path, tmp_path: Path) -> None:
    with expect_error("config-error", UsageError) as caught:
        train_on_ray(tiny_training.read_config(training_folder), tmp_path / "out", NO_CALLBACKS, workers=4, device="cpu")
    assert re.findall(r"\d+", caught.value.message) == ["6", "4"]
    with expect_error("ray-unreachable") as caught:
        train_on_ray(
            tiny_training.read_config(training_folder),
            tmp_path / "out",
            NO_CALLBACKS,
            workers=2,
            device="cpu",
            address="127.0.0.1:9",
        )
    assert "127.0.0.1:9" in caught.value.message
    assert not (tmp_path / "out").exists()
