"""Several workers on a local Ray match one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.models import tiny_training

from stair_es.errors import StairError, UsageError
from stair_es.system import ray_session
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks, StepMetrics
from stair_es.training.ray_train import train_on_ray
from stair_es.training.train import train_model

SMALL = {"optim.lr": 1e-3, "optim.backbone_lr": 1e-4, "validation.keep": "last", "model.text.backbone.name": "text"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    tiny_training.write_set(tmp_path / "set")
    still = (tmp_path / "set" / "text" / "config.json").read_text()
    without = still.replace("{", '{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, ', 1)
    (tmp_path / "set" / "text" / "config.json").write_text(without)  # dropout is drawn worker by worker
    return tmp_path / "set"


@pytest.fixture
def _session() -> Iterator[None]:
    with ray_session.open_ray_session("train", None, error_type=StairError, alternative=""):
        yield


def losses(out: Path) -> list[float]:
    with (out / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]


@pytest.mark.usefixtures("_session")
def test_two_workers_match_one_and_resume(folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(folder, SMALL)
    alone = train_model(config, tmp_path / "alone", device="cpu")
    messages: list[str] = []
    moments: list[StepMetrics] = []
    callbacks = Callbacks(on_message=messages.append, on_metrics=moments.append, on_progress=lambda what, done, total: None)
    together = train_on_ray(config, tmp_path / "together", callbacks, workers=2, device="cpu")
    assert (together.steps, together.pairs, together.best_step) == (alone.steps, alone.pairs, alone.best_step)
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-3)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "together"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name].float(), tensor.float(), atol=2e-3, rtol=1e-3, msg=name)
    assert [moment.step for moment in moments if "loss" in moment.values] == [1, 2, 3, 4, 5, 6]
    assert sum(line.startswith("model: ") for line in messages) == 1  # the first worker alone speaks
    again = train_on_ray(config, tmp_path / "together", NO_CALLBACKS, workers=2, device="cpu")  # it is finished already
    assert again.steps == alone.steps
    two_again = load_file(tmp_path / "together" / "model.safetensors")
    assert all(torch.equal(two[name], two_again[name]) for name in two)
    with pytest.raises(UsageError, match="another configuration"):
        train_on_ray(
            tiny_training.read_config(folder, {**SMALL, "seed": 5}), tmp_path / "together", NO_CALLBACKS, workers=2, device="cpu"
        )


def test_impossible_settings_are_reported_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="6 can't be divided among 4"):
        train_on_ray(tiny_training.read_config(folder), tmp_path / "out", NO_CALLBACKS, workers=4, device="cpu")
    with pytest.raises(StairError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"):
        train_on_ray(
            tiny_training.read_config(folder), tmp_path / "out", NO_CALLBACKS, workers=2, device="cpu", address="127.0.0.1:9"
        )
    assert not (tmp_path / "out").exists()
