"""The OpenAPI document of the encoder, at `/v1/openapi.json`. The reference in the documentation is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.json import schema_components

from stair_es.web.encoding.document_schemas import DeletionResponse, DocumentsRequest, DocumentsResponse
from stair_es.web.encoding.schemas import (
    EmbedSparseRequest,
    EncodeRequest,
    EncodeResponse,
    ErrorBody,
    Info,
    QueryRequest,
    QueryResponse,
    SparseValue,
    Vocabulary,
)

_REFERENCE = "#/components/schemas/{name}"
_ERRORS = {
    400: "The body isn't JSON (`Validation`), or there is nothing to encode (`Empty`).",
    401: "The token is missing or wrong (`Unauthorized`).",
    403: "`Host` is not a name of the server, a page of another site sent the request, or the index may not be written "
    "(`Forbidden`).",
    404: "`model` is not the model of the server (`NotFound`).",
    408: "The body took too long to arrive (`Timeout`).",
    413: "There are too many inputs, an input is too long, or the body is too large or has too many values (`Validation`).",
    415: "`Content-Type` is not that of the request, or the body is compressed (`Validation`).",
    422: "A field is unknown or has an invalid value, or an image can't be decoded (`Validation`).",
    424: "The model doesn't expose its tokens, so they have no ids (`Backend`).",
    429: "The queue is full (`Overloaded`). Retry after the seconds in `Retry-After`.",
    500: "Unexpected error; see the log of the server (`Backend`).",
    502: "The cluster of the index failed (`Backend`).",
    503: "The request timed out, the server is shutting down, or the index, its model or its cluster is not available "
    "(`Unhealthy`). Retry after the seconds in `Retry-After`.",
}
_SERVER = (401, 403, 429, 503)
_COMMON = (*_SERVER, 500, 502)
_POSTED = (400, 408, 413, 415, 422, *_COMMON)
_OBJECT = {"type": "object"}


def _describe_body(description: str, schema: type[Struct] | dict[str, Any], example: Any = None) -> dict[str, Any]:  # noqa: ANN401  JSON
    described = schema if isinstance(schema, dict) else {"$ref": _REFERENCE.format(name=schema.__name__)}
    content = {"schema": described} if example is None else {"schema": described, "example": example}
    return {"description": description, "content": {"application/json": content}}


def _describe_text(description: str, **more: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}, **more}}}


_ERROR_RESPONSES = {status: _describe_body(description, ErrorBody) for status, description in _ERRORS.items()}


def _describe_operation(
    id_: str,
    summary: str,
    description: str = "",
    *,
    request: dict[str, Any] | None = None,
    response: dict[str, Any],
    errors: tuple[int, ...] = (),
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Describe an operation; `parameters` are those of the URL, with their descriptions."""
    described = [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string", "minLength": 1}}
        for name, text in parameters.items()
    ]
    return {
        "operationId": id_,
        "summary": summary,
        **({"description": description} if description else {}),
        **({"parameters": described} if described else {}),
        **({"requestBody": {"required": True, **request}} if request else {}),
        "responses": {"200": response, **{str(status): _ERROR_RESPONSES[status] for status in errors}},
    }


