"""The HTTP API of the encoder over a real server with the real model: vectors, errors, limits, load."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from openapi_schema_validator import OAS31Validator
from support.corpora.hostile_images import build_png
from support.polling import poll_until
from support.servers.hostile_http_server import PageClient, Response, serve_encoder

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.search.query_encoder import encode_query_image
from stair_es.types import ImageSpec, Pixels, SparseVector
from stair_es.web import server
from stair_es.web.auth import AccessPolicy
from stair_es.web.encoding import service
from stair_es.web.encoding.openapi import build_openapi_document
from stair_es.web.encoding.routes import DENSE_PATHS
from stair_es.web.encoding.schemas import MAX_BODY_BYTES
from stair_es.web.encoding.service import EncodingTarget

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
TEXTS = ("a red car", "two dogs on a beach", "zxqv", "", "a plate of pasta with tomatoes and basil")
TOKEN = "a-token-that-is-long-enough"
TIMEOUT_S = 60
DOCUMENT = build_openapi_document()


@pytest.fixture(scope="module")
def mini_encoder() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini"))


@pytest.fixture(scope="module")
def encoder_client(mini_encoder: Encoder) -> Iterator[PageClient]:
    with serve_encoder(EncodingTarget(encoder=mini_encoder)) as client:
        yield client


@pytest.fixture
def use_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode short texts in one thread, so that a test knows what waits."""
    monkeypatch.setattr(service, "_SHORT_TEXT_WORKERS", 1)


class WaitingEncoder(Encoder):
    """An encoder whose texts wait until they are released, except for that of the start."""

    card = ModelCard(name="waiting", model_id="waiting-1", image_spec=ImageSpec(size_px=32), description="")

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.released = threading.Semaphore(0), threading.Event()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise ValueError("no images\x1b[2J")

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        if not texts[0].startswith("a red car"):
            self.batches.append(list(texts))
            self.entered.release()
            assert self.released.wait(TIMEOUT_S)
        return [SparseVector.from_mapping({text: 1.0}) for text in texts]


