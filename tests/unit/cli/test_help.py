"""The output of `--help`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from stair_es.cli.main import app


@pytest.mark.parametrize("command", [[], ["ingest"], ["node", "up"], ["search"]], ids=" ".join)
def test_a_switch_has_no_type_and_other_options_have(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "160", "TERM": "dumb"}).stdout
    assert "bool" not in shown.lower()
    assert "Show this message and exit" in shown
    if command == ["search"]:
        assert "--query-type" in shown
        assert "int range" in shown.lower() or "integer range" in shown.lower()
        assert "Alias of the index." in shown


def test_no_arguments_show_the_same_help() -> None:
    assert "bool" not in CliRunner().invoke(app, [], env={"COLUMNS": "160", "TERM": "dumb"}).output.lower()
