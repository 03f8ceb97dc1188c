"""The options of a secure connection on a command line: one decorator gives them to any command."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from stair_es.cli.options.connections import ConnectionArguments, resolve_connection
from stair_es.cli.options.decorator import prepare_command
from stair_es.cluster.client.connection import Connection
from stair_es.errors import UsageError

_PRINT = "a" * 64


def _app(seen: list[Connection]) -> typer.Typer:
    app = typer.Typer()

    def look(what: str, *, connection: ConnectionArguments, k: int = 3) -> None:
        """Look."""
        assert (what, k) == ("dog", 5)
        seen.append(resolve_connection(connection))

    app.command()(prepare_command(look))
    return app


def _run(*arguments: str, **environ: str) -> tuple[list[Connection], Any]:
    seen = list[Connection]()
    result = CliRunner().invoke(_app(seen), ["dog", "--k", "5", *arguments], env=environ)
    return seen, result


def test_options_go_before_the_environment() -> None:
    seen, result = _run(
        *("--url", "https://localhost:9200", "--ca-fingerprint", _PRINT, "--client-cert", "mine.pem"),
        STAIR_ES_CA_FINGERPRINT="b" * 64,
        STAIR_ES_CLIENT_KEY="mine.key",
        STAIR_ES_API_KEY="id:hunter2",
    )
    assert result.exit_code == 0, result.output
    security = seen[0].security
    assert (security.ca_fingerprint, security.client_cert, security.client_key) == (_PRINT, "mine.pem", "mine.key")
    assert security.method == "api_key"


def test_a_command_does_not_affect_the_next_one() -> None:
    _run("--url", "https://localhost:9200", "--ca-fingerprint", _PRINT)
    seen, _ = _run("--url", "https://localhost:9200")
    assert seen[0].security.ca_fingerprint is None


def test_a_password_is_accepted_in_the_environment_and_rejected_on_the_command_line() -> None:
    url = "https://anna:hunter2@localhost:9200"
    seen, _ = _run(STAIR_ES_URL=url)
    assert (seen[0].security.user, seen[0].security.password) == ("anna", "hunter2")
    _, result = _run("--url", url)
    assert isinstance(result.exception, UsageError)
    assert "STAIR_ES_PASSWORD" in result.exception.remedy
    assert "hunter2" not in f"{result.exception}{result.output}"


def test_help_names_the_environment_and_no_secret_is_an_option() -> None:
    result = CliRunner().invoke(_app([]), ["--help"], env={"COLUMNS": "200", "STAIR_ES_API_KEY": "hunter2"})
    for option in ("--ca-file", "--ca-fingerprint", "--client-cert", "--client-key", "--aws-service", "--aws-region"):
        assert option in result.output
    assert "STAIR_ES_CA_FILE" in result.output
    assert not any(word in result.output for word in ("--password", "--api-key", "--bearer", "hunter2"))


@pytest.mark.parametrize("url", ["http://[bad", "elsewhere"])
def test_nonsense_is_wrong_usage(url: str) -> None:
    _, result = _run("--url", url)
    assert isinstance(result.exception, UsageError)
    assert "not a cluster URL" in result.exception.message