def to_data_uri(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def check_response(path: str, method: str, response: Response) -> None:
    """Check a response against the OpenAPI document."""
    described = DOCUMENT["paths"][path][method]["responses"][str(response.status)]["content"]
    assert response.headers["content-type"].partition(";")[0] in described
    if "application/json" in described:
        schema = described["application/json"]["schema"]
        OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(response.json)


def check_overloaded(path: str, response: Response) -> None:
    check_response(path, "post", response)
    assert (response.status, response.json["error_type"], response.headers["retry-after"]) == (429, "Overloaded", "2")


def test_vectors_are_those_of_the_encoder(encoder_client: PageClient, mini_encoder: Encoder) -> None:
    photos = PHOTOS[:3]
    response = encoder_client.post(
        "/v1/encode", {"texts": TEXTS, "images": [to_data_uri(photo.read_bytes()) for photo in photos]}
    )
    check_response("/v1/encode", "post", response)
    assert (response.status, response.json["model"], response.json["policy"]) == (200, mini_encoder.model_id, None)
    texts = [mini_encoder.encode_texts([text])[0].to_dict() for text in TEXTS]
    assert [vector["tokens"] for vector in response.json["texts"]] == texts
    assert texts[3] == {}
    images = [vector["tokens"] for vector in response.json["images"]]
    for weights, photo in zip(images, photos, strict=True):
        expected = encode_query_image(mini_encoder, photo)
        assert list(weights) == list(expected.tokens)
        assert list(weights.values()) == pytest.approx(list(expected.weights), rel=1e-5)
    assert list(texts[0].values()) == sorted(texts[0].values(), reverse=True)


def test_pruning_keeps_the_heaviest(encoder_client: PageClient, mini_encoder: Encoder) -> None:
    whole = mini_encoder.encode_texts(["a red car"])[0]
    pruned = encoder_client.post(
        "/v1/encode", {"texts": "a red car", "prune": {"max_tokens": 3}, "model": mini_encoder.model_id}
    ).json
    assert pruned["texts"] == [{"tokens": whole.top(3).to_dict()}]
    pruned = encoder_client.post("/v1/encode", {"texts": "a red car", "prune": {"min_ratio": 0.6}}).json
    assert pruned["texts"][0]["tokens"] == {token: weight for token, weight in whole if weight >= 0.6 * whole.weights[0]}


def test_tei_clients_get_positions_in_the_vocabulary(encoder_client: PageClient, mini_encoder: Encoder) -> None:
    url = f"http://127.0.0.1:{encoder_client.port}"
    embed = partial(requests.post, f"{url}/embed_sparse", timeout=TIMEOUT_S)
    tokens = requests.get(f"{url}/v1/vocabulary", timeout=TIMEOUT_S).json()["tokens"]
    assert tuple(tokens) == tuple(mini_encoder.tokens)
    inputs = ["a red car", to_data_uri(PHOTOS[0].read_bytes()), "two dogs"]
    rows = embed(json={"inputs": inputs, "truncate": True}).json()
    car, dogs = (mini_encoder.encode_texts([text])[0] for text in (inputs[0], inputs[2]))
    for row, vector in zip(rows, [car, encode_query_image(mini_encoder, PHOTOS[0]), dogs], strict=True):
        assert {tokens[pair["index"]]: pair["value"] for pair in row} == pytest.approx(vector.to_dict(), rel=1e-5)
    assert embed(json={"inputs": "a red car"}).json() == [rows[0]]
    info = requests.get(f"{url}/info", timeout=TIMEOUT_S).json()
    assert info["model_id"] == info["served_model_name"] == mini_encoder.model_id
    assert info["model_type"] == {"embedding": {"pooling": "splade"}}
    assert len(embed(json={"inputs": ["a"] * info["max_client_batch_size"]}).json()) == 32


@pytest.mark.parametrize("path", [path for path, methods in DOCUMENT["paths"].items() if "get" in methods])
def test_other_routes_answer_as_the_document_says(encoder_client: PageClient, path: str) -> None:
    response = encoder_client.get(path)
    assert response.status == 200
    check_response(path, "get", response)


def test_model_and_openapi_document_are_listed(encoder_client: PageClient, mini_encoder: Encoder) -> None:
    assert [model["id"] for model in encoder_client.get("/v1/models").json["data"]] == [mini_encoder.model_id]
    assert encoder_client.get("/v1/openapi.json").json == json.loads(json.dumps(DOCUMENT))


@pytest.mark.parametrize(
    ("path", "value", "status", "code", "place"),
    [
        ("/v1/encode", {}, 400, "no-input", ""),
        ("/v1/encode", {"texts": ["a"] * 33}, 413, "too-many-inputs", "33"),
        ("/v1/encode", {"texts": ["a"], "model": "other-1"}, 404, "model-not-served", "other-1"),
        ("/v1/encode", {"images": ["data:image/png;base64,AAAA"]}, 422, "unknown-image-format", "`images[0]`"),
        ("/v1/encode", {"images": ["data:image/png;base64,%%%"]}, 422, "not-base64", "`images[0]`"),
        ("/v1/encode", {"images": ["data:image/png;base64,é"]}, 422, "not-base64", "`images[0]`"),
        ("/v1/query", {"image": "data:image/png;base64,é"}, 422, "not-base64", "`image`"),
        ("/embed_sparse", {"inputs": ["data:image/png;base64,é"]}, 422, "not-base64", "`inputs[0]`"),
        ("/embed_sparse", {"inputs": ["a", "data:image/png;base64,AAAA"]}, 422, "unknown-image-format", "`inputs[1]`"),
        ("/embed_sparse", {"inputs": []}, 400, "no-input", ""),
        ("/embed_sparse", {"inputs": 1}, 422, "invalid-body", "`inputs`"),
    ],
)
def test_bad_input_is_refused(encoder_client: PageClient, path: str, value: object, status: int, code: str, place: str) -> None:
    response = encoder_client.post(path, value)
    check_response(path, "post", response)
    assert (response.status, response.json["code"]) == (status, code), response.json
    assert place in response.json["error"]
    assert not encoder_client.messages


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("POST", "/v1/encode", {"content-type": "text/plain"}, 415),
        ("POST", "/embed_sparse", {}, 415),
        ("POST", "/v1/encode", {"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ("GET", "/v1/encode", {}, 405),
        ("GET", "/", {}, 405),
        *[("POST", path, {}, 424) for path in DENSE_PATHS],
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/info", {"host": "evil.example"}, 403),
        ("GET", "/info", {"origin": "http://evil.example"}, 403),
    ],
)
def test_other_requests_are_refused(
    encoder_client: PageClient, method: str, target: str, headers: dict[str, str], status: int
) -> None:
    response = encoder_client.request(method, target, b'{"texts": "a"}', headers)
    assert (response.status, set(response.json)) == (status, {"error", "error_type", "code", "remedy"})


def test_a_body_that_is_too_large_is_refused(encoder_client: PageClient) -> None:
    response = encoder_client.request(
        "POST", "/v1/encode", b'{"texts": "' + b"x" * MAX_BODY_BYTES, {"content-type": "application/json"}
    )
    assert (response.status, response.json["error_type"]) == (413, "Validation")


def test_an_image_bomb_is_refused_and_named(encoder_client: PageClient) -> None:
    bomb = build_png(30_000, 30_000, data=zlib.compress(bytes(100)))
    images = [to_data_uri(PHOTOS[0].read_bytes()), to_data_uri(bomb)]
    response = encoder_client.post("/v1/encode", {"texts": ["a cat"], "images": images})
    check_response("/v1/encode", "post", response)
    assert (response.status, response.json["code"]) == (422, "decompression-bomb")
    assert "`images[1]`" in response.json["error"]


def test_64_clients_get_their_own_vectors(encoder_client: PageClient, mini_encoder: Encoder) -> None:
    words = [word for word in mini_encoder.tokens if word.isalpha()][:192]
    expected = {word: mini_encoder.encode_texts([word])[0].to_dict() for word in words[::4]}

    def encode_words(client: int) -> list[Any]:
        connection = http.client.HTTPConnection("127.0.0.1", encoder_client.port, timeout=TIMEOUT_S)
        vectors = []
        for word in words[client::64]:
            connection.request("POST", "/v1/encode", json.dumps({"texts": [word]}), {"Content-Type": "application/json"})
            vectors.append((word, json.loads(connection.getresponse().read())["texts"][0]["tokens"]))
        connection.close()
        return vectors

    with ThreadPoolExecutor(64) as pool:
        vectors = dict(pair for pairs in pool.map(encode_words, range(64)) for pair in pairs)
    assert {word: vectors[word] for word in expected} == expected
    assert len(vectors) == 192


@pytest.mark.usefixtures("use_one_worker")
def test_full_queues_reject_requests_and_answer_waiting_ones() -> None:
    encoder = WaitingEncoder()
    with serve_encoder(EncodingTarget(encoder=encoder), max_waiting=4) as client, ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/v1/encode", {"texts": ["first"]})
        assert encoder.entered.acquire(timeout=TIMEOUT_S)
        waiting = [pool.submit(client.post, "/v1/encode", {"texts": [f"text {i}"]}) for i in range(4)]
        wait_for_queue(client, 4)
        refused = client.post("/embed_sparse", {"inputs": ["one more"]})
        check_overloaded("/embed_sparse", refused)
        encoder.released.set()
        assert first.result().json["texts"] == [{"tokens": {"first": 1.0}}]
        assert [each.result().json["texts"][0]["tokens"] for each in waiting] == [{f"text {i}": 1.0} for i in range(4)]
        assert sorted(text for batch in encoder.batches for text in batch) == ["first", *(f"text {i}" for i in range(4))]
        metrics = read_metrics(client)
    assert metrics['te_request_count{method="single"}'] == 6
    assert metrics['te_request_success{method="single"}'] == 5
    assert metrics['te_request_failure{err="overloaded"}'] == 1
    assert (metrics["te_batch_next_size_sum"], metrics["te_request_queue_duration_count"], metrics["te_queue_size"]) == (5, 5, 0)


def test_beyond_the_requests_in_progress_only_health_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_REQUESTS", 8)
    head = b"POST /v1/encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    encoder = WaitingEncoder()
    with serve_encoder(EncodingTarget(encoder=encoder)) as client, ThreadPoolExecutor(16) as pool, ExitStack() as stack:
        stack.callback(encoder.released.set)
        for _ in range(20):  # don't count: their bodies may never arrive
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port))).sendall(head)
        waiting = [pool.submit(client.post, "/v1/encode", {"texts": [f"text {i}"]}) for i in range(16)]
        poll_until(lambda: client.get("/metrics").status == 429)
        assert client.get("/health").body == b"ok\n"
        refused = client.post("/v1/encode", {"texts": "a"})
        check_overloaded("/v1/encode", refused)
        encoder.released.set()
        assert {each.result().status for each in waiting} == {200, 429}
        assert client.post("/v1/encode", {"texts": "a"}).status == 200


