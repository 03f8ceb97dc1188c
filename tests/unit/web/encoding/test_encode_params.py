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
    EmbedParams,
    EncodeParams,
    Pruning,
    QueryParams,
    parse_embed_params,
    parse_encode_params,
    parse_query_params,
)
from stair_es.web.errors import RequestRejected

IMAGE = "data:image/jpeg;base64,AAAA"
IMAGE_BYTES = bytes(3)
MAX_IMAGE_BYTES = 3_000_000
BODY_BYTES = 8 * 1024 * 1024
LONG = "x" * (MAX_TEXT_CHARS + 1)


def encode(**fields: object) -> EncodeParams:
    return parse_encode_params(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def embed(**fields: object) -> EmbedParams:
    return parse_embed_params(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def parse_query(**fields: object) -> QueryParams:
    return parse_query_params(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def test_one_text_is_the_same_as_a_list_of_one() -> None:
    assert (
        encode(texts="a cat")
        == encode(texts=["a cat"], images=None, prune=None, format=None, model=None)
        == EncodeParams(texts=("a cat",))
    )


def test_images_come_as_data_uris_of_any_case() -> None:
    assert encode(images=[IMAGE, "DATA:image/svg+xml;BASE64,/+8="]).images == (IMAGE_BYTES, b"\xff\xef")


def test_pruning_form_and_model_are_read() -> None:
    params = encode(texts=[""], prune={"max_tokens": 3, "min_ratio": 1}, format="features", model="m-1")
    assert (params.pruning, params.format, params.model) == (Pruning(max_tokens=3, min_ratio=1), "features", "m-1")


@pytest.mark.parametrize(
    ("body", "status", "error_type", "message"),
    [
        (b"", 400, "Validation", "not JSON"),
        (b'{"texts": [NaN]}', 400, "Validation", "not JSON"),
        (b'{"texts": ["\\ud800"]}', 400, "Validation", "not JSON"),
        (b"[" * 5000, 400, "Validation", "not JSON"),
        (b"[]", 422, "Validation", "not an object"),
        (b"{}", 400, "Empty", "nothing to encode"),
        (b'{"texts": [], "images": []}', 400, "Empty", "nothing to encode"),
        (b'{"text": "cat"}', 422, "Validation", "unknown field 'text'"),
        (b'{"texts": 1}', 422, "Validation", "`texts` is neither"),
        (b'{"texts": ["a", null]}', 422, "Validation", "`texts` is neither"),
        (b'{"images": [["a"]]}', 422, "Validation", "`images` is neither"),
        (b'{"images": ["AAAA"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"images": ["file:///etc/passwd"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"images": ["data:text/html;base64,AAAA"]}', 422, "Validation", "`images[0]` is not an image in base64"),
        (b'{"texts": "a", "model": 1}', 422, "Validation", "`model`"),
        (b'{"texts": "a", "format": ""}', 422, "Validation", "`format` is not a known format"),
        (b'{"texts": "a", "format": 0}', 422, "Validation", "`format` is not a known format"),
        (b'{"texts": "a", "format": ["tokens"]}', 422, "Validation", "`format` is not a known format"),
        (b'{"texts": "a", "prune": 3}', 422, "Validation", "`prune` is not an object"),
        (b'{"texts": "a", "prune": {"top": 3}}', 422, "Validation", "unknown field 'prune.top'"),
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
        parse_encode_params(body, MAX_IMAGE_BYTES)
    response = caught.value.response
    assert (response.status, response.to_json()["error_type"]) == (status, error_type)
    assert message in response.error


def read_resident_bytes(field: str) -> int:
    """Read the resident memory of this process: `VmRSS`, or its peak `VmHWM`."""
    [kibibytes] = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kibibytes) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux has it")
@pytest.mark.parametrize("tail", ["", "😀", r"\u20ac"])
@pytest.mark.parametrize("head", ["", r"😀\"", r"\u20ac\\\"", "data:image/", "data:image/png;base64,"])
def test_a_body_costs_at_most_four_times_its_size(head: str, tail: str) -> None:
    for unit in (
        "A",
        ";a=",
        "a,",
        "1",
        " ",
        "é",
        "€",
        "😀",
        r"\u002b",
        r"\u20ac",
        r"\/",
        r"\"",
        r"\n",
        "\\",
        '"',
        "[",
        "{",
        "\0",
    ):
        body = f'{{"images": ["{head}{unit * (BODY_BYTES // len(unit.encode()))}{tail}"]}}'.encode()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = read_resident_bytes("VmRSS")
        with suppress(RequestRejected):
            parse_encode_params(body, len(body))
        assert read_resident_bytes("VmHWM") - before <= 3 * len(body), unit  # the body was there before


def test_an_image_beyond_the_limit_is_refused() -> None:
    with pytest.raises(RequestRejected, match="larger than 3,000,000 bytes"):
        encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 3)])
    assert len(encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 4)]).images[0]) == MAX_IMAGE_BYTES


def test_tei_requests_are_taken_as_its_clients_send_them() -> None:
    assert embed(inputs="a cat", truncate=True) == EmbedParams(inputs=("a cat",))
    mixed = embed(inputs=["a", IMAGE, "b"], truncate=False, truncation_direction="right", normalize=True, prompt_name=None)
    assert mixed == EmbedParams(inputs=("a", IMAGE_BYTES, "b"))
    assert len(embed(inputs=["a"] * MAX_INPUTS).inputs) == MAX_INPUTS
    with_parameters = "DATA:image/svg+xml;charset=utf-8;name=a%20b.svg;BASE64,AAAA"
    assert embed(inputs=with_parameters) == EmbedParams(inputs=(IMAGE_BYTES,))
    assert embed(inputs=", ".join("a" * 200_000)).inputs == (", ".join("a" * 200_000)[:MAX_TEXT_CHARS],)
    assert embed(inputs="\N{CAT FACE}" * 200_000).inputs == ("\N{CAT FACE}" * MAX_TEXT_CHARS,)


def test_long_texts_are_cut_unless_the_client_forbids_it() -> None:
    assert embed(inputs=LONG).inputs == embed(inputs=LONG, truncate=True).inputs == (LONG[:-1],)
    with pytest.raises(RequestRejected) as caught:
        embed(inputs=LONG, truncate=False)
    assert caught.value.response.status == 413


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 422, "`inputs` is missing"),
        ({"inputs": []}, 400, "nothing to encode"),
        ({"inputs": [[1, 2]]}, 422, "`inputs` is neither"),
        ({"inputs": {"text": "a"}}, 422, "`inputs` is neither"),
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
    text: dict[str, object] = {"text": "a cat", "size": 3.0, "prune": {"max_tokens": 2.0}}
    assert parse_query(**text) == QueryParams(text="a cat", size=3, pruning=Pruning(max_tokens=2))
    assert parse_query(image=IMAGE) == QueryParams(image=IMAGE_BYTES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`text` or `image`"),
        ({"text": "a", "image": IMAGE}, "`text` or `image`"),
        ({"text": ["a"]}, "`text` is not a string"),
        ({"text": "a", "size": 0}, "`size`"),
        ({"text": "a", "size": True}, "`size`"),
        ({"text": "a", "size": 10_001}, "`size`"),
        ({"image": "AAAA"}, "`image` is not an image"),
        ({"text": "a", "k": 3}, "unknown field 'k'"),
    ],
)
def test_other_queries_are_rejected(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestRejected, match=message) as caught:
        parse_query(**fields)
    assert caught.value.response.status == 422
