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
from support.corpora.web_corpus import Corpus, ingest_corpus
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.errors import StairError, UsageError
from stair_es.web.server import DEFAULT_PORT, bind_socket, build_page_url

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-command", tmp_path_factory.mktemp("photos")) as made:
        yield made


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


@contextmanager
def running(*arguments: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the first line that it printed."""
    command = [STAIR_ES, "serve", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def refused(*arguments: str, **more: str) -> tuple[int, str]:
    """Run the command in this process; return its exit code and what it says."""
    done = CliRunner().invoke(app, ["serve", *arguments], env=more)
    assert done.stdout == ""
    if isinstance(done.exception, StairError):
        return done.exception.exit_code, str(done.exception)
    assert isinstance(done.exception, SystemExit), done.exception  # wrong usage, which Typer tells
    return done.exit_code, done.stderr


def ask(url: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 0, "")])
def test_it_prints_where_answers_and_ends_with_a_signal(node_url: str, corpus: Corpus, number: int, code: int, said: str) -> None:
    with running("--index", corpus.alias, "--port", "0", "--json", "--url", node_url) as (process, line):
        url = json.loads(line)["url"]
        assert ask(url, "/") == 200
        assert ask(url, "/api/about") == 200
        keep_alive = http.client.HTTPConnection(urlsplit(url).netloc)
        keep_alive.request("GET", "/api/about")
        keep_alive.getresponse().read()
        process.send_signal(number)
        out, errors = process.communicate(timeout=120)  # the open connection doesn't hold it
        keep_alive.close()
    assert (process.returncode, out, errors.strip()) == (code, "", said)


def test_token_from_a_file_is_required_and_not_printed(node_url: str, corpus: Corpus, tmp_path: Path) -> None:
    token = "a-token-that-is-long-enough"
    (tmp_path / "token").write_text(token + "\n")
    arguments = ("--index", corpus.alias, "--port", "0", "--url", node_url, "--token-file", str(tmp_path / "token"))
    with running(*arguments) as (process, line):
        url = line.strip()
        assert ask(url, "/") == 401
        assert ask(url, f"/?token={token}") == 303
        assert ask(url, "/api/about", authorization=f"Bearer {token}") == 200
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert token not in line + out + errors
    assert f"{url}?token=..." in errors
    with running("--index", corpus.alias, "--port", "0", "--url", node_url, STAIR_ES_SERVE_TOKEN=token) as (_, line):
        assert ask(line.strip(), "/api/about") == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "is reachable from other machines"),
        (("--host", "::"), "is reachable from other machines"),
        (("--host", "203.0.113.7", "--no-token"), "can't listen on 203.0.113.7"),
        (("--host", "no such host", "--no-token"), "can't listen on no such host"),
        (("--images", "/nowhere"), "no folder '/nowhere'"),
        (("--token-file", "/nowhere"), "can't read the token"),
        (("--token-file", "/dev/null"), "is empty"),
        (("--allow-host", "https://photos.example.org"), "is not a host name"),
        (("--port", "99999"), "65535"),
        (("--url", "http://user:password@127.0.0.1:1"), "a password on the command line"),
    ],
)
def test_impossible_options_are_rejected_with_a_remedy(
    corpus: Corpus, node_url: str, arguments: tuple[str, ...], said: str
) -> None:
    code, output = refused("--index", corpus.alias, "--url", node_url, "--port", "0", *arguments)
    assert code == 2
    assert said in " ".join(output.split())


def test_invalid_access_tokens_are_rejected(corpus: Corpus, node_url: str, tmp_path: Path) -> None:
    code, output = refused("--index", corpus.alias, "--url", node_url, STAIR_ES_SERVE_TOKEN="short")
    assert (code, "openssl rand" in output) == (2, True)
    code, output = refused("--index", corpus.alias, "--url", node_url, "--no-token", STAIR_ES_SERVE_TOKEN="long-enough-token")
    assert (code, "--no-token" in output) == (2, True)


def test_a_missing_index_is_reported_before_the_page_is_served(node_url: str, index_name: str) -> None:
    command = [STAIR_ES, "serve", "--index", index_name, "--url", node_url, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no index or alias '{index_name}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported_and_without_a_port_the_next_free_one_is_used(node_url: str, corpus: Corpus) -> None:
    with bind_socket("127.0.0.1", 0) as (_, taken):
        code, output = refused("--index", corpus.alias, "--url", node_url, "--port", str(taken))
        assert code == 2
        assert f"port {taken} of 127.0.0.1 is in use" in output
        assert "--port 0" in output
    with bind_socket("127.0.0.1", None) as (_, first), bind_socket("127.0.0.1", None) as (_, second):
        assert DEFAULT_PORT <= first < second


def test_help_has_examples() -> None:
    done = subprocess.run(
        [STAIR_ES, "serve", "--help"], capture_output=True, text=True, check=True, env=environment(COLUMNS="200")
    )
    for part in ("stair-es serve --index photos --open", "--images", "--token-file", "--ca-file", "--allow-host"):
        assert part in done.stdout


def test_urls_for_a_browser_on_this_machine() -> None:
    assert build_page_url("0.0.0.0", 1) == build_page_url("", 1) == "http://127.0.0.1:1/"
    assert build_page_url("::1", 1) == "http://[::1]:1/" == build_page_url("::", 1)
    assert build_page_url("photos.example.org", 1) == "http://photos.example.org:1/"


def test_ipv6_is_listened_on_where_the_machine_has_it() -> None:
    with socket.socket(socket.AF_INET6) as tried:
        has_it = tried.connect_ex(("::1", 9)) == errno.ECONNREFUSED
    if not has_it:
        with pytest.raises(UsageError, match="can't listen on ::1"), bind_socket("::1", 0):
            pass
        return
    with bind_socket("::1", 0) as (listener, _):
        assert listener.getsockname()[0] == "::1"
