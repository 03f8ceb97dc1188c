"""The OpenAPI document is valid, its examples match its schemas, and it has the routes that there are."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from stair_es.web.config import AppConfig, ServerLimits
from stair_es.web.encoding.document_schemas import parse_documents_request
from stair_es.web.encoding.documents import DocumentService
from stair_es.web.encoding.openapi import build_openapi_document
from stair_es.web.encoding.routes import DENSE_PATHS, EncodingRoutes
from stair_es.web.encoding.schemas import parse_embed_request, parse_encode_request, parse_query_request
from stair_es.web.encoding.service import EncodingService
from stair_es.web.errors import _ERROR_TYPES, RequestRejected

DOCUMENT = build_openapi_document()


def list_json_bodies() -> list[tuple[str, dict[str, Any]]]:
    operations = [(path, operation) for path, methods in DOCUMENT["paths"].items() for operation in methods.values()]
    bodies = [(path, operation["requestBody"]) for path, operation in operations if "requestBody" in operation]
    bodies += [(path, response) for path, operation in operations for response in operation["responses"].values()]
    found = [(path, body["content"].get("application/json", {})) for path, body in bodies]
    return [(path, body) for path, body in found if "example" in body]


def test_the_document_is_valid_openapi() -> None:
    validate(json.loads(json.dumps(DOCUMENT)))


def test_the_examples_match_their_schemas() -> None:
    examples = list_json_bodies()
    assert len(examples) == 10
    for _, body in examples:
        schema = {**body["schema"], "components": DOCUMENT["components"]}
        OAS31Validator(schema).validate(body["example"])


def test_the_examples_of_requests_are_accepted() -> None:
    paths = DOCUMENT["paths"]
    parsers: dict[str, Callable[[bytes, int], object]] = {
        "/v1/encode": parse_encode_request,
        "/v1/query": parse_query_request,
        "/v1/documents": parse_documents_request,
        "/embed_sparse": parse_embed_request,
    }
    for path, parse in parsers.items():
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert parse(json.dumps(example).encode(), ServerLimits().upload_bytes) is not None


def test_it_has_the_routes_that_there_are() -> None:
    config = AppConfig()
    service = EncodingService(config, lambda: pytest.fail("not needed"))
    routes = {
        (route.path, method.lower())
        for route in EncodingRoutes(config, service, DocumentService(config, service, {})).list_routes()
        if route.path not in DENSE_PATHS
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == routes | {("/metrics", "get")}


def test_it_has_the_error_types_that_there_are() -> None:
    described = set(DOCUMENT["components"]["schemas"]["ErrorBody"]["properties"]["error_type"]["enum"])
    assert described == {*_ERROR_TYPES.values(), "Backend", "Empty"}


@pytest.mark.parametrize(
    ("name", "value", "is_valid"),
    [
        ("EncodeRequest", {}, False),
        ("EncodeRequest", {"texts": []}, False),
        ("EncodeRequest", {"texts": None}, False),
        ("EncodeRequest", {"texts": [], "images": "data:image/png;base64,AAAA"}, True),
        ("EncodeRequest", {"texts": "a", "images": None, "prune": None, "format": None, "model": None}, True),
        ("EncodeRequest", {"texts": "a", "prune": {"max_tokens": 3.0, "min_ratio": None}}, True),
        ("EncodeRequest", {"images": f"data:image/{'a' * 200};base64,AAAA"}, False),
        ("EncodeRequest", {"images": "data:image/png;base64,\u00e9"}, False),
        ("QueryRequest", {}, False),
        ("QueryRequest", {"text": "a", "image": "data:image/png;base64,AAAA"}, True),
        ("QueryRequest", {"text": "a", "image": None, "k": None, "prune": None}, True),
        ("QueryRequest", {"image": "data:image/png;base64,AAAA", "text": None, "k": 1.0}, True),
    ],
)
def test_schemas_accept_what_the_parsers_accept(name: str, value: dict[str, Any], is_valid: bool) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    assert OAS31Validator(schema).is_valid(value) is is_valid
    parse = parse_encode_request if name == "EncodeRequest" else parse_query_request
    with nullcontext() if is_valid else pytest.raises(RequestRejected):
        parse(json.dumps(value).encode(), ServerLimits().upload_bytes)