_PATHS: dict[str, dict[str, dict[str, Any]]] = {
    "/v1/encode": {
        "post": _describe_operation(
            "encode",
            "Encode texts and images.",
            "Returns the tokens that `stair-es encode` prints. With `--index`, the token policy of the index renames and merges "
            "them, as in a search.",
            request=_describe_body("Texts, images or both.", EncodeRequest, {"texts": ["a red car"]}),
            response=_describe_body(
                "One vector per text and per image, in the order of the request.",
                EncodeResponse,
                {"model": "stair-mini-3", "policy": None, "texts": [{"tokens": {"car": 0.59687, "red": 0.5957}}], "images": []},
            ),
            errors=(404, *_POSTED),
        )
    },
    "/v1/query": {
        "post": _describe_operation(
            "buildQuery",
            "Build the search request for a text, an image or both.",
            "Returns the body of `POST INDEX/_search` that `stair-es search` would send. With `--index` it fits that index and "
            "its cluster. Otherwise it fits every index of the model with `rank_features` and without a token policy.",
            request=_describe_body("A text, an image or both.", QueryRequest, {"text": "a red car -people", "k": 3, "cut": True}),
            response=_describe_body(
                "The body of a `_search` request, or with `describe` a `QueryResponse`. If the model knows no word of the text, "
                "the search finds nothing.",
                {"anyOf": [_OBJECT, {"$ref": _REFERENCE.format(name="QueryResponse")}]},
            ),
            errors=_POSTED,
        )
    },
    "/v1/documents": {
        "post": _describe_operation(
            "ingestDocuments",
            "Make the documents of images, and write them if you name an index.",
            "The documents are those that `stair-es ingest` writes. An image that fails doesn't fail the others. Instead of "
            "JSON, the body may be an image, of the type `image/...`; then `uri`, `index`, `id`, `source` and `thumbnail_px` are "
            "parameters of the URL.",
            request=_describe_body(
                "The images.",
                DocumentsRequest,
                {
                    "index": "photos",
                    "images": [{"uri": "nextcloud:42", "data": "data:image/jpeg;base64,/9j/", "fields": {"caption": "A cat"}}],
                },
            ),
            response=_describe_body(
                "One outcome per image, in the order of the request.",
                DocumentsResponse,
                {
                    "index": "photos-stair-mini-3-20261201120000",
                    "model": "stair-mini-3",
                    "documents": [
                        {"uri": "nextcloud:42", "outcome": "unchanged", "id": "2bd8f0c4c7a9d1e6b3f5a7c9e1d3b5f7"},
                    ],
                },
            ),
            errors=_POSTED,
        ),
        "delete": _describe_operation(
            "deleteDocuments",
            "Delete the documents of an image.",
            "Needs `index`, and `uri` or `id`. An image without a document isn't an error. A later ingest takes the image in "
            "again.",
            parameters={
                "index": "An index of `--write-index`.",
                "uri": "Address of the image. Its pages are deleted, too.",
                "id": "`_id` of the document.",
            },
            response=_describe_body("How many documents were deleted.", DeletionResponse, {"deleted": 1}),
            errors=(422, *_COMMON),
        ),
    },
    "/v1/vocabulary": {
        "get": _describe_operation(
            "listTokens",
            "List the tokens of the model.",
            "The position of a token is its `index` in `/embed_sparse`. A name that only exists in a token policy has the "
            "position of a token that it replaces.",
            response=_describe_body(
                "All tokens.",
                Vocabulary,
                {"model": "stair-mini-3", "tokens": ["abacus", "abaya", "able"], "photo_tokens": ["abacus", "abaya"]},
            ),
            errors=(424, *_COMMON),
        )
    },
    "/v1/models": {
        "get": _describe_operation(
            "listModels",
            "List the model in the format of OpenAI's API.",
            response=_describe_body(
                "A list with the model.",
                _OBJECT,
                {
                    "object": "list",
                    "data": [{"id": "stair-mini-3", "object": "model", "created": 0, "owned_by": "stair-es"}],
                },
            ),
            errors=_COMMON,
        )
    },
    "/v1/openapi.json": {
        "get": _describe_operation(
            "describeApi",
            "Get the OpenAPI document.",
            response=_describe_body("The document, in OpenAPI 3.1.", _OBJECT),
            errors=_SERVER,
        )
    },
    "/embed_sparse": {
        "post": _describe_operation(
            "embedSparse",
            "Encode texts and images in the format of text-embeddings-inference.",
            request=_describe_body("Texts, and images as data URIs.", EmbedSparseRequest, {"inputs": ["a red car"]}),
            response=_describe_body(
                "A list with one vector per input, in the order of the request.",
                {"type": "array", "items": {"type": "array", "items": {"$ref": _REFERENCE.format(name="SparseValue")}}},
                [[{"index": 2806, "value": 0.58164}, {"index": 517, "value": 0.58158}]],
            ),
            errors=(424, *_POSTED),
        )
    },
    "/info": {
        "get": _describe_operation(
            "describeModel",
            "Describe the model and the limits in the format of text-embeddings-inference.",
            response=_describe_body("The model and the limits.", Info),
            errors=_COMMON,
        )
    },
    "/health": {
        "get": {
            **_describe_operation(
                "getHealth",
                "Check whether the server accepts requests.",
                "Requires no token, and accepts any name in `Host`.",
                response=_describe_text("The server accepts requests.", example="ok\n"),
                errors=(503,),
            ),
            "security": [{}],
        }
    },
    "/metrics": {
        "get": _describe_operation(
            "getMetrics",
            "Get metrics in the Prometheus format.",
            response=_describe_text("The metrics."),
            errors=_SERVER,
        )
    },
}


def _require_items(name: str) -> dict[str, Any]:
    """Describe an object whose field `name` has an item."""
    return {"required": [name], "properties": {name: {"type": ["string", "array"], "minItems": 1}}}


def _require_text(name: str) -> dict[str, Any]:
    """Describe an object whose field `name` is a string."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


@cache
def build_openapi_document() -> dict[str, Any]:
    """Build the OpenAPI document."""
    types = (
        *(EncodeRequest, QueryRequest, EmbedSparseRequest, EncodeResponse, QueryResponse, Vocabulary, SparseValue, Info),
        *(DocumentsRequest, DocumentsResponse, DeletionResponse, ErrorBody),
    )
    _, schemas = schema_components(types, ref_template=_REFERENCE)
    schemas["EncodeRequest"]["anyOf"] = [_require_items("texts"), _require_items("images")]
    schemas["QueryRequest"]["anyOf"] = [_require_text("text"), _require_text("image")]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "stair-es encoder",
            "version": "1",
            "summary": "Encodes texts and images as tokens with weights.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "..", "description": "The server that returned this document, with its root path."}],
        "security": [{}, {"token": []}],
        "paths": _PATHS,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The access token, if the server has one."}
            },
            "schemas": schemas,
        },
    }
