"""Every command with `--json` prints its errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cli.options.decorator import prepare_command

RUNNER = CliRunner()
PASSWORD = ("--url", "http://me:secret@127.0.0.1:1")
"""A URL that is rejected before any request."""
FAILING = {
    "ingest": ("nothing.jpg",),
    "annotate": ("--index", "x", "--image-field", "y", *PASSWORD),
    "ingest-texts": ("nothing.txt",),
    "ingest-labels": ("nothing.jsonl",),
    "export-xmp": ("--index", "x", *PASSWORD),
    "forget": (),
    "search": (),
    "explain": ("x",),
    "inspect": ("x", *PASSWORD),
    "words": PASSWORD,
    "encoder": ("--host", "0.0.0.0"),
    "serve": ("--host", "0.0.0.0"),
    "dashboards publish": ("--dashboards-url", "http://me:secret@127.0.0.1:1"),
    "encode": (),
    "evaluate retrieval": ("nothing.jsonl", "--exact"),
    "evaluate zero-shot": ("folder",),
    "evaluate probe": (),
    "evaluate words": ("nothing",),
    "evaluate labels": ("--index", "x", *PASSWORD),
    "evaluate sparsity": ("nothing",),
    "coverage": ("nothing.log",),
    "query": (),
    "models": ("unheard-of",),
    "plan": ("--images", "1000", "--queries-per-s", "1e9", "--replicas", "0"),
    "train": ("file.toml",),
    "distill": ("nothing", "--out", "new"),
    "export": ("folder",),
    "template publish": ("unheard-of",),
    "template list": PASSWORD,
    "template delete": PASSWORD,
    "node up": ("--heap", "much"),
    "policy show": PASSWORD,
    "policy plan": ("file.toml",),
    "policy apply": PASSWORD,
    "policy rollback": PASSWORD,
    "teach": PASSWORD,
}
NEVER_FAILING = {"config show", "doctor", "node status", "plugins", "template show"}
"""Commands that fail on wrong usage only, which is reported before they run; `doctor` reports what is wrong as its result."""


def list_commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  Typer's classes move
    if path:
        yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from list_commands(child, (*path, name))


def test_each_json_command_is_listed() -> None:
    commands = dict(list_commands(typer.main.get_command(app)))
    with_json = {name for name, command in commands.items() if any(p.name == "as_json" for p in command.params)}
    assert with_json == set(FAILING) | NEVER_FAILING


@pytest.mark.parametrize("command", FAILING)
def test_the_error_is_the_last_line_of_stdout(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.toml").write_text("{")
    env = {"STAIR_ES_URL": None, "STAIR_ES_SERVE_TOKEN": None, "STAIR_ES_HOME": str(tmp_path / "home")}
    result = RUNNER.invoke(app, [*command.split(), *FAILING[command], "--json"], env=env)
    assert result.exception is not None
    value = json.loads(result.stdout.splitlines()[-1])
    assert value["error"] == getattr(result.exception, "message", None)
    assert set(value) == {"error", "code", "remedy"}
    assert "secret" not in result.stdout
    without = RUNNER.invoke(app, [*command.split(), *FAILING[command]], env=env)
    assert without.stdout == ""


@pytest.mark.parametrize("end", [typer.Exit(3), typer.Abort(), KeyboardInterrupt()], ids=repr)
def test_an_exit_is_not_reported_as_an_error(end: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    @prepare_command
    def stop_command(*, as_json: bool) -> None:
        raise end

    with pytest.raises(type(end)):
        stop_command(as_json=True)
    assert capsys.readouterr().out == ""
