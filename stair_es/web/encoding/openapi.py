"""The OpenAPI document of the encoder, at `/v1/openapi.json`. The reference in the documentation is made from it."""

from __future__ import annotations

from typing import Any, get_args

from stair_es.web.encoding.schemas import MAX_HITS, MAX_INPUTS, MAX_TEXT_CHARS, VectorFormat

_TOKENS = {"red": 0.58164, "car": 0.58158}


def build_openapi_document() -> dict[str, Any]:
    """Build the OpenAPI document."""
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
        "paths": {**_ENCODER_PATHS, **_TEI_PATHS, **_OPERATION_PATHS},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "The access token, if the server has one."}
            },
            "schemas": _SCHEMAS,
        },
    }


def _refer_to(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _describe_json(description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Describe a body or a response of JSON."""
    content = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"description": description, "content": {"application/json": content}}


def _describe_errors(*statuses: int) -> dict[str, Any]:
    return {str(status): _describe_json(_ERRORS[status], _refer_to("Error")) for status in statuses}


_ERRORS = {
    400: "The body isn't JSON (`Validation`), or there is nothing to encode (`Empty`).",
    401: "The token is missing or wrong (`Unauthorized`).",
    403: "`Host` is not a name of the server, or a page of another site sent the request (`Forbidden`).",
    404: "`model` is not the model of the server (`NotFound`).",
    408: "The body took too long to arrive (`Timeout`).",
    413: "There are too many inputs, an input is too long, or the body is too large or has too many values (`Validation`).",
    415: "`Content-Type` is not `application/json`, or the body is compressed (`Validation`).",
    422: "A field is unknown or has an invalid value, or an image can't be decoded (`Validation`).",
    424: "The model doesn't expose its tokens, so they have no ids (`Backend`).",
    429: "The queue is full (`Overloaded`). Retry after the seconds in `Retry-After`.",
    500: "Unexpected error; see the log of the server (`Backend`).",
    502: "The cluster of the index failed (`Backend`).",
    503: "The request timed out, the server is shutting down, or the index or its model is not available (`Unhealthy`). "
    "Retry after the seconds in `Retry-After`.",
}
_SERVER = (401, 403, 429, 503)
_COMMON = (*_SERVER, 500, 502)
_POSTED = (400, 408, 413, 415, 422, *_COMMON)

_ENCODER_PATHS: dict[str, Any] = {
    "/v1/encode": {
        "post": {
            "operationId": "encode",
            "summary": "Encode texts and images.",
            "description": "Returns the tokens that `stair-es encode` prints. With `--index`, the token policy of the index "
            "renames and merges them, as in a search.",
            "requestBody": {
                "required": True,
                **_describe_json("Texts, images or both.", _refer_to("EncodeRequest"), {"texts": ["a red car"]}),
            },
            "responses": {
                "200": _describe_json(
                    "One vector per text and per image, in the order of the request.",
                    _refer_to("EncodeResponse"),
                    {"model": "stair-mini-2", "policy": None, "texts": [{"tokens": _TOKENS}], "images": []},
                ),
                **_describe_errors(404, *_POSTED),
            },
        }
    },
    "/v1/query": {
        "post": {
            "operationId": "buildQuery",
            "summary": "Build the search request for a text or an image.",
            "description": "Returns the body of `POST INDEX/_search` that `stair-es search` would send. With `--index` it fits "
            "that index and its cluster. Otherwise it fits every index of the model with `rank_features` and without a token "
            "policy.",
            "requestBody": {
                "required": True,
                **_describe_json("A text or an image.", _refer_to("QueryRequest"), {"text": "a red car", "size": 3}),
            },
            "responses": {
                "200": _describe_json(
                    "The body of a `_search` request. If the text has no tokens, it finds nothing.", {"type": "object"}
                ),
                **_describe_errors(*_POSTED),
            },
        }
    },
    "/v1/vocabulary": {
        "get": {
            "operationId": "listTokens",
            "summary": "List the tokens of the model.",
            "description": "The position of a token is its `index` in `/embed_sparse`. A name that only exists in a token policy "
            "has the position of a token that it replaces.",
            "responses": {
                "200": _describe_json(
                    "All tokens.", _refer_to("Vocabulary"), {"model": "stair-mini-2", "tokens": ["abacus", "abaya", "abbey"]}
                ),
                **_describe_errors(424, *_COMMON),
            },
        }
    },
    "/v1/models": {
        "get": {
            "operationId": "listModels",
            "summary": "List the model in the format of OpenAI's API.",
            "responses": {
                "200": _describe_json(
                    "A list with the model.",
                    {"type": "object"},
                    {"object": "list", "data": [{"id": "stair-mini-2", "object": "model", "created": 0, "owned_by": "stair-es"}]},
                ),
                **_describe_errors(*_COMMON),
            },
        }
    },
    "/v1/openapi.json": {
        "get": {
            "operationId": "describeApi",
            "summary": "Get the OpenAPI document.",
            "responses": {
                "200": _describe_json("The document, in OpenAPI 3.1.", {"type": "object"}),
                **_describe_errors(*_SERVER),
            },
        }
    },
}

_TEI_PATHS: dict[str, Any] = {
    "/embed_sparse": {
        "post": {
            "operationId": "embedSparse",
            "summary": "Encode texts and images in the format of text-embeddings-inference.",
            "requestBody": {
                "required": True,
                **_describe_json("Texts, and images as data URIs.", _refer_to("EmbedSparseRequest"), {"inputs": ["a red car"]}),
            },
            "responses": {
                "200": _describe_json(
                    "A list with one vector per input, in the order of the request.",
                    _refer_to("EmbedSparseResponse"),
                    [[{"index": 2806, "value": 0.58164}, {"index": 517, "value": 0.58158}]],
                ),
                **_describe_errors(424, *_POSTED),
            },
        }
    },
    "/info": {
        "get": {
            "operationId": "describeModel",
            "summary": "Describe the model and the limits in the format of text-embeddings-inference.",
            "responses": {"200": _describe_json("The model and the limits.", _refer_to("Info")), **_describe_errors(*_COMMON)},
        }
    },
}

_OPERATION_PATHS: dict[str, Any] = {
    "/health": {
        "get": {
            "operationId": "getHealth",
            "summary": "Check whether the server accepts requests.",
            "description": "Requires no token, and accepts any name in `Host`.",
            "security": [{}],
            "responses": {
                "200": {
                    "description": "The server accepts requests.",
                    "content": {"text/plain": {"schema": {"type": "string"}, "example": "ok\n"}},
                },
                "503": _describe_json("The server is shutting down.", _refer_to("Error")),
            },
        }
    },
    "/metrics": {
        "get": {
            "operationId": "getMetrics",
            "summary": "Get metrics in the Prometheus format.",
            "responses": {
                "200": {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **_describe_errors(*_SERVER),
            },
        }
    },
}

_STRING = {"type": "string"}
_TEXT = {"type": "string", "maxLength": MAX_TEXT_CHARS}
_DATA_URI = {"type": "string", "pattern": "^data:image/[^,]{0,180};base64,[A-Za-z0-9+/]*={0,2}$"}
"""The parser looks for `base64,` in the first characters only."""
_NULL = {"type": "null"}
_NULLABLE = {"type": ["string", "null"]}
_INTEGER = {"type": "integer", "minimum": 0}


def _describe_list(item: dict[str, Any]) -> dict[str, Any]:
    """Describe one or more items, or null."""
    return {"oneOf": [item, {"type": "array", "items": item, "maxItems": MAX_INPUTS}, _NULL]}


def _require_input(name: str) -> dict[str, Any]:
    """Describe an object whose field `name` has an item."""
    return {"required": [name], "properties": {name: {"type": ["string", "array"], "minItems": 1}}}


def _require_one(name: str, other: str) -> dict[str, Any]:
    """Describe an object that has the field `name`, and not `other`."""
    return {"required": [name], "properties": {name: _STRING, other: _NULL}}


def _describe_object(properties: dict[str, Any], *, optional: tuple[str, ...] = (), closed: bool = True) -> dict[str, Any]:
    """Describe an object whose other properties are required."""
    required = [name for name in properties if name not in optional]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        **({"additionalProperties": False} if closed else {}),
    }


_WEIGHTS = {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}}

_SCHEMAS: dict[str, Any] = {
    "EncodeRequest": {
        **_describe_object(
            {
                "texts": {**_describe_list(_TEXT), "description": "One or more texts."},
                "images": {**_describe_list(_DATA_URI), "description": "One or more images as base64 data URIs."},
                "prune": {**_refer_to("Prune"), "description": "Which tokens to keep. All of them by default."},
                "format": {
                    "enum": [*get_args(VectorFormat), None],
                    "description": "Format of the vectors: `tokens` (default) maps tokens to weights; `features` uses the names "
                    "of tokens in an index (`.` is `%2E`, `%` is `%25`); `feature_list` returns those as a list.",
                },
                "model": {**_NULLABLE, "maxLength": 1000, "description": "Expected model id. Any other model is an error."},
            },
            optional=("texts", "images", "prune", "format", "model"),
        ),
        "description": f"At least one text or image, and at most {MAX_INPUTS} together.",
        "anyOf": [_require_input("texts"), _require_input("images")],
    },
    "QueryRequest": {
        **_describe_object(
            {
                "text": {**_TEXT, **_NULLABLE, "description": "A text. Required without `image`."},
                "image": {**_DATA_URI, **_NULLABLE, "description": "An image as a base64 data URI. Required without `text`."},
                "size": {
                    "type": ["integer", "null"],
                    "minimum": 1,
                    "maximum": MAX_HITS,
                    "default": 10,
                    "description": "Number of hits.",
                },
                "prune": {**_refer_to("Prune"), "description": "Which tokens to keep. All of them by default."},
            },
            optional=("text", "image", "size", "prune"),
        ),
        "oneOf": [_require_one("text", "image"), _require_one("image", "text")],
    },
    "Prune": {
        **_describe_object(
            {
                "max_tokens": {"type": ["integer", "null"], "minimum": 1, "description": "Number of heaviest tokens to keep."},
                "min_ratio": {
                    "type": ["number", "null"],
                    "minimum": 0,
                    "maximum": 1,
                    "description": "Keep tokens with at least this share of the largest weight.",
                },
            },
            optional=("max_tokens", "min_ratio"),
        ),
        "type": ["object", "null"],
    },
    "EncodeResponse": _describe_object(
        {
            "model": {**_STRING, "description": "Model id, as in the documents of an index."},
            "policy": {**_NULLABLE, "description": "Digest of the token policy that was applied, or null."},
            "texts": {"type": "array", "items": _refer_to("Vector"), "description": "The vectors of the texts."},
            "images": {"type": "array", "items": _refer_to("Vector"), "description": "The vectors of the images."},
        }
    ),
    "Vector": _describe_object(
        {
            "tokens": {
                **_WEIGHTS,
                "description": "Tokens with weights, heaviest first; `{}` if the model knows no word of the text.",
            },
            "features": {
                "oneOf": [_WEIGHTS, {"type": "array", "items": _refer_to("Feature")}],
                "description": "Replaces `tokens` if the format is `features` or `feature_list`.",
            },
        },
        optional=("tokens", "features"),
    ),
    "Feature": _describe_object(
        {
            "feature": {**_STRING, "description": "The name of a token in an index."},
            "weight": {"type": "number", "exclusiveMinimum": 0, "description": "Its weight."},
        }
    ),
    "Vocabulary": _describe_object(
        {
            "model": {**_STRING, "description": "The id of the model."},
            "tokens": {
                "type": "array",
                "items": _STRING,
                "uniqueItems": True,
                "description": "Tokens in the order of their indices.",
            },
        }
    ),
    "EmbedSparseRequest": _describe_object(
        {
            "inputs": {
                "oneOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1, "maxItems": MAX_INPUTS}],
                "description": "One or more texts. A base64 data URI of an image is encoded as an image.",
            },
            "truncate": {
                "type": ["boolean", "null"],
                "description": f"If `false`, a text of more than {MAX_TEXT_CHARS:,} characters is an error; otherwise it is "
                "truncated. The model also truncates texts to the length that it was trained on.",
            },
            "prompt_name": {"type": "null", "description": "Must be null: the model has no prompts."},
        },
        optional=("truncate", "prompt_name"),
        closed=False,
    ),
    "EmbedSparseResponse": {
        "type": "array",
        "items": {"type": "array", "items": _refer_to("SparseValue")},
    },
    "SparseValue": _describe_object(
        {
            "index": {**_INTEGER, "description": "The position of the token in `/v1/vocabulary`."},
            "value": {"type": "number", "exclusiveMinimum": 0, "description": "Its weight."},
        }
    ),
    "Info": _describe_object(
        {
            "model_id": {**_STRING, "description": "The id of the model."},
            "served_model_name": {**_STRING, "description": "Same as `model_id`."},
            "model_sha": {**_NULLABLE, "description": "Always null: the revision is part of the id."},
            "model_dtype": {**_STRING, "description": "Type of the weights."},
            "model_type": {
                "type": "object",
                "description": 'Always `{"embedding": {"pooling": "splade"}}`, which means sparse vectors.',
            },
            "max_concurrent_requests": {**_INTEGER, "description": "Maximum number of queued inputs (`--max-waiting`)."},
            "max_input_length": {**_INTEGER, "description": "Maximum number of characters per text."},
            "max_batch_tokens": {**_INTEGER, "description": "Maximum number of characters per batch."},
            "max_batch_requests": {**_INTEGER, "description": "Maximum number of texts per batch (`--max-batch`)."},
            "max_client_batch_size": {**_INTEGER, "description": "Maximum number of inputs per request."},
            "auto_truncate": {"type": "boolean", "description": "Whether long texts are truncated unless `truncate` is false."},
            "tokenization_workers": {**_INTEGER, "description": "Always 1."},
            "version": {**_STRING, "description": "Version of stair-es."},
            "sha": {**_NULLABLE, "description": "Always null."},
            "docker_label": {**_NULLABLE, "description": "Always null."},
        }
    ),
    "Error": _describe_object(
        {
            "error": {**_STRING, "description": "What was wrong, and where."},
            "error_type": {
                "enum": [
                    "Validation",
                    "Empty",
                    "Overloaded",
                    "Unhealthy",
                    "Backend",
                    "Unauthorized",
                    "Forbidden",
                    "NotFound",
                    "MethodNotAllowed",
                    "Timeout",
                ],
                "description": "The kind of error, for programs.",
            },
            "remedy": {**_STRING, "description": "What to do; may be empty."},
        }
    ),
}
