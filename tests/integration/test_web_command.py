"""The installed `stair-es serve`: its output, its errors, and how it ends."""

from __future__ import annotations

import errno
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.commands import CommandRunner
from support.corpora.web_corpus import Corpus
from support.errors import expect_error

from stair_es.web.server import DEFAULT_PORT, bind_socket, build_page_url

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


@pytest.fixture
def serve_runner(node_url: str, corpus: Corpus) -> CommandRunner:
    """`stair-es serve` in this process, for options that it rejects."""
    return CommandRunner({}, "serve", "--index", corpus.alias, "--url", node_url)


def build_environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@contextmanager
def run_serve(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield its process and the first line that it printed."""
    command = [STAIR_ES, "serve", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=build_environment(**more)
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def get_status(url: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("number", "code", "message_count"), [(signal.SIGINT, 130, 1), (signal.SIGTERM, 0, 0)])
def test_it_prints_its_address_and_ends_with_a_signal(
    node_url: str, corpus: Corpus, number: int, code: int, message_count: int
) -> None:
    with run_serve("--index", corpus.alias, "--port", "0", "--json", "--url", node_url) as (process, line):
        url = json.loads(line)["url"]
        assert get_status(url, "/") == 200
        assert get_status(url, "/api/about") == 200
        keep_alive = http.client.HTTPConnection(urlsplit(url).netloc)
        keep_alive.request("GET", "/api/about")
        keep_alive.getresponse().read()
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)  # the open connection doesn't hold it
        keep_alive.close()
    assert (process.returncode, out, len(errors.splitlines())) == (code, "", message_count)


def test_token_from_a_file_is_required_and_not_printed(node_url: str, corpus: Corpus, tmp_path: Path) -> None:
    token = "a-token-that-is-long-enough"
    (tmp_path / "token").write_text(token + "\n")
    arguments = ("--index", corpus.alias, "--port", "0", "--url", node_url, "--token-file", str(tmp_path / "token"))
    with run_serve(*arguments) as (process, line):
        url = line.strip()
        assert get_status(url, "/") == 401
        assert get_status(url, f"/?token={token}") == 303
        assert get_status(url, "/api/about", authorization=f"Bearer {token}") == 200
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert token not in line + out + errors
    assert f"{url}?token=..." in errors
    with run_serve("--index", corpus.alias, "--port", "0", "--url", node_url, STAIR_ES_SERVE_TOKEN=token) as (_, line):
        assert get_status(line.strip(), "/api/about") == 401


@pytest.mark.parametrize(
    ("arguments", "token", "code"),
    [
        (("--host", "0.0.0.0"), None, "host-without-token"),
        (("--host", "::"), None, "host-without-token"),
        (("--host", "203.0.113.7", "--no-token"), None, "address-unavailable"),
        (("--host", "no such host", "--no-token"), None, "address-unavailable"),
        (("--images", "/nowhere"), None, "no-such-folder"),
        (("--coverage", "/nowhere"), None, "coverage-report-unreadable"),
        (("--token-file", "/nowhere"), None, "access-token-file-unreadable"),
        (("--token-file", "/dev/null"), None, "access-token-file-empty"),
        (("--allow-host", "https://photos.example.org"), None, "invalid-host-name"),
        (("--allow-frame", "example.org"), None, "invalid-origin"),
        (("--allow-frame", "https://example.org", "--teach"), None, "option-conflict"),
        (("--allow-frame", "https://example.org"), "long-enough-token", "option-conflict"),
        (("--url", "http://user:password@127.0.0.1:1"), None, "password-in-arguments"),
        (("--no-token",), "long-enough-token", "option-conflict"),
    ],
)
def test_impossible_options_are_rejected(
    serve_runner: CommandRunner, arguments: tuple[str, ...], token: str | None, code: str
) -> None:
    error = serve_runner.read_error("--port", "0", *arguments, **({"STAIR_ES_SERVE_TOKEN": token} if token else {}))
    assert (error.code, error.exit_code) == (code, 2)


def test_short_access_tokens_are_rejected(serve_runner: CommandRunner) -> None:
    error = serve_runner.read_error("--port", "0", STAIR_ES_SERVE_TOKEN="short")
    assert (error.code, error.exit_code, "openssl" in error.remedy) == ("access-token-too-short", 2, True)


def test_impossible_ports_are_rejected(serve_runner: CommandRunner) -> None:
    result = serve_runner.run("--port", "99999")
    assert (result.exit_code, result.stdout, "65535" in result.stderr) == (2, "", True)


def test_a_missing_index_is_reported_before_the_page_is_served(node_url: str, index_name: str) -> None:
    command = [STAIR_ES, "serve", "--index", index_name, "--url", node_url, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=build_environment(), timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error[index-not-found]: " in done.stderr
    assert index_name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported(serve_runner: CommandRunner) -> None:
    with bind_socket("127.0.0.1", 0) as (_, port):
        error = serve_runner.read_error("--port", str(port))
    assert (error.code, error.exit_code) == ("port-in-use", 2)
    assert f"port {port} of 127.0.0.1" in error.message
    assert "--port 0" in error.remedy


def test_without_a_port_the_next_free_one_is_used() -> None:
    with bind_socket("127.0.0.1", None) as (_, first), bind_socket("127.0.0.1", None) as (_, second):
        assert DEFAULT_PORT <= first < second


def test_help_has_examples() -> None:
    done = subprocess.run(
        [STAIR_ES, "serve", "--help"], capture_output=True, text=True, check=True, env=build_environment(COLUMNS="200")
    )
    for part in ("stair-es serve --index photos --open", "--images", "--token-file", "--ca-file", "--allow-host"):
        assert part in done.stdout


def test_urls_for_a_browser_on_this_machine() -> None:
    assert build_page_url("0.0.0.0", 1) == build_page_url("", 1) == "http://127.0.0.1:1/"
    assert build_page_url("::1", 1) == "http://[::1]:1/" == build_page_url("::", 1)
    assert build_page_url("photos.example.org", 1) == "http://photos.example.org:1/"


def test_ipv6_is_listened_on_where_the_machine_has_it() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        has_ipv6 = probe.connect_ex(("::1", 9)) == errno.ECONNREFUSED
    if not has_ipv6:
        with expect_error("address-unavailable"), bind_socket("::1", 0):
            pass
        return
    with bind_socket("::1", 0) as (listener, _):
        assert listener.getsockname()[0] == "::1"
