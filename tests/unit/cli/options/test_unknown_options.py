"""What errors about unknown options and keys suggest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support.commands import CommandRunner
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cli.options.config_file import is_safe_option, list_known_keys

UNSAFE = (
    "--no-token",
    "--allow-host",
    "--allow-frame",
    "--allow-private-urls",
    "--allow-failed",
    "--force-swap",
    "--follow-links",
)


def _list_unsafe_options(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:  # noqa: ANN401
    for name, inner in getattr(command, "commands", {}).items():
        yield from _list_unsafe_options(inner, (*path, name))
    for option in {option for parameter in command.params for option in parameter.opts if not is_safe_option(option)}:
        yield path, option


def _read_error(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["--log-format", "json", *arguments])
    assert result.exit_code == 2, result.output
    return str(result.stderr or result.exception)


def test_no_option_that_removes_a_protection_is_suggested() -> None:
    found = set(_list_unsafe_options(typer.main.get_command(app)))
    assert {option for _, option in found} >= {*UNSAFE}
    for path, option in found:
        for typed in (option[:-1], option + "s", option.replace("--no-", "--"), option.replace("--", "--x", 1)):
            if (path, typed) not in found and typed not in ("--token", "--swap"):
                assert option not in _read_error(*path, typed).partition(typed)[2], (path, typed)


@pytest.mark.parametrize("table", ["", "encoder", "serve", "ingest", "profiles.x.encoder"])
def test_no_key_that_removes_a_protection_is_suggested(tmp_path: Path, table: str) -> None:
    unsafe = {key[-1] for key in list_known_keys(typer.Context(typer.main.get_command(app))) if not is_safe_option(key[-1])}
    assert unsafe >= {"no_token", "allow_private_urls", "trust_remote_code"}
    (file := tmp_path / "a.toml").touch(mode=0o600)
    for typed in ("token", "notoken", "insecure", "verify_certs", *(f"{key}s" for key in unsafe), *(key[:-1] for key in unsafe)):
        file.write_text((f"[{table}]\n" if table else "") + f'{typed} = "x"\n')
        suggested = CommandRunner({}, "--config", str(file)).read_error("config", "show").remedy
        assert not [key for key in unsafe if f"'{key}'" in suggested or f" {key}" in suggested], (typed, suggested)


def test_a_key_for_the_token_is_suggested(tmp_path: Path) -> None:
    for table in ("encoder", "serve"):
        (file := tmp_path / "a.toml").write_text(f'[{table}]\ntoken = "x"\n')
        assert "'token_file'" in CommandRunner({}, "--config", str(file)).read_error("config", "show").remedy


@pytest.mark.parametrize("command", [("search", "x"), ("query", "x"), ("explain", "x", "y"), ("words",), ("inspect", "x")])
@pytest.mark.parametrize("option", ["-n", "-n3", "--size", "--limit", "--top", "--limit=3"])
def test_other_names_for_the_number_of_hits_hint_at_k(command: tuple[str, ...], option: str) -> None:
    error = _read_error(*command, option, "3")
    assert "-k" in error
    assert "-WORD" not in error


def test_an_option_that_the_command_has_is_not_replaced() -> None:
    assert "-k" not in _read_error("evaluate", "retrieval", "x", "--size", "3")
    assert "-WORD" in _read_error("search", "x", "-z")
