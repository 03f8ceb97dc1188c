"""The metric logger of MLflow, with a store in files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from stair_es.training.metric_loggers import LoggedRun, MlflowLogger


def build_run(folder: Path, step: int) -> LoggedRun:
    return LoggedRun(folder=folder, project="pets", name="first", step=step, parameters={"optim.lr": 0.1})


def test_mlflow_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client_class = import_module("mlflow").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    ids = []
    for step in (0, 2, 0):
        logger = MlflowLogger(build_run(tmp_path, step))
        for number in range(step + 1, step + 3):
            logger.log_metrics(number, {"val/t2i@1": number / 10})
        logger.close()
        ids.append((tmp_path / "mlflow.id").read_text().strip())
    assert ids[0] == ids[1] != ids[2]
    client = client_class()
    run = client.get_run(ids[0])
    assert (run.info.status, run.info.run_name, run.data.params) == ("FINISHED", "first", {"optim.lr": "0.1"})
    assert [metric.step for metric in client.get_metric_history(ids[0], "val/t2i_at_1")] == [1, 2, 3, 4]
    experiment = client.get_experiment_by_name("pets")
    assert experiment is not None
