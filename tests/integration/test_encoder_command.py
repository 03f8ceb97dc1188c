"""The installed `stair-es encoder`: its output, the vectors of `stair-es encode`, its errors, and how it ends."""

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
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from support.commands import CommandRunner
from support.polling import poll_until
from support.servers.encoder_command import run_encoder

from stair_es.errors import StairError, UsageError

TOKEN = "a-token-that-is-long-enough"
TIMEOUT_S = 120
# A schema can't say that another model isn't served, or that texts and images are too many together.
SCHEMATHESIS = """
warnings = false
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 404, 413]
negative_data_rejection.expected-statuses = [400, 404, 405, 413, 415, 422]
[[operations]]
include-name = "POST /v1/query"
# no schema says which words are in the vocabulary, or which conditions contradict each other
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 422]
[[operations]]
include-name = "POST /v1/documents"
# nor which images are the same, which fields are reserved, and which indices may be written
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 413, 422]
[[operations]]
include-name = "DELETE /v1/documents"
checks.positive_data_acceptance.expected-statuses = [403, 422]
checks.negative_data_rejection.expected-statuses = [403, 404, 405, 422]
"""
HEAD = "POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture(scope="module")
def encoder_url() -> Iterator[str]:
    with run_encoder("--text-tower", "table") as (_, url):
        yield url


def test_the_weights_are_those_of_the_encode_command(encoder_url: str) -> None:
    expected = CommandRunner({}).read_json("encode", "--text", "two dogs on a beach", "--text-tower", "table")
    response = requests.post(f"{encoder_url}/v1/encode", json={"texts": "two dogs on a beach"}, timeout=TIMEOUT_S).json()
    assert response["texts"][0]["tokens"] == expected["tokens"]


@pytest.mark.nightly("requests that schemathesis generates")
def test_generated_requests_conform_to_the_openapi_document(encoder_url: str, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "SCHEMATHESIS_HOOKS": "support.openapi_hooks"}
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    command = [sys.executable, "-c", program, "run", f"{encoder_url}/v1/openapi.json", "--max-examples", "30", "--seed", "1"]
    # On a busy machine, 32 images take longer than the default.
    options = ["--generation-database", "none", "--continue-on-failure", "--no-color", "--request-timeout", "60"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "No issues found" in done.stdout  # of a tool of others, which also succeeds if it has checked nothing


@pytest.mark.parametrize(("command", "create"), [("encoder", "create_encoder_app"), ("serve", "create_app")])
def test_connections_are_refused_while_the_model_is_loaded(command: str, create: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []

    def load_model(config: object, *others: object) -> None:
        with socket.socket() as client:
            results.append(client.connect_ex(("127.0.0.1", others[-1])))
        raise UsageError("loaded", "", "model-loaded")

    monkeypatch.setattr(f"stair_es.web.app.{create}", load_model)
    error = CommandRunner({"STAIR_ES_URL": "http://127.0.0.1:1"}).read_error(command, "--port", "0")
    assert (results, error.code) == ([errno.ECONNREFUSED], "model-loaded")


@pytest.mark.parametrize(("number", "exit_code", "stderr"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 0, "")])
def test_it_ends_with_a_signal(number: int, exit_code: int, stderr: str) -> None:
    with run_encoder("--text-tower", "table") as (process, url):
        keep_alive = http.client.HTTPConnection(urlsplit(url).netloc)
        keep_alive.request("GET", "/health")
        assert keep_alive.getresponse().read() == b"ok\n"
        process.send_signal(number)
        out, errors = process.communicate(timeout=TIMEOUT_S)  # the open connection doesn't hold it
        keep_alive.close()
    assert (process.returncode, out, errors.strip()) == (exit_code, "", stderr)


def test_sigterm_finishes_accepted_requests_and_refuses_others() -> None:
    body = b'{"texts": "a red car"}'
    with run_encoder("--text-tower", "table") as (process, url):
        address = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(address, timeout=TIMEOUT_S) as accepted:
            accepted.sendall(HEAD.format(len(body)).encode() + body[:5])
            poll_until(lambda: "requests_in_progress 2.0" in requests.get(f"{url}/metrics", timeout=TIMEOUT_S).text)
            process.send_signal(signal.SIGTERM)
            poll_until(lambda: requests.get(f"{url}/health", timeout=TIMEOUT_S).status_code == 503)
            late = requests.post(f"{url}/v1/encode", json={"texts": "late"}, timeout=TIMEOUT_S)
            assert (late.status_code, late.json()["error_type"]) == (503, "Unhealthy")
            assert (late.headers["connection"], late.headers["retry-after"]) == ("close", "2")
            assert process.poll() is None
            accepted.sendall(body[5:])
            response = http.client.HTTPResponse(accepted)
            response.begin()
            assert (response.status, "car" in json.loads(response.read())["texts"][0]["tokens"]) == (200, True)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0


def test_a_token_is_read_and_not_printed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    arguments = ("--host", "0.0.0.0", "--root-path", "/encoder", "--token-file", str(tmp_path / "token"), "--text-tower", "table")
    with run_encoder(*arguments) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/encoder")
        bearer = {"Authorization": f"Bearer {TOKEN}", "Host": "encoder.search.svc"}
        assert requests.get(f"{url}/info", timeout=TIMEOUT_S).status_code == 401
        assert requests.get(f"{url}/info", headers=bearer, timeout=TIMEOUT_S).status_code == 200
        process.terminate()
        out, errors = process.communicate(timeout=TIMEOUT_S)
    assert TOKEN not in url + out + errors


@pytest.mark.parametrize(
    ("arguments", "environment", "exit_code", "code", "fact"),
    [
        (("--host", "0.0.0.0"), {}, 2, "host-without-token", "0.0.0.0"),
        (("--no-token",), {"STAIR_ES_ENCODER_TOKEN": TOKEN}, 2, "option-conflict", "--no-token"),
        ((), {"STAIR_ES_ENCODER_TOKEN": "short"}, 2, "access-token-too-short", "5"),
        (("--root-path", "/v1"), {}, 2, "reserved-root-path", "/v1"),
        (("--model", "no-such-model"), {}, 2, "unknown-model", "no-such-model"),
        (("--index", "no-such-index", "--url", "http://127.0.0.1:1"), {}, 1, "cluster-unreachable", "127.0.0.1:1"),
    ],
)
def test_impossible_options_are_rejected(
    arguments: tuple[str, ...], environment: dict[str, str], exit_code: int, code: str, fact: str
) -> None:
    result = CommandRunner(environment, "encoder").run("--port", "0", *arguments)
    assert isinstance(result.exception, StairError), result.output
    assert (result.exception.exit_code, result.exception.code, result.stdout) == (exit_code, code, "")
    assert fact in result.exception.message
