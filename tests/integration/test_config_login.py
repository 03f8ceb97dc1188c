"""Logins of a configuration file are sent to the cluster that the file names, and to no other."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support.servers.recording_proxy import RecordingProxy
from typer.testing import CliRunner

from stair_es.cli.main import app

_BASIC = "Basic " + base64.b64encode(b"anna:hunter2").decode()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STAIR_ES_URL", "STAIR_ES_INDEX", "STAIR_ES_USER", "STAIR_ES_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "password").write_text("hunter2\n")
    return tmp_path / "stair-es.toml"


def _heard(proxy: RecordingProxy, *arguments: str, **environ: str) -> set[str | None]:
    result = CliRunner().invoke(app, [*arguments, "-i", "there-is-none"], env=environ)
    assert "there-is-none" in str(result.exception)
    return {request.headers.get("authorization") for request in proxy.requests}


def test_a_login_of_the_file_is_sent_only_to_the_url_of_the_file(node_url: str, config: Path) -> None:
    with RecordingProxy(node_url) as own, RecordingProxy(node_url) as other:
        config.write_text(f'[profiles.prod]\nurl = "{own.url}"\nuser = "anna"\npassword_file = "password"\n')
        prod = ("--config", str(config), "--profile", "prod", "words")
        assert _heard(own, *prod) == {_BASIC}
        assert _heard(other, *prod, "--url", other.url) == {None}
        assert _heard(other, *prod, STAIR_ES_URL=other.url) == {None}
        assert _BASIC in _heard(other, *prod, STAIR_ES_URL=other.url, STAIR_ES_USER="anna", STAIR_ES_PASSWORD="hunter2")


def test_unused_files_set_no_certificates(node_url: str, config: Path) -> None:
    config.write_text('url = "https://localhost:1"\nca_file = "none.pem"\nclient_cert = "none.pem"\n')
    with RecordingProxy(node_url) as other:
        assert _heard(other, "--config", str(config), "words", "--url", other.url) == {None}


def test_a_login_without_a_url_in_the_file_is_sent_to_any_url(node_url: str, config: Path) -> None:
    config.write_text('user = "anna"\npassword_file = "password"\n')
    with RecordingProxy(node_url) as proxy:
        assert _heard(proxy, "--config", str(config), "words", "--url", proxy.url) == {_BASIC}