@pytest.mark.usefixtures("use_one_worker")
def test_late_requests_get_503_and_leave_the_queue() -> None:
    with serve_encoder(EncodingTarget(encoder=WaitingEncoder()), timeout_s=0.5) as client:
        late = client.post("/v1/encode", {"texts": ["late"]})
        check_response("/v1/encode", "post", late)
        assert (late.status, late.json["code"], late.headers["retry-after"]) == (503, "encoding-timed-out", "2")
        assert "0.5 s" in late.json["error"]
        wait_for_queue(client, 0)


@pytest.mark.usefixtures("use_one_worker")
def test_requests_of_gone_clients_leave_the_queue() -> None:
    encoder = WaitingEncoder()
    with serve_encoder(EncodingTarget(encoder=encoder)) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/encode", {"texts": ["first"]})
        assert encoder.entered.acquire(timeout=TIMEOUT_S)
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=TIMEOUT_S)
        connection.request("POST", "/v1/encode", '{"texts": ["gone"]}', {"Content-Type": "application/json"})
        wait_for_queue(client, 1)
        connection.close()
        wait_for_queue(client, 0)
        assert read_metrics(client)['te_request_failure{err="closed"}'] == 1
        encoder.released.set()
        assert first.result().status == 200
    assert encoder.batches == [["first"]]


