"""Bodies of encoding requests: what is taken, and what is refused with which status."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stair_es.types import SparseVector
from stair_es.web.encoding.schemas import (
    MAX_INPUTS,
    MAX_TEXT_CHARS,
    EncodeRequest,
    Inputs,
    Pruning,
    QueryRequest,
    parse_embed_request,
    parse_encode_request,
    parse_query_request,
)
from stair_es.web.errors import RequestRejected

IMAGE = "data:image/jpeg;base64,AAAA"
IMAGE_BYTES = bytes(3)
MAX_IMAGE_BYTES = 3_000_000
BODY_BYTES = 4 * 1024 * 1024
LONG = "x" * (MAX_TEXT_CHARS + 1)


def encode(**fields: object) -> tuple[EncodeRequest, Inputs]:
    return parse_encode_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def embed(**fields: object) -> Inputs:
    return parse_embed_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)[1]


def parse_query(**fields: object) -> tuple[QueryRequest, Inputs]:
    return parse_query_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def test_one_text_is_the_same_as_a_list_of_one() -> None:
    expected = {"texts[0]": "a cat"}
    assert encode(texts="a cat")[1] == encode(texts=["a cat"], images=None, prune=None, format=None, model=None)[1] == expected


def test_images_come_as_data_uris_of_any_case() -> None:
    request, inputs = encode(images=[IMAGE, "DATA:image/svg+xml;BASE64,/+8="])
    assert (inputs, request.images) == ({"images[0]": IMAGE_BYTES, "images[1]": b"\xff\xef"}, None)


def test_pruning_form_and_model_are_read() -> None:
    request, _ = encode(texts=[""], prune={"max_tokens": 3, "min_ratio": 1}, format="features", model="m-1")
    assert (request.prune, request.format, request.model) == (Pruning(max_tokens=3, min_ratio=1), "features", "m-1")


@pytest.mark.parametrize(
    ("body", "status", "error_type", "message"),
    [
        (b"", 400, "Validation", "not JSON"),
        (b'{"texts": [NaN]}', 400, "Validation", "not JSON"),
        (b'{"texts": ["\\ud800"]}', 400, "Validation", "not JSON"),
        (b"[" * 5000, 400, "Validation", "not JSON"),
        (b"[]", 422, "Validation", "expected `object`"),
        (b"{}", 400, "Empty", "nothing to encode"),
        (b'{"texts": [], "images": []}', 400, "Empty", "nothing to encode"),
        (b'{"text": "cat"}', 422, "Validation", "unknown field 'text'"),
        (b'{"texts": 1}', 422, "Validation", "`texts`: expected"),
        (b'{"texts": ["a", null]}', 422, "Validation", "`texts[1]`: expected"),
        (b'{"images": [["a"]]}', 422, "Validation", "`images[0]`: expected"),
        (b'{"images": ["AAAA"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"images": ["file:///etc/passwd"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"images": ["data:text/html;base64,AAAA"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"texts": "a", "model": 1}', 422, "Validation", "`model`"),
        (b'{"texts": "a", "format": ""}', 422, "Validation", "`format`: "),
        (b'{"texts": "a", "format": 0}', 422, "Validation", "`format`: "),
        (b'{"texts": "a", "format": ["tokens"]}', 422, "Validation", "`format`: "),
        (b'{"texts": "a", "prune": 3}', 422, "Validation", "`prune`: expected"),
        (b'{"texts": "a", "prune": {"top": 3}}', 422, "Validation", "`prune`: unknown field 'top'"),
        (b'{"texts": "a", "prune": {"max_tokens": 0}}', 422, "Validation", "max_tokens"),
        (b'{"texts": "a", "prune": {"max_tokens": true}}', 422, "Validation", "max_tokens"),
        (b'{"texts": "a", "prune": {"max_tokens": 1.5}}', 422, "Validation", "max_tokens"),
        (b'{"texts": "a", "prune": {"min_ratio": 1.01}}', 422, "Validation", "min_ratio"),
        (b'{"texts": "a", "prune": {"min_ratio": "0.1"}}', 422, "Validation", "min_ratio"),
        (b'{"texts": "a", "prune": {"min_ratio": false}}', 422, "Validation", "min_ratio"),
        (json.dumps({"texts": ["a"] * 30, "images": [IMAGE] * 3}).encode(), 413, "Validation", "batch size 33 >"),
        (b'{"texts": [' + b"[]," * 131_072 + b'"a"]}', 413, "Validation", "more than 262,144 commas"),
        (json.dumps({"images": f"{IMAGE}é"}, ensure_ascii=False).encode(), 422, "Validation", "`images[0]`: not valid base64"),
        (f'{{"images": "data:image/{"a" * 200};base64,AAAA"}}'.encode(), 422, "Validation", "`images[0]` is not an image"),
        (json.dumps({"texts": "a", "model": "m" * 1001}).encode(), 422, "Validation", "`model`"),
        (json.dumps({"texts": ["a", LONG]}).encode(), 413, "Validation", "`texts[1]` has 8,193 characters"),
    ],
)
def test_other_encode_requests_are_refused(body: bytes, status: int, error_type: str, message: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_encode_request(body, MAX_IMAGE_BYTES)
    response = caught.value.response
    assert (response.status, response.to_json()["error_type"]) == (status, error_type)
    assert message in response.error


def read_resident_bytes(field: str) -> int:
    """Read the resident memory of this process: `VmRSS`, or its peak `VmHWM`."""
    [kibibytes] = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * 1024


def measure_cost(body: bytes) -> float:
    """Measure the peak of memory while a body is parsed, in sizes of the body."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = read_resident_bytes("VmRSS")
    with suppress(RequestRejected):
        parse_encode_request(body, len(body))
    return 1 + (read_resident_bytes("VmHWM") - before) / len(body)  # the body was there before


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux has it")
UNITS = ("A", ";a=", "a,", "1", " ", "é", "€", "😀", r"\u002b", r"\u20ac", r"\/", r"\"", r"\n", "\\", '"', "[", "{", "\0")


