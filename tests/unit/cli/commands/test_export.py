"""`stair-es export` of a table."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.models import tiny_stair

RUNNER = CommandRunner({}, "export")


def test_the_table_of_the_default_model_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value = RUNNER.read_json("--table")
    lines = gzip.decompress((tmp_path / "stair-mini-3.tsv.gz").read_bytes()).decode().splitlines()
    assert value == {
        "model": "stair-mini-3",
        "file": "stair-mini-3.tsv.gz",
        "bytes": (tmp_path / "stair-mini-3.tsv.gz").stat().st_size,
        "phrases": len(lines) - 5,
    }
    assert value["bytes"] < 2e6
    assert "kittens\tkitten\t" in "\n".join(lines)


def test_other_models_have_no_table(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tiny_stair.write_checkpoint(tmp_path / "m")
    error = RUNNER.read_error(folder, "--table", "--out", tmp_path / "table.tsv")
    assert error.code == "model-without-table"
    assert f"--model {folder}" in error.remedy
    assert not (tmp_path / "table.tsv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        ([], "no-checkpoint-given", "--table"),
        (["nowhere"], "no-such-folder", "'nowhere'"),
        ([".", "--out", "graphs"], "option-conflict", "--out"),
        ([".", "--words", "words.json"], "option-conflict", "--words"),
        (["--table", "--out", "nowhere/table.tsv"], "output-not-writable", "nowhere/table.tsv"),
    ],
)
def test_wrong_usage_is_reported(arguments: list[str], code: str, fact: str) -> None:
    error = RUNNER.read_error(*arguments)
    assert (error.code, error.exit_code) == (code, 2)
    assert fact in error.message
