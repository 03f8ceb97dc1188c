"""`stair-es policy` before it reaches a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.errors import ResourceError, StairError

NOWHERE = {"STAIR_ES_URL": "http://127.0.0.1:1", "STAIR_ES_INDEX": ""}


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_a_file_that_is_no_policy_is_told_before_a_cluster_is_asked(command: str, tmp_path: Path) -> None:
    (file := tmp_path / "p.json").write_text('{"stair_es_policy": 1, "rename": {"a": "b", "b": "c"}}')
    error = CliRunner().invoke(app, ["policy", command, str(file)], env=NOWHERE).exception
    assert isinstance(error, ResourceError)
    assert f"policy {file}: rename.a: 'b' is itself replaced by rename.b" in error.message


def test_ingest_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (file := tmp_path / "p.json").write_text('{"stair_es_policy": 1}')
    arguments = ["ingest", str(tmp_path / "a.jpg"), "-i", "a", "--policy", str(file)]
    error = CliRunner().invoke(app, arguments, env=NOWHERE).exception
    assert isinstance(error, ResourceError)
    assert "it has no rule" in error.message


@pytest.mark.parametrize(
    "arguments", [["plan"], ["plan", "no/such/file"], ["apply", "no/such/file"], ["apply", "--slices", "-1"], ["rollback", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["policy", *arguments], env=NOWHERE).exit_code == 2


def test_a_bad_name_is_told_before_anything_is_asked() -> None:
    error = CliRunner().invoke(app, ["policy", "show", "-i", "No Name"], env=NOWHERE).exception
    assert isinstance(error, StairError)
    assert "not an index name" in error.message
