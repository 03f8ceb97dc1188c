"""`--image URL` over real HTTP: the bytes, the limits, and whose addresses are allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.errors import expect_error
from support.servers.fault_proxy import Response, start_server

from stair_es.errors import DecodeError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.query_encoder import build_search_query, encode_query_image
from stair_es.sources.base import ReadLimits, UrlPolicy

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "tabby-cat.jpg"
LOCAL = UrlPolicy(allow_private=True, attempts=1, timeout_s=10.0)


@pytest.fixture(scope="module")
def onnx_encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", backend="onnx"))


@pytest.fixture
def server_url() -> Iterator[str]:
    answers = {
        "/cat.jpg": Response(kind="image/jpeg", body=PHOTO.read_bytes()),
        "/page": Response(kind="text/html", body=b"<html>"),
        "/moved": Response(status=302, headers={"location": "http://169.254.169.254/latest/meta-data"}),
    }

    with start_server(lambda request: answers.get(request.path.partition("?")[0], Response(status=404))) as url:
        yield url


def test_queries_for_a_url_equal_those_for_the_file(onnx_encoder: Encoder, server_url: str) -> None:
    query = build_search_query(onnx_encoder, QueryInputs(images=[PHOTO]))
    read_limits = ReadLimits(url_policy=LOCAL)
    assert build_search_query(onnx_encoder, QueryInputs(images=[f"{server_url}/cat.jpg"]), read_limits) == query
    assert build_search_query(onnx_encoder, QueryInputs(images=[str(PHOTO)])) == query


@pytest.mark.parametrize(
    ("path", "read_limits", "code", "fact"),
    [
        ("/cat.jpg?sig=hunter2", ReadLimits(), "address-not-allowed", "loopback"),
        ("/cat.jpg", ReadLimits(url_policy=LOCAL, max_bytes=1000), "file-too-large", "1000"),
        ("/gone.jpg", ReadLimits(url_policy=LOCAL), "http-status", "404"),
        ("/page", ReadLimits(url_policy=LOCAL), "unknown-image-format", ""),
        ("/moved", ReadLimits(url_policy=LOCAL), "address-not-allowed", "metadata"),
    ],
)
def test_forbidden_and_invalid_urls_are_reported(
    onnx_encoder: Encoder, server_url: str, path: str, read_limits: ReadLimits, code: str, fact: str
) -> None:
    with expect_error(code, DecodeError) as caught:
        encode_query_image(onnx_encoder, server_url + path, read_limits)
    assert fact in caught.value.message
    assert caught.value.message.startswith(f"'{server_url}{path.partition('?')[0]}")
    assert "hunter2" not in str(caught.value)


def test_commands_accept_urls_with_the_ingest_option(server_url: str) -> None:
    command, onnx = CommandRunner({"STAIR_ES_MODEL": "stair-mini"}), ("--backend", "onnx")
    encoded = command.read_json("encode", f"{server_url}/cat.jpg?sig=hunter2", "--allow-private-urls", *onnx)
    assert encoded["uri"] == f"{server_url}/cat.jpg"
    assert encoded["tokens"] == command.read_json("encode", PHOTO, *onnx)["tokens"]
    query = command.read_json("query", "--image", f"{server_url}/cat.jpg", "--allow-private-urls", *onnx)
    assert query == command.read_json("query", "--image", PHOTO, *onnx)
