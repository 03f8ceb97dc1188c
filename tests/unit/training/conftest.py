"""Fixtures of trainings: a data folder and a tiny training set."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.models import tiny_training


@pytest.fixture(autouse=True)
def set_stair_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))


@pytest.fixture
def training_folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path / "set")
    return tmp_path / "set"
