"""Captions of images without any, from an endpoint in OpenAI's form: asked once, kept, and what it may answer."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.errors import expect_error
from support.models import tiny_training

from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.data.dataset import TrainingSet
from stair_es.training.data_module import build_training_set


class _Endpoint(ThreadingHTTPServer):
    """Captions an image by its color, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys = set[str | None]()
        self.statuses: list[int] = []
        """Statuses of the next answers; 200 afterwards."""
        self.content = "a {} picture\n"
        self.models: list[dict[str, str]] = [{"id": "first"}, {"id": "second"}]
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: _Endpoint

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/v1/models" else 404, {"data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.add(self.headers.get("authorization"))
        if self.server.statuses:
            self._answer(self.server.statuses.pop(0), {"error": "not now"})
            return
        self.server.requests.append(body)
        url = body["messages"][0]["content"][1]["image_url"]["url"]
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        pixel = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert isinstance(pixel, tuple)
        red, _, blue = pixel
        content = self.server.content.format("red" if red > blue else "blue")
        self._answer(200, {"choices": [{"message": {"content": content}}]})

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[_Endpoint]:
    server = _Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training set whose captions are a folder of images: three without a caption, one with, one that isn't an image."""
    tiny_training.write_set(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, color in (("a", (200, 0, 0)), ("b", (0, 0, 200)), ("c", (210, 0, 0))):
        Image.new("RGB", (700, 40), color).save(photos / f"{name}.png")
    (photos / "d.png").write_bytes(b"not an image")
    return tmp_path


def read_set(folder: Path, endpoint: _Endpoint, **changes: str) -> TrainingSet:
    values = {"data.train": [{"captions": "photos"}], "data.captions_from": endpoint.url}
    config = tiny_training.read_config(folder, {**values, **{f"data.{name}": value for name, value in changes.items()}})
    return build_training_set(config, NO_CALLBACKS, 1, Settings(home=DataDir(folder / "home")))


def list_captions(pairs: TrainingSet) -> dict[str, tuple[str, ...]]:
    return {pair.name: pair.captions for pair in pairs}


def test_images_without_captions_get_one_once(folder: Path, endpoint: _Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint.statuses = [429, 503]
    expected = {"a.png": ("a red picture",), "b.png": ("a blue picture",), "c.png": ("a red picture",)}
    pairs = read_set(folder, endpoint)
    assert list_captions(pairs) == expected
    assert list(pairs.problems.counts.values()) == [1]
    assert (len(endpoint.requests), endpoint.keys) == (3, {"Bearer secret"})
    assert {request["model"] for request in endpoint.requests} == {"first"}
    [kept] = (folder / "home" / "training").glob("captions-*.jsonl")
    kept.write_bytes(kept.read_bytes()[:-9])  # as a killed run may leave it
    assert list_captions(read_set(folder, endpoint)) == expected
    assert len(endpoint.requests) == 4
    (folder / "photos" / "a.txt").write_text("my own caption")
    captions = list_captions(read_set(folder, endpoint, captions_model="second", captions_prompt="What is it?"))
    assert captions == {**expected, "a.png": ("my own caption",)}
    assert [(request["model"], request["messages"][0]["content"][0]["text"]) for request in endpoint.requests[4:]] == [
        ("second", "What is it?")
    ] * 2


def test_without_an_endpoint_they_are_problems(folder: Path) -> None:
    (folder / "photos" / "a.txt").write_text("my own caption")
    config = tiny_training.read_config(folder, {"data.train": [{"captions": "photos"}]})
    pairs = build_training_set(config, NO_CALLBACKS, 1, Settings.from_env())
    assert list_captions(pairs) == {"a.png": ("my own caption",)}
    assert pairs.problems.counts == {"no caption": 3}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"statuses": [401]}, "captions-refused"),
        ({"content": " "}, "dataset-error"),
        ({"models": []}, "captions-failed"),
        ({"url": "http://127.0.0.1:9/v1"}, "captions-unreachable"),
    ],
    ids=["key", "empty", "no model", "nobody there"],
)
def test_an_endpoint_that_cannot_caption_is_named(folder: Path, endpoint: _Endpoint, change: dict[str, Any], code: str) -> None:
    for name, value in change.items():
        setattr(endpoint, name, value)
    with expect_error(code) as caught:
        read_set(folder, endpoint)
    assert "secret" not in str(caught.value)


def test_many_images_in_a_row_without_a_caption_end_the_run(folder: Path, endpoint: _Endpoint) -> None:
    endpoint.content = ""
    for number in range(12):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "photos" / f"e{number}.png")
    with expect_error("captions-failed"):
        read_set(folder, endpoint)
