"""No output contains a secret, wherever it was written by mistake: each way to set one, and each invalid form of each key."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import typer
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cli.options import config_file
from stair_es.cluster.client import auth
from stair_es.cluster.client.auth import read_security_settings
from stair_es.cluster.client.connection import Connection
from stair_es.dashboards import connection
from stair_es.dashboards.connection import DashboardsConnection, build_dashboards_connection
from stair_es.errors import StairError
from stair_es.system import ray_session
from stair_es.system.ray_session import mask_ray_address
from stair_es.urls import mask_urls

SECRET = 'hunter2/Ä"x%7'
PLAIN = "hunter2xyz"
FORMS = {
    "hunter2",
    base64.b64encode(SECRET.encode()).decode()[:9],
    base64.b64encode(PLAIN.encode()).decode()[:9],
    base64.b64encode(b"anna:" + PLAIN.encode()).decode(),
}
"""Percent-encoded, in JSON and as a `repr` both still begin with the first one."""
NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("STAIR_ES_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))


def _run_command(*arguments: str) -> str:
    """Return the whole output of a command, including its error."""
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, (StairError, SystemExit)):
        raise result.exception
    return result.output + (str(result.exception) if isinstance(result.exception, StairError) else "")


def _collect_output(function: Callable[[], object]) -> str:
    """Return what a user sees of a call: its error or its text."""
    try:
        result = function()
    except StairError as error:
        return f"{error} {error.__cause__!r}"
    if isinstance(result, (Connection, DashboardsConnection)):
        return repr(result)
    return result if isinstance(result, str) else ""


def _check_unseen(output: str, case: object) -> None:
    assert not [form for form in FORMS if form in output], f"{case}: {output}"


@pytest.fixture
def private_file(tmp_path: Path) -> Path:
    """A configuration file that only its owner may read."""
    path = tmp_path / "stair-es.toml"
    path.touch(mode=0o600)
    return path


def list_shapes(secret: str) -> Iterator[Any]:
    yield from ([secret], [[secret]], {"a": secret}, [{"a": secret}], {"a": {"b": [secret]}}, {"password": secret})


@pytest.mark.parametrize("secret", [SECRET, PLAIN])
def test_errors_show_no_values(private_file: Path, secret: str) -> None:
    known_keys = config_file.list_known_keys(typer.Context(typer.main.get_command(app)))
    attempts = 0
    for key, shape in product([*known_keys, ("profiles",), ("search",), ("unknown",)], list_shapes(secret)):
        values: dict[str, Any] = {key[-1]: shape}
        for table in reversed(key[:-1]):
            values = {table: values}
        for document in (values, {"profiles": {"x": values}}):
            output = _collect_output(partial(config_file.resolve_profile, private_file, document, "x", known_keys))
            _check_unseen(output, document)
            attempts += 1
    assert attempts > 1000


@pytest.mark.parametrize(
    "text",
    [
        f'[profile.x]\npassword = "{PLAIN}"',
        f'[profile]\nx = {{api_key = "{PLAIN}"}}',
        f'[search]\npassword = "{PLAIN}"',
        f'[passwords]\nx = "{PLAIN}"',
        f'search = "{PLAIN}"',
        f'profiles = "{PLAIN}"',
        f'[profiles]\nx = "{PLAIN}"',
        f'pasword = "{PLAIN}"',
        f'password.value = "{PLAIN}"',
        f'profiles.x.password.v = "{PLAIN}"',
        f"password = {PLAIN}",
        f'password = "{PLAIN}',
        f'password = "{PLAIN}"\npassword = "{PLAIN}"',
        f'password = "{PLAIN}"',
        f'user = "anna"\npassword = "{PLAIN}"',
        f'api_key = "{PLAIN}"\nuser = "anna"',
        f'password_file = "{PLAIN}"',
        f'encoder_token = "{PLAIN}"',
        f'encoder_token_file = "{PLAIN}"',
        f'[encoder]\ntoken_file = "{PLAIN}"',
        f'[serve]\ntoken_file = "{PLAIN}"',
        f'[encoder]\ntoken = "{PLAIN}"',
        f'password_file = "{PLAIN}"\nuser = "anna"\nurl = "http://{NOWHERE}"',
        f'client_key = "{PLAIN}"\nclient_cert = "{PLAIN}"\nurl = "https://{NOWHERE}"',
        f"password = {{{PLAIN} = 1}}",
        f'ray_address = "ray://anna:{PLAIN}@{NOWHERE}"',
        f'url = "http://{NOWHERE}/?api_key={PLAIN}"',
        f'url = "http://{NOWHERE}/#{PLAIN}"',
        f'url = "http://anna:{PLAIN}@{NOWHERE}"',
        f'url = "{PLAIN}"',
        f'url = "http://anna:{PLAIN}/@{NOWHERE}"',
        f'dashboards_url = "http://{NOWHERE}/?{PLAIN}"',
    ],
)
def test_no_slip_in_the_file_shows_it(private_file: Path, text: str) -> None:
    private_file.write_text(text + "\n", encoding="utf-8")
    for options in ([], ["--json"]):
        _check_unseen(_run_command("--config", str(private_file), "config", "show", *options), text)


_URLS = ["http://anna:{}@" + NOWHERE, "http://" + NOWHERE + "/?api_key={}", "http://" + NOWHERE + "/#{}", "{}", "anna:{}@h"]
_URLS += ["http://anna:{}?x@h", "http://h/?a={}@b", "http://anna:{}@h:99999", "http://[{}", "http://h:{}", "ftp://anna:{}@h"]
_URLS += ["http:{}", "http://anna:{}@a,http://anna:{}@[", "ray://anna:{}@h:1", "//anna:{}@h", "http://anna:{}\udcff@h"]


@pytest.mark.parametrize("secret", [PLAIN, SECRET, quote(SECRET, safe="")])
def test_no_error_about_a_url_shows_it(secret: str) -> None:
    for pattern in _URLS:
        url = pattern.replace("{}", secret)
        functions: list[Callable[[], object]] = [
            partial(Connection, url=url),
            partial(DashboardsConnection, url=url),
            partial(Connection.from_env, environ={"STAIR_ES_URL": url}),
            partial(build_dashboards_connection, None, {}, {"STAIR_ES_DASHBOARDS_URL": url}),
            partial(mask_urls, url),
            partial(mask_ray_address, url),
            partial(ray_session.check_ray_address, url.replace("@h:1", "@127.0.0.1:1"), StairError, "don't"),
        ]
        for call in functions:
            _check_unseen(_collect_output(call), (url, call))


def test_a_url_is_shown_without_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_URL", f"http://anna:{PLAIN}@{NOWHERE}")
    monkeypatch.setenv("RAY_ADDRESS", f"ray://anna:{PLAIN}@{NOWHERE}")
    for arguments in (["config", "show"], ["doctor"], ["doctor", "--json"], ["words"], ["--log-format", "json", "words"]):
        _check_unseen(_run_command(*arguments), arguments)


def test_no_variable_of_a_secret_or_of_its_file_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster_names = {"url": "STAIR_ES_URL", **auth.CLUSTER_VARIABLES.secrets}
    dashboards_names = {"url": "STAIR_ES_DASHBOARDS_URL", **connection.DASHBOARDS_VARIABLES.secrets}
    for names, build in (
        (cluster_names, read_security_settings),
        (dashboards_names, lambda _, environ: build_dashboards_connection(None, {}, environ)),
    ):
        for variable, end in product(names.values(), ("", "_FILE")):
            for secret in (SECRET, PLAIN, PLAIN * 100, PLAIN + "\udcff", f"-----BEGIN KEY-----\n{PLAIN}", f"{PLAIN}\0"):
                environ = {names["url"]: f"http://{NOWHERE}", names["user"]: "anna", f"{variable}{end}": secret}
                _check_unseen(_collect_output(partial(build, {}, environ)), environ)
    for name in config_file.SECRET_KEYS:
        monkeypatch.setenv(f"STAIR_ES_{name.upper()}", SECRET)
    _check_unseen(_run_command("config", "show"), "all of them")


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--token-file", PLAIN],
        ["serve", "--token-file", PLAIN * 100],
        ["words", "--url", f"http://anna:{PLAIN}@h"],
        ["words", "--url", f"http://h/?api_key={PLAIN}"],
        ["words", "--url", "https://h", "--client-key", PLAIN, "--client-cert", PLAIN],
        ["words", "--url", "https://h", "--ca-fingerprint", PLAIN],
        ["words", "--password", PLAIN],
        ["words", f"--api-key={PLAIN}"],
    ],
)
def test_no_option_shows_it(arguments: list[str]) -> None:
    _check_unseen(_run_command(*arguments), arguments)


@pytest.mark.parametrize("variable", ["STAIR_ES_PASSWORD", "STAIR_ES_DASHBOARDS_PASSWORD"])
def test_a_password_that_is_not_utf8_is_rejected(variable: str) -> None:
    """Run in a separate process: the bytes come from the environment."""
    prefix = variable.removesuffix("PASSWORD")
    command = ["words"] if "DASH" not in variable else ["dashboards", "publish", "--url", f"http://{NOWHERE}"]
    result = subprocess.run(
        [Path(sys.executable).parent / "stair-es", *command],
        env={
            **os.environb,
            os.fsencode(variable): PLAIN.encode() + b"\xff",
            os.fsencode(f"{prefix}USER"): b"anna",
            os.fsencode(f"{prefix}URL"): f"http://{NOWHERE}".encode(),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "error[secret-not-utf-8]: " in result.stderr
    assert variable in result.stderr
    assert "hunter2" not in result.stderr
