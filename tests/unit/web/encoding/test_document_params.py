"""Requests to `/v1/documents`: what is taken, and what is refused with which status, with inputs beyond each bound."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from support.strategies import JSON_VALUES

from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import InlineBytes
from stair_es.web.encoding.document_schemas import (
    API_URI,
    MAX_FIELDS,
    MAX_ID_BYTES,
    MAX_IMAGE_FIELDS_BYTES,
    MAX_URI_BYTES,
    DocumentInputs,
    parse_deletion,
    parse_documents_request,
    parse_image_request,
)
from stair_es.web.encoding.schemas import MAX_INPUTS
from stair_es.web.errors import RequestRejected

DATA = base64.b64encode(b"bytes").decode()
IMAGE = {"uri": "app:1", "data": DATA}
MAX_BYTES = 1000


def parse(*images: object, **more: object) -> DocumentInputs:
    return parse_documents_request(json.dumps({"images": images, **more}).encode(), MAX_BYTES)


def test_images_are_items_of_an_ingest() -> None:
    inputs = parse(
        {"uri": "app:1", "data": f"data:image/jpeg;base64,{DATA}", "id": "7", "fields": {"caption": "a cat", "empty": None}},
        {"url": "https://user:secret@h.test/a.jpg?X-Amz-Signature=s"},
        {"url": "https://h.test/b.jpg", "uri": "app:2"},
        index="photos",
        source="app:",
    )
    first, second, third = inputs.items
    assert (first.uri, first.source, first.document_id, first.fields) == ("app:1", "app:", "7", {"caption": "a cat"})
    assert first.locator == InlineBytes(b"bytes")
    assert (second.uri, third.uri, third.locator) == ("https://h.test/a.jpg", "app:2", UrlLocator("https://h.test/b.jpg"))
    assert parse(IMAGE).items[0].source == API_URI


@pytest.mark.parametrize(
    ("images", "more", "status", "code"),
    [
        ([], {}, 400, "no-input"),
        ([IMAGE] * (MAX_INPUTS + 1), {}, 413, "too-many-inputs"),
        ([IMAGE, IMAGE], {}, 422, "duplicate-image"),
        ([{**IMAGE, "id": "1"}, {**IMAGE, "uri": "b", "id": "1"}], {}, 422, "duplicate-image"),
        ([{"uri": "app:1"}], {}, 422, "data-or-url"),
        ([{**IMAGE, "url": "https://h.test"}], {}, 422, "data-or-url"),
        ([{"data": DATA}], {}, 422, "no-uri"),
        ([{**IMAGE, "uri": ""}], {}, 422, "invalid-body"),
        ([{**IMAGE, "uri": "x" * (MAX_URI_BYTES + 1)}], {}, 422, "invalid-body"),
        ([{**IMAGE, "uri": "é" * (MAX_URI_BYTES // 2 + 1)}], {}, 422, "invalid-address"),
        ([{**IMAGE, "uri": "a\0b"}], {}, 422, "invalid-address"),
        ([{**IMAGE, "id": "é" * (MAX_ID_BYTES // 2 + 1)}], {}, 422, "invalid-address"),
        ([IMAGE], {"source": "é" * (MAX_URI_BYTES // 2 + 1)}, 422, "invalid-address"),
        ([{**IMAGE, "data": "&"}], {}, 422, "not-base64"),
        ([{**IMAGE, "data": "A" * 2000}], {}, 422, "image-too-large"),
        ([{**IMAGE, "fields": {"tokens": 1}}], {}, 422, "reserved-field-name"),
        ([{**IMAGE, "fields": {"_id": 1}}], {}, 422, "invalid-field-name"),
        ([{**IMAGE, "fields": dict.fromkeys(map(str, range(MAX_FIELDS + 1)), 1)}], {}, 422, "fields-too-large"),
        ([{**IMAGE, "fields": {"caption": "x" * MAX_IMAGE_FIELDS_BYTES}}], {}, 422, "fields-too-large"),
        ([{**IMAGE, "fields": {"x" * 600: 1}}], {}, 422, "fields-too-large"),
        ([{**IMAGE, "other": 1}], {}, 422, "invalid-body"),
        ([IMAGE], {"thumbnail_px": 513}, 422, "invalid-body"),
        ([IMAGE], {"thumbnail_px": 64, "index": "photos"}, 422, "thumbnail-with-index"),
    ],
)
def test_requests_beyond_a_bound_are_refused(images: list[Any], more: dict[str, Any], status: int, code: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse(*images, **more)
    assert (caught.value.response.status, caught.value.response.code) == (status, code)


def test_an_image_has_its_parameters_in_the_url() -> None:
    inputs = parse_image_request({"uri": "app:1", "id": "7", "thumbnail_px": "64"}, b"bytes", MAX_BYTES)
    assert (inputs.thumbnail_px, inputs.items[0].document_id, inputs.items[0].locator) == (64, "7", InlineBytes(b"bytes"))


@pytest.mark.parametrize(
    ("parameters", "size", "code"),
    [
        ({}, 1, "no-uri"),
        ({"uri": "a", "other": "1"}, 1, "invalid-parameters"),
        ({"uri": "a", "thumbnail_px": "many"}, 1, "invalid-parameters"),
        ({"uri": "a"}, MAX_BYTES + 1, "image-too-large"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, str], size: int, code: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_image_request(parameters, bytes(size), MAX_BYTES)
    assert caught.value.response.code == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"uri": "a"}, "invalid-parameters"),
        ({"index": "photos"}, "uri-or-id"),
        ({"index": "photos", "uri": "a", "id": "b"}, "uri-or-id"),
        ({"index": "photos", "id": "x" * (MAX_ID_BYTES + 1)}, "invalid-parameters"),
    ],
)
def test_a_deletion_names_an_index_and_an_image(parameters: dict[str, str], code: str) -> None:
    with pytest.raises(RequestRejected) as caught:
        parse_deletion(parameters)
    assert caught.value.response.code == code


@given(JSON_VALUES)
def test_any_json_is_parsed_or_refused(value: object) -> None:
    for body in (value, {"images": value}, {"images": [value]}, {"images": [{**IMAGE, "fields": value}]}):
        with suppress(RequestRejected):
            parse_documents_request(json.dumps(body).encode(), MAX_BYTES)
