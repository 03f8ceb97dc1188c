"""`--image URL` over real HTTP: the bytes, the limits, and whose addresses are allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.servers.fault_proxy import Request, Response, start_server
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.errors import DecodeError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.query_encoder import QueryInputs, build_search_query, encode_query_image
from stair_es.sources.base import ReadLimits, UrlPolicy

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "tabby-cat.jpg"
LOCAL = UrlPolicy(allow_private=True, attempts=1, timeout_s=10.0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", backend="onnx"))


@pytest.fixture
def url() -> Iterator[str]:
    answers = {
        "/cat.jpg": Response(kind="image/jpeg", body=PHOTO.read_bytes()),
        "/page": Response(kind="text/html", body=b"<html>"),
        "/moved": Response(status=302, headers={"location": "http://169.254.169.254/latest/meta-data"}),
    }

    def answer(request: Request) -> Response:
        return answers.get(request.path.partition("?")[0], Response(status=404))

    with start_server(answer) as served:
        yield served


def test_a_url_is_looked_for_as_the_file_is(encoder: Encoder, url: str) -> None:
    read_limits = ReadLimits(url_policy=LOCAL)
    file = build_search_query(encoder, QueryInputs(images=[PHOTO]))
    assert build_search_query(encoder, QueryInputs(images=[f"{url}/cat.jpg"]), read_limits) == file
    assert build_search_query(encoder, QueryInputs(images=[str(PHOTO)])) == file


@pytest.mark.parametrize(
    ("path", "read_limits", "reason"),
    [
        ("/cat.jpg?sig=hunter2", ReadLimits(), "refused: the address is loopback"),
        ("/cat.jpg", ReadLimits(url_policy=LOCAL, max_bytes=1000), "exceed the limit of 1000"),
        ("/gone.jpg", ReadLimits(url_policy=LOCAL), "404 Not Found"),
        ("/page", ReadLimits(url_policy=LOCAL), "not an image"),
        ("/moved", ReadLimits(url_policy=LOCAL), "metadata service"),
    ],
)
def test_forbidden_and_invalid_urls_are_reported(
    encoder: Encoder, url: str, path: str, read_limits: ReadLimits, reason: str
) -> None:
    with pytest.raises(DecodeError) as failed:
        encode_query_image(encoder, url + path, read_limits)
    assert reason in failed.value.message
    assert failed.value.message.startswith(f"'{url}{path.partition('?')[0]}")
    assert "hunter2" not in str(failed.value)


def test_commands_accept_urls_with_the_ingest_option(url: str) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--model", "stair-mini", "--backend", "onnx", "--json"])
        assert result.exit_code == 0, result.output
        return result.stdout

    shown = json.loads(run("encode", f"{url}/cat.jpg?sig=hunter2", "--allow-private-urls"))
    assert shown["uri"] == f"{url}/cat.jpg"
    assert shown["tokens"] == json.loads(run("encode", str(PHOTO)))["tokens"]
    assert run("query", "--image", f"{url}/cat.jpg", "--allow-private-urls") == run("query", "--image", str(PHOTO))
