"""`stair-es export` of a table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from support.models import tiny_stair
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.errors import ModelError, UsageError


def test_the_table_of_the_default_model_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", "--table", "--json"])
    value = json.loads(result.stdout)
    lines = gzip.decompress((tmp_path / "stair-mini-2.tsv.gz").read_bytes()).decode().splitlines()
    assert value == {
        "model": "stair-mini-2",
        "file": "stair-mini-2.tsv.gz",
        "bytes": (tmp_path / "stair-mini-2.tsv.gz").stat().st_size,
        "phrases": len(lines) - 5,
    }
    assert value["bytes"] < 2e6
    assert "kittens\tkitten\t" in "\n".join(lines)


def test_other_models_have_no_table(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tiny_stair.write_checkpoint(tmp_path / "m")
    result = CliRunner().invoke(app, ["export", str(folder), "--table", "--out", str(tmp_path / "table.tsv")])
    assert isinstance(result.exception, ModelError)
    assert "has no table" in result.exception.message
    assert f"stair-es encoder --model {folder}" in result.exception.remedy
    assert not (tmp_path / "table.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither the folder of a checkpoint nor --table is given"),
        (["nowhere"], "the folder 'nowhere' does not exist"),
        ([".", "--out", "graphs"], "--out is for --table"),
        (["--table", "--out", "nowhere/table.tsv"], "nowhere/table.tsv can't be written: No such file or directory"),
    ],
)
def test_wrong_usage_is_reported(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in result.exception.message