@needs_linux
@pytest.mark.parametrize("tail", ["", "😀", r"\u20ac"])
@pytest.mark.parametrize("head", ["", r"😀\"", r"\u20ac\\\"", "data:image/", "data:image/png;base64,"])
def test_a_body_costs_at_most_four_times_its_size(head: str, tail: str) -> None:
    for unit in UNITS:
        body = f'{{"images": ["{head}{unit * (BODY_BYTES // len(unit.encode()))}{tail}"]}}'.encode()
        assert measure_cost(body) <= 4, unit


@needs_linux
@pytest.mark.parametrize(
    "template",
    ['{"images": "{}"', '{"texts": "😀", "images": "{}" }}', '{"format": "{}"}', '{"{}": "a"}', '{"prune": {"{}": 1}}'],
)
def test_an_error_does_not_hold_copies_of_the_body(template: str) -> None:
    assert measure_cost(template.replace("{}", "A" * BODY_BYTES).encode()) <= 4


def test_an_image_beyond_the_limit_is_refused() -> None:
    with pytest.raises(RequestRejected, match="larger than 3,000,000 bytes"):
        encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 3)])
    assert len(encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 4)])[1]["images[0]"]) == MAX_IMAGE_BYTES


def test_tei_requests_are_taken_as_its_clients_send_them() -> None:
    assert embed(inputs="a cat", truncate=True) == {"inputs[0]": "a cat"}
    mixed = embed(inputs=["a", IMAGE, "b"], truncate=False, truncation_direction="right", normalize=True, prompt_name=None)
    assert mixed == {"inputs[0]": "a", "inputs[1]": IMAGE_BYTES, "inputs[2]": "b"}
    assert len(embed(inputs=["a"] * MAX_INPUTS)) == MAX_INPUTS
    with_parameters = "DATA:image/svg+xml;charset=utf-8;name=a%20b.svg;BASE64,AAAA"
    assert embed(inputs=with_parameters) == {"inputs[0]": IMAGE_BYTES}


@pytest.mark.parametrize("text", [LONG, ", ".join("a" * 200_000), "\N{CAT FACE}" * 200_000])
def test_long_texts_are_cut_unless_the_client_forbids_it(text: str) -> None:
    assert embed(inputs=text) == embed(inputs=text, truncate=True) == {"inputs[0]": text[:MAX_TEXT_CHARS]}
    with pytest.raises(RequestRejected) as caught:
        embed(inputs=text, truncate=False)
    assert caught.value.response.status == 413


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 422, "`inputs`"),
        ({"inputs": []}, 400, "nothing to encode"),
        ({"inputs": [[1, 2]]}, 422, "`inputs[0]`"),
        ({"inputs": {"text": "a"}}, 422, "`inputs`"),
        ({"inputs": "a", "truncate": "yes"}, 422, "`truncate`"),
        ({"inputs": "a", "truncate": 0}, 422, "`truncate`"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "`prompt_name`"),
        ({"inputs": ["a", "data:application/octet-stream;base64,AAAA"]}, 422, "`inputs[1]` is not an image in base64"),
        ({"inputs": "data:;base64,AAAA"}, 422, "`inputs[0]` is not an image in base64"),
        ({"inputs": ["a"] * 33}, 413, "batch size 33 > maximum allowed batch size 32"),
    ],
)
def test_other_tei_requests_are_refused(fields: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        embed(**fields)
    assert (caught.value.response.status, message in caught.value.response.error) == (status, True)


@pytest.mark.parametrize(
    ("pruning", "kept"),
    [
        (Pruning(), "abcd"),
        (Pruning(max_tokens=2), "ab"),
        (Pruning(max_tokens=9), "abcd"),
        (Pruning(min_ratio=0.5), "abc"),
        (Pruning(min_ratio=1), "a"),
        (Pruning(max_tokens=2, min_ratio=0.5), "ab"),
        (Pruning(max_tokens=3, min_ratio=0.6), "ab"),
    ],
)
def test_pruning_keeps_the_heaviest_tokens(pruning: Pruning, kept: str) -> None:
    vector = SparseVector.from_mapping({"a": 0.8, "b": 0.6, "c": 0.4, "d": 0.1})
    assert "".join(pruning.prune_vector(vector).tokens) == kept
    assert not len(pruning.prune_vector(SparseVector.from_mapping({})))


def test_a_query_has_either_a_text_or_an_image() -> None:
    request, inputs = parse_query(text="a cat", size=3.0, prune={"max_tokens": 2.0})
    assert (inputs, request.size, request.prune) == ({"text": "a cat"}, 3, Pruning(max_tokens=2))
    request, inputs = parse_query(image=IMAGE)
    assert (inputs, request.image) == ({"image": IMAGE_BYTES}, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`text` or `image`"),
        ({"text": "a", "image": IMAGE}, "`text` or `image`"),
        ({"text": ["a"]}, "`text`"),
        ({"text": "a", "size": 0}, "`size`"),
        ({"text": "a", "size": True}, "`size`"),
        ({"text": "a", "size": 2.5}, "`size`"),
        ({"text": "a", "size": 10_001}, "`size`"),
        ({"image": "AAAA"}, "`image` is not an image"),
        ({"text": "a", "k": 3}, "unknown field 'k'"),
    ],
)
def test_other_queries_are_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestRejected, match=message) as caught:
        parse_query(**fields)
    assert caught.value.response.status == 422
