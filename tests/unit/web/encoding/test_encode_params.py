"""Bodies of encoding requests: what is taken, and what is refused with which status."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import JSON_VALUES, TOKENS, draw_damaged_bytes, mix_rarely

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
from stair_es.web.errors import ErrorResponse, RequestRejected
from stair_es.web.search.params import Condition

IMAGE = "data:image/jpeg;base64,AAAA"
IMAGE_BYTES = bytes(3)
MAX_IMAGE_BYTES = 3_000_000
BODY_BYTES = 4 * 1024 * 1024
LONG = "x" * (MAX_TEXT_CHARS + 1)


def parse_encode(**fields: object) -> tuple[EncodeRequest, Inputs]:
    return parse_encode_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def parse_embed(**fields: object) -> Inputs:
    return parse_embed_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)[1]


def parse_query(**fields: object) -> tuple[QueryRequest, Inputs]:
    return parse_query_request(json.dumps(fields).encode(), MAX_IMAGE_BYTES)


def test_one_text_is_the_same_as_a_list_of_one() -> None:
    nulls = dict.fromkeys(("images", "prune", "format", "model"))
    assert parse_encode(texts="a cat")[1] == parse_encode(texts=["a cat"], **nulls)[1] == {"texts[0]": "a cat"}


def test_images_come_as_data_uris_of_any_case() -> None:
    request, inputs = parse_encode(images=[IMAGE, "DATA:image/svg+xml;BASE64,/+8="])
    assert (inputs, request.images) == ({"images[0]": IMAGE_BYTES, "images[1]": b"\xff\xef"}, None)


def test_pruning_form_and_model_are_read() -> None:
    request, _ = parse_encode(texts=[""], prune={"max_tokens": 3, "min_ratio": 1}, format="features", model="m-1")
    assert (request.prune, request.format, request.model) == (Pruning(max_tokens=3, min_ratio=1), "features", "m-1")


@pytest.mark.parametrize(
    ("body", "status", "code", "fact"),
    [
        (b"", 400, "body-not-json", ""),
        (b'{"texts": [NaN]}', 400, "body-not-json", ""),
        (b'{"texts": ["\\ud800"]}', 400, "body-not-json", ""),
        (b"[" * 5000, 400, "body-not-json", ""),
        (b"[]", 422, "invalid-body", "`object`"),
        (b"{}", 400, "no-input", ""),
        (b'{"texts": [], "images": []}', 400, "no-input", ""),
        (b'{"text": "cat"}', 422, "invalid-body", "'text'"),
        (b'{"texts": 1}', 422, "invalid-body", "`texts`"),
        (b'{"texts": ["a", null]}', 422, "invalid-body", "`texts[1]`"),
        (b'{"images": [["a"]]}', 422, "invalid-body", "`images[0]`"),
        (b'{"images": ["AAAA"]}', 422, "not-base64", "`images[0]`"),
        (b'{"images": ["file:///etc/passwd"]}', 422, "not-base64", "`images[0]`"),
        (b'{"images": ["data:text/html;base64,AAAA"]}', 422, "not-base64", "`images[0]`"),
        (b'{"texts": "a", "model": 1}', 422, "invalid-body", "`model`"),
        (b'{"texts": "a", "format": ""}', 422, "invalid-body", "`format`"),
        (b'{"texts": "a", "format": 0}', 422, "invalid-body", "`format`"),
        (b'{"texts": "a", "format": ["tokens"]}', 422, "invalid-body", "`format`"),
        (b'{"texts": "a", "prune": 3}', 422, "invalid-body", "`prune`"),
        (b'{"texts": "a", "prune": {"top": 3}}', 422, "invalid-body", "`prune`"),
        (b'{"texts": "a", "prune": {"max_tokens": 0}}', 422, "invalid-body", "max_tokens"),
        (b'{"texts": "a", "prune": {"max_tokens": true}}', 422, "invalid-body", "max_tokens"),
        (b'{"texts": "a", "prune": {"max_tokens": 1.5}}', 422, "invalid-body", "max_tokens"),
        (b'{"texts": "a", "prune": {"min_ratio": 1.01}}', 422, "invalid-body", "min_ratio"),
        (b'{"texts": "a", "prune": {"min_ratio": "0.1"}}', 422, "invalid-body", "min_ratio"),
        (b'{"texts": "a", "prune": {"min_ratio": false}}', 422, "invalid-body", "min_ratio"),
        (json.dumps({"texts": ["a"] * 30, "images": [IMAGE] * 3}).encode(), 413, "too-many-inputs", "33"),
        (b'{"texts": [' + b"[]," * 131_072 + b'"a"]}', 413, "body-too-complex", "262,144"),
        (json.dumps({"images": f"{IMAGE}é"}, ensure_ascii=False).encode(), 422, "not-base64", "`images[0]`"),
        (f'{{"images": "data:image/{"a" * 200};base64,AAAA"}}'.encode(), 422, "not-base64", "`images[0]`"),
        (json.dumps({"texts": "a", "model": "m" * 1001}).encode(), 422, "invalid-body", "`model`"),
        (json.dumps({"texts": ["a", LONG]}).encode(), 413, "text-too-long", "`texts[1]`"),
    ],
)
def test_other_encode_requests_are_rejected(body: bytes, status: int, code: str, fact: str) -> None:
    _, rejection = parse_or_reject(parse_encode_request, body)
    assert rejection is not None
    assert (rejection.status, rejection.code) == (status, code)
    assert rejection.to_json()["error_type"] == ("Empty" if code == "no-input" else "Validation")
    assert fact in rejection.error


PARSERS = (parse_encode_request, parse_query_request, parse_embed_request)
_IMAGES = mix_rarely(st.just(IMAGE), st.sampled_from((IMAGE + "A", "data:image/png;base64,", "data:text/html;base64,AAAA")))
_ITEMS = mix_rarely(TOKENS, st.just(LONG) | JSON_VALUES)
_ODD_LISTS = _ITEMS.map(lambda item: [item] * (MAX_INPUTS + 1)) | JSON_VALUES
_PRUNING = st.fixed_dictionaries({}, optional={"max_tokens": st.integers(-1, 9), "min_ratio": st.floats(-1, 2)})
_OPTIONS = {
    "prune": mix_rarely(_PRUNING, JSON_VALUES),
    "format": mix_rarely(st.sampled_from(("tokens", "features")), JSON_VALUES),
    "truncate": mix_rarely(st.booleans(), JSON_VALUES),
    "k": mix_rarely(st.integers(0, 10_001), JSON_VALUES),
    "after": JSON_VALUES,
    "filters": JSON_VALUES,
}
_INPUTS = {
    "texts": mix_rarely(_ITEMS | st.lists(_ITEMS, max_size=3), _ODD_LISTS),
    "images": mix_rarely(_IMAGES | st.lists(_IMAGES, max_size=3), _ODD_LISTS),
    "inputs": mix_rarely(_ITEMS | st.lists(_IMAGES | _ITEMS, max_size=3), _ODD_LISTS),
    "text": _ITEMS,
    "image": _IMAGES,
}
BODIES = mix_rarely(
    st.builds(
        dict.__or__,
        st.sampled_from(sorted(_INPUTS)).flatmap(lambda name: st.fixed_dictionaries({name: _INPUTS[name]})),
        st.sampled_from(sorted(_OPTIONS)).flatmap(lambda name: st.fixed_dictionaries({}, optional={name: _OPTIONS[name]})),
    ),
    st.dictionaries(st.sampled_from((*_INPUTS, *_OPTIONS)) | TOKENS, JSON_VALUES),
)
RAW_BODIES = BODIES.map(lambda fields: json.dumps(fields).encode())


def parse_or_reject(parse: Callable[[bytes, int], tuple[object, Inputs]], body: bytes) -> tuple[Inputs, ErrorResponse | None]:
    try:
        return parse(body, MAX_IMAGE_BYTES)[1], None
    except RequestRejected as error:
        return {}, error.response


@given(body=RAW_BODIES | draw_damaged_bytes(RAW_BODIES) | st.binary())
def test_bodies_of_any_kind_are_inputs_or_rejected(body: bytes) -> None:
    for parse in PARSERS:
        inputs, rejection = parse_or_reject(parse, body)
        if rejection:
            assert rejection.status in (400, 413, 422)
            assert 0 < len(rejection.error) < 1100
            continue
        assert 1 <= len(inputs) <= MAX_INPUTS
        for name, value in inputs.items():
            is_image = name.startswith("image") or (name.startswith("inputs") and isinstance(value, bytes))
            assert isinstance(value, bytes if is_image else str)
            assert len(value) <= (MAX_IMAGE_BYTES if is_image else MAX_TEXT_CHARS)


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


def test_an_image_beyond_the_limit_is_rejected() -> None:
    with pytest.raises(RequestRejected, match="3,000,000"):
        parse_encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 3)])
    assert len(parse_encode(images=[IMAGE + "A" * (MAX_IMAGE_BYTES // 3 * 4 - 4)])[1]["images[0]"]) == MAX_IMAGE_BYTES


def test_tei_requests_are_taken_as_its_clients_send_them() -> None:
    assert parse_embed(inputs="a cat", truncate=True) == {"inputs[0]": "a cat"}
    mixed = parse_embed(inputs=["a", IMAGE, "b"], truncate=False, truncation_direction="right", normalize=True, prompt_name=None)
    assert mixed == {"inputs[0]": "a", "inputs[1]": IMAGE_BYTES, "inputs[2]": "b"}
    assert len(parse_embed(inputs=["a"] * MAX_INPUTS)) == MAX_INPUTS
    with_parameters = "DATA:image/svg+xml;charset=utf-8;name=a%20b.svg;BASE64,AAAA"
    assert parse_embed(inputs=with_parameters) == {"inputs[0]": IMAGE_BYTES}


@pytest.mark.parametrize("text", [LONG, ", ".join("a" * 200_000), "\N{CAT FACE}" * 200_000])
def test_long_texts_are_cut_unless_the_client_forbids_it(text: str) -> None:
    assert parse_embed(inputs=text) == parse_embed(inputs=text, truncate=True) == {"inputs[0]": text[:MAX_TEXT_CHARS]}
    with pytest.raises(RequestRejected) as caught:
        parse_embed(inputs=text, truncate=False)
    assert caught.value.response.status == 413


@pytest.mark.parametrize(
    ("fields", "status", "code", "fact"),
    [
        ({}, 422, "invalid-body", "`inputs`"),
        ({"inputs": []}, 400, "no-input", ""),
        ({"inputs": [[1, 2]]}, 422, "invalid-body", "`inputs[0]`"),
        ({"inputs": {"text": "a"}}, 422, "invalid-body", "`inputs`"),
        ({"inputs": "a", "truncate": "yes"}, 422, "invalid-body", "`truncate`"),
        ({"inputs": "a", "truncate": 0}, 422, "invalid-body", "`truncate`"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "invalid-body", "`prompt_name`"),
        ({"inputs": ["a", "data:application/octet-stream;base64,AAAA"]}, 422, "not-base64", "`inputs[1]`"),
        ({"inputs": "data:;base64,AAAA"}, 422, "not-base64", "`inputs[0]`"),
        ({"inputs": ["a"] * 33}, 413, "too-many-inputs", "33"),
    ],
)
def test_other_tei_requests_are_rejected(fields: dict[str, Any], status: int, code: str, fact: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_embed(**fields)
    assert (caught.value.response.status, caught.value.response.code) == (status, code)
    assert fact in caught.value.response.error


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


def test_a_query_has_a_text_or_an_image_or_both() -> None:
    request, inputs = parse_query(text="a cat", k=3.0, prune={"max_tokens": 2.0}, filters=[{"field": "width", "gte": 8}])
    assert (inputs, request.k, request.prune) == ({"text": "a cat"}, 3, Pruning(max_tokens=2))
    assert request.filters == (Condition(field="width", gte=8),)
    request, inputs = parse_query(image=IMAGE, text="a cat")
    assert (inputs, request.image) == ({"image": IMAGE_BYTES, "text": "a cat"}, None)


@pytest.mark.parametrize(
    ("fields", "code", "fact"),
    [
        ({}, "no-input", "`text`"),
        ({"text": ["a"]}, "invalid-body", "`text`"),
        ({"text": "a", "k": 0}, "invalid-body", "`k`"),
        ({"text": "a", "k": True}, "invalid-body", "`k`"),
        ({"text": "a", "k": 2.5}, "invalid-body", "`k`"),
        ({"text": "a", "k": 10_001}, "invalid-body", "`k`"),
        ({"image": "AAAA"}, "not-base64", "`image`"),
        ({"text": "a", "size": 3}, "invalid-body", "'size'"),
        ({"text": "a", "filters": [{"field": "width"}]}, "invalid-body", "`filters[0]`"),
        ({"text": "a", "filters": [{"field": "width", "gte": 1}] * 33}, "invalid-body", "`filters`"),
        ({"text": "a", "exclude": ["b"] * 65}, "invalid-body", "`exclude`"),
        ({"text": "a", "filter": "b" * 2001}, "invalid-body", "`filter`"),
    ],
)
def test_other_queries_are_rejected(fields: dict[str, Any], code: str, fact: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_query(**fields)
    assert (caught.value.response.status, caught.value.response.code) == (422, code)
    assert fact in caught.value.response.error
