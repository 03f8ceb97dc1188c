"""The options of a secure connection on a command line, and logins of a configuration file."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import typer
from support.servers.recording_proxy import RecordingProxy
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cli.options.connections import ConnectionArguments, resolve_connection
from stair_es.cli.options.decorator import prepare_command
from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError

_FINGERPRINT = "a" * 64
_BASIC = "Basic " + base64.b64encode(b"anna:hunter2").decode()


def _build_app(connections: list[Connection]) -> typer.Typer:
    test_app = typer.Typer()

    def record_connection(what: str, *, connection: ConnectionArguments, k: int = 3) -> None:
        """Look."""
        assert (what, k) == ("dog", 5)
        connections.append(resolve_connection(connection))

    test_app.command()(prepare_command(record_connection))
    return test_app


def _run_app(*arguments: str, **environ: str) -> tuple[list[Connection], Any]:
    connections = list[Connection]()
    result = CliRunner().invoke(_build_app(connections), ["dog", "--k", "5", *arguments], env=environ)
    return connections, result


def test_options_go_before_the_environment() -> None:
    connections, result = _run_app(
        *("--url", "https://localhost:9200", "--ca-fingerprint", _FINGERPRINT, "--client-cert", "mine.pem"),
        STAIR_ES_CA_FINGERPRINT="b" * 64,
        STAIR_ES_CLIENT_KEY="mine.key",
        STAIR_ES_API_KEY="id:hunter2",
    )
    assert result.exit_code == 0, result.output
    security = connections[0].security
    assert (security.ca_fingerprint, security.client_cert, security.client_key) == (_FINGERPRINT, "mine.pem", "mine.key")
    assert security.method == "api_key"


def test_a_command_does_not_affect_the_next_one() -> None:
    _run_app("--url", "https://localhost:9200", "--ca-fingerprint", _FINGERPRINT)
    connections, _ = _run_app("--url", "https://localhost:9200")
    assert connections[0].security.ca_fingerprint is None


def test_a_password_is_read_from_the_environment_only() -> None:
    url = "https://anna:hunter2@localhost:9200"
    connections, _ = _run_app(STAIR_ES_URL=url)
    assert (connections[0].security.user, connections[0].security.password) == ("anna", "hunter2")
    _, result = _run_app("--url", url)
    assert isinstance(result.exception, StairError)
    assert result.exception.code == "password-in-arguments"
    assert "STAIR_ES_PASSWORD" in result.exception.remedy
    assert "hunter2" not in f"{result.exception}{result.output}"


def test_help_names_the_environment_and_no_secret_is_an_option() -> None:
    result = CliRunner().invoke(_build_app([]), ["--help"], env={"COLUMNS": "200", "STAIR_ES_API_KEY": "hunter2"})
    for option in ("--ca-file", "--ca-fingerprint", "--client-cert", "--client-key", "--aws-service", "--aws-region"):
        assert option in result.output
    assert "STAIR_ES_CA_FILE" in result.output
    assert not any(word in result.output for word in ("--password", "--api-key", "--bearer", "hunter2"))


@pytest.mark.parametrize("url", ["http://[bad", "elsewhere"])
def test_nonsense_is_wrong_usage(url: str) -> None:
    _, result = _run_app("--url", url)
    assert isinstance(result.exception, StairError)
    assert result.exception.code == "invalid-server-url"


# --- logins of a configuration file ---


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STAIR_ES_URL", "STAIR_ES_INDEX", "STAIR_ES_USER", "STAIR_ES_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "password").write_text("hunter2\n")
    return tmp_path / "stair-es.toml"


def _read_logins(proxy: RecordingProxy, *arguments: str, **environ: str) -> set[str | None]:
    result = CliRunner().invoke(app, [*arguments, "-i", "there-is-none"], env=environ)
    assert "there-is-none" in str(result.exception)
    return {request.headers.get("authorization") for request in proxy.requests}


def test_a_login_of_the_file_is_sent_only_to_the_url_of_the_file(node_url: str, config_file: Path) -> None:
    with RecordingProxy(node_url) as own_proxy, RecordingProxy(node_url) as other_proxy:
        config_file.write_text(f'[profiles.prod]\nurl = "{own_proxy.url}"\nuser = "anna"\npassword_file = "password"\n')
        prod = ("--config", str(config_file), "--profile", "prod", "words")
        assert _read_logins(own_proxy, *prod) == {_BASIC}
        assert _read_logins(other_proxy, *prod, "--url", other_proxy.url) == {None}
        assert _read_logins(other_proxy, *prod, STAIR_ES_URL=other_proxy.url) == {None}
        assert _BASIC in _read_logins(
            other_proxy, *prod, STAIR_ES_URL=other_proxy.url, STAIR_ES_USER="anna", STAIR_ES_PASSWORD="hunter2"
        )


def test_unused_files_set_no_certificates(node_url: str, config_file: Path) -> None:
    config_file.write_text('url = "https://localhost:1"\nca_file = "none.pem"\nclient_cert = "none.pem"\n')
    with RecordingProxy(node_url) as other_proxy:
        assert _read_logins(other_proxy, "--config", str(config_file), "words", "--url", other_proxy.url) == {None}


def test_a_login_without_a_url_in_the_file_is_sent_to_any_url(node_url: str, config_file: Path) -> None:
    config_file.write_text('user = "anna"\npassword_file = "password"\n')
    with RecordingProxy(node_url) as proxy:
        assert _read_logins(proxy, "--config", str(config_file), "words", "--url", proxy.url) == {_BASIC}