def test_a_model_that_fails_and_one_without_a_vocabulary() -> None:
    encoder = WaitingEncoder()
    encoder.released.set()
    with serve_encoder(EncodingTarget(encoder=encoder)) as client:
        failed = client.post("/v1/encode", {"images": [to_data_uri(PHOTOS[0].read_bytes())]})
        assert (failed.status, failed.json["error_type"], "no images" in failed.json["error"]) == (500, "Backend", False)
        assert any("no images" in message for message in client.messages)
        for response in (client.post("/embed_sparse", {"inputs": "a"}), client.get("/v1/vocabulary")):
            assert (response.status, response.json["error_type"]) == (424, "Backend")
        assert client.post("/v1/encode", {"texts": "a"}).json["texts"] == [{"tokens": {"a": 1.0}}]


class FailingEncoder(WaitingEncoder):
    """An encoder that fails if one of its inputs is bad: the text `bad`, or a black image."""

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        if not pixels_BHWC.reshape(len(pixels_BHWC), -1).any(axis=1).all():
            raise ValueError("black")
        return [SparseVector.from_mapping({"image": 1.0})] * len(pixels_BHWC)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        if "bad" in texts:
            raise ModelError("weights that aren't finite")
        return super().encode_texts(texts)


def test_bad_inputs_change_no_answer_to_another_request(encoder_client: PageClient) -> None:
    good, bad = to_data_uri(PHOTOS[0].read_bytes()), "data:image/png;base64,AAAA"
    black = to_data_uri(build_png(8, 8, data=zlib.compress(bytes(8 * 25))))
    encoder = FailingEncoder()
    encoder.released.set()
    with serve_encoder(EncodingTarget(encoder=encoder)) as failing, ThreadPoolExecutor(16) as pool:
        for client, kind, values in (
            (encoder_client, "images", [good, bad]),
            (failing, "images", [good, black]),
            (failing, "texts", ["a", "bad"]),
        ):
            bodies = [{kind: [values[i % 5 == 4]]} for i in range(30)]
            statuses = [response.status for response in pool.map(partial(client.post, "/v1/encode"), bodies)]
            assert [status == 200 for status in statuses] == [i % 5 != 4 for i in range(30)], statuses


@pytest.mark.parametrize(("head", "unit"), [("data:image/", ";a="), ("data:image/", "a"), ("data:image/png;base64,", "A")])
def test_large_bodies_do_not_delay_other_requests(encoder_client: PageClient, head: str, unit: str) -> None:
    body = f'{{"images": ["{head}{unit * (MAX_BODY_BYTES // len(unit) - 60)}"]}}'.encode()
    gaps_s = [0.0]
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(encoder_client.request, "POST", "/v1/encode", body, {"content-type": "application/json"})
        while not response.done():
            started_s = time.monotonic()
            assert encoder_client.get("/health").status == 200
            gaps_s.append(time.monotonic() - started_s)
    assert response.result().status == 422
    assert max(gaps_s) < 5  # on a busy machine; the client shares the interpreter with the server


def test_requests_with_the_token_are_served_under_any_host_name(mini_encoder: Encoder) -> None:
    access_policy = AccessPolicy(token=TOKEN, bearer_only=True)
    with serve_encoder(EncodingTarget(encoder=mini_encoder), guard=access_policy, root_path="/encoder") as client:
        bearer = {"authorization": f"Bearer {TOKEN}", "host": "encoder.default.svc:8078"}
        for prefix in ("", "/encoder"):
            assert client.post(f"{prefix}/v1/encode", {"texts": "a cat"}, **bearer).status == 200
            assert client.get(f"{prefix}/health", host="10.0.0.7").status == 200
        metrics = client.get("/encoder/metrics", **bearer).body
        assert b'stair_es_server_requests_total{method="POST",route="/v1/encode",status="200"} 2.0' in metrics
        for path in ("/info", "/v1/vocabulary", "/metrics", f"/info?token={TOKEN}"):
            response = client.get(path, accept="text/html")
            assert (response.status, response.json["error_type"], response.cookies) == (401, "Unauthorized", ())
        assert client.post("/v1/encode", {"texts": "a cat"}, authorization="Bearer wrong").status == 401
        assert client.post("/embed_sparse", {"inputs": "a"}, **{**bearer, "origin": "http://evil.example"}).status == 403


def read_metrics(client: PageClient) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def wait_for_queue(client: PageClient, size: int) -> None:
    poll_until(lambda: read_metrics(client)["te_queue_size"] == size)
