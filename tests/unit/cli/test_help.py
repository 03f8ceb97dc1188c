"""The output of `--help`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stair_es.cli.main import app


def list_commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from list_commands(f"{path} {name}", child)


COMMANDS = dict(list_commands("stair-es", typer.main.get_command(app)))


def show_help(*command: str) -> str:
    return CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "160", "TERM": "dumb"}).stdout


@pytest.mark.parametrize("path", COMMANDS)
def test_help_begins_with_a_summary_and_examples(path: str) -> None:
    command = path.split()[1:]
    shown = show_help(*command)
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: ")
    assert lines[1].endswith(".")
    assert lines[2] in ("Example", "Examples")
    assert lines[3].startswith("stair-es ")
    assert path in shown.partition("╭")[0]


@pytest.mark.parametrize("path", COMMANDS)
def test_values_have_names_and_no_python_types(path: str) -> None:
    shown = show_help(*path.split()[1:])
    assert not re.findall(r"<\w+(?: range|\[\w+\])?>", shown)  # a choice is <a|b>
    for param in COMMANDS[path].params:
        if param.param_type_name == "option" and getattr(param, "multiple", False):
            assert "repeatable" in param.help, param.opts


def test_defaults_ranges_and_variables_are_shown() -> None:
    shown = " ".join(show_help("search").replace("│", " ").split())
    for part in ("N [1<=x<=10000]", "[default: 10]", "[env var: STAIR_ES_INDEX]", "[default: the embedded node]"):
        assert part in shown


def test_no_arguments_show_the_same_help() -> None:
    shown = CliRunner().invoke(app, [], env={"COLUMNS": "160", "TERM": "dumb"}).output
    assert shown.split() == show_help().split()
