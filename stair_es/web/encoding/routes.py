"""The routes of the encoder: `/v1/...`, and those that clients of text-embeddings-inference use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from stair_es._version import __version__
from stair_es.errors import StairError
from stair_es.feature_names import escape_feature
from stair_es.search.query_encoder import MAX_READ_CHARS
from stair_es.web.auth import HEALTH_PATH
from stair_es.web.encoding.openapi import build_openapi_document
from stair_es.web.encoding.schemas import (
    MAX_BODY_BYTES,
    MAX_INPUTS,
    MAX_TEXT_CHARS,
    parse_embed_params,
    parse_encode_params,
    parse_query_params,
)
from stair_es.web.errors import RequestRejected, build_error_response, get_error_type
from stair_es.web.request_body import BodyReader, check_json_type
from stair_es.web.routes import PatternRoute

if TYPE_CHECKING:
    from starlette.routing import Route

    from stair_es.types import SparseVector
    from stair_es.web.encoding.batching import BatchLimits
    from stair_es.web.encoding.schemas import VectorFormat
    from stair_es.web.encoding.service import EncodedInputs, EncodingService
    from stair_es.web.hooks import ServerHooks
    from stair_es.web.limits import ServerLimits

ParamsT = TypeVar("ParamsT")
_MAX_INLINE_BYTES = 64 * 1024
_CLIENT_CLOSED_REQUEST = 499
"""Status for metrics, as in nginx: the client doesn't get it."""

DENSE_PATHS = ("/", "/embed", "/embed_all", "/v1/embeddings", "/predict", "/rerank", "/similarity")
"""Routes of text-embeddings-inference and OpenAI for other kinds of models."""


class EncodingRoutes:
    """The routes of the encoder."""

    def __init__(
        self, service: EncodingService, batch_limits: BatchLimits, server_limits: ServerLimits, hooks: ServerHooks
    ) -> None:
        self._service, self._limits, self._body_reader, self._hooks = service, batch_limits, BodyReader(server_limits), hooks
        self._max_image_bytes = server_limits.upload_bytes
        self._parsing = asyncio.Lock()

    def list_routes(self) -> list[Route]:
        """List the routes for the application."""
        return [
            PatternRoute(HEALTH_PATH, self._get_health),
            PatternRoute("/v1/encode", self._encode, methods=["POST"]),
            PatternRoute("/v1/query", self._build_query, methods=["POST"]),
            PatternRoute("/v1/vocabulary", self._list_tokens),
            PatternRoute("/v1/models", self._list_models),
            PatternRoute("/v1/openapi.json", self._describe_api),
            PatternRoute("/embed_sparse", self._embed_sparse, methods=["POST"]),
            PatternRoute("/info", self._describe_model),
            *(PatternRoute(path, self._reject_dense, methods=["POST"]) for path in DENSE_PATHS),
        ]

    async def _get_health(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _encode(self, request: Request) -> Response:
        check_json_type(request)
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            params = await self._parse(parse_encode_params, body)
            del body  # as large as the images, which are held for as long as they wait
            images = {f"images[{i}]": image for i, image in enumerate(params.images)}
            encoded = await self._wait(request, self._service.encode(params.texts, images), len(params.texts) + len(images))
        model, policy = encoded.target.encoder.model_id, encoded.target.policy
        if params.model not in (None, model):
            raise RequestRejected(
                404, f"the model {params.model!r:.200} is not served here", f"Leave `model` out, or send {model!r}."
            )
        prune = params.pruning.prune_vector
        return _respond_with_json(
            {
                "model": model,
                "policy": policy.digest if policy else None,
                "texts": [_format_vector(prune(vector), params.format) for vector in encoded.texts],
                "images": [_format_vector(prune(vector), params.format) for vector in encoded.images],
            }
        )

    async def _build_query(self, request: Request) -> Response:
        check_json_type(request)
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            params = await self._parse(parse_query_params, body)
            del body
            texts = [] if params.text is None else [params.text]
            images = {} if params.image is None else {"image": params.image}
            encoded = await self._wait(request, self._service.encode(texts, images), 1)
        [vector] = (*encoded.texts, *encoded.images)
        return _respond_with_json(encoded.target.build_search_body(params.pruning.prune_vector(vector), params.size))

    async def _embed_sparse(self, request: Request) -> Response:
        check_json_type(request)
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            params = await self._parse(parse_embed_params, body)
            del body
            texts = [item for item in params.inputs if isinstance(item, str)]
            images = {f"inputs[{i}]": item for i, item in enumerate(params.inputs) if isinstance(item, bytes)}
            encoded = await self._wait(request, self._service.encode(texts, images), len(params.inputs))
        ids = await run_in_threadpool(self._service.get_token_ids, encoded.target)
        texts_left, images_left = iter(encoded.texts), iter(encoded.images)
        rows = [next(texts_left if isinstance(item, str) else images_left) for item in params.inputs]
        return _respond_with_json(
            [[{"index": ids[token], "value": weight} for token, weight in vector if token in ids] for vector in rows]
        )

    async def _list_tokens(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        tokens = await run_in_threadpool(self._service.list_tokens, target)
        return _respond_with_json({"model": target.encoder.model_id, "tokens": tokens})

    async def _describe_model(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        return _respond_with_json(
            {
                "model_id": target.encoder.model_id,
                "served_model_name": target.encoder.model_id,
                "model_sha": None,
                "model_dtype": "float32",
                "model_type": {"embedding": {"pooling": "splade"}},
                "max_concurrent_requests": self._limits.max_waiting,
                "max_input_length": MAX_TEXT_CHARS,
                "max_batch_tokens": self._limits.max_batch * MAX_READ_CHARS,
                "max_batch_requests": self._limits.max_batch,
                "max_client_batch_size": MAX_INPUTS,
                "auto_truncate": True,
                "tokenization_workers": 1,
                "version": __version__,
                "sha": None,
                "docker_label": None,
            }
        )

    async def _list_models(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        model = {"id": target.encoder.model_id, "object": "model", "created": 0, "owned_by": "stair-es"}
        return _respond_with_json({"object": "list", "data": [model]})

    async def _reject_dense(self, request: Request) -> Response:
        raise RequestRejected(
            424, "the model has sparse vectors, which this route can't return", "POST /embed_sparse or /v1/encode."
        )

    async def _describe_api(self, request: Request) -> Response:
        return _respond_with_json(build_openapi_document())

    async def _parse(self, parse: Callable[[bytes, int], ParamsT], body: bytes) -> ParamsT:
        """Parse a body. A large one doesn't block the event loop, and only one at a time takes the memory for it."""
        if len(body) <= _MAX_INLINE_BYTES:
            return parse(body, self._max_image_bytes)
        async with self._parsing:
            return await run_in_threadpool(parse, body, self._max_image_bytes)

    async def _wait(self, request: Request, encoding: Awaitable[EncodedInputs], input_count: int) -> EncodedInputs:
        """Wait for the end of an encoding, but not longer than the time limit, or than the client does."""
        started_s, error_type = time.perf_counter(), None
        task, gone = asyncio.ensure_future(encoding), asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            await asyncio.wait((task, gone), timeout=self._limits.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise RequestRejected(_CLIENT_CLOSED_REQUEST, "the client has closed the connection", error_type="Closed")
            message = f"the request has taken longer than {self._limits.timeout_s:g} s"
            raise RequestRejected(503, message, "Send fewer inputs at once.")
        except RequestRejected as error:
            error_type = error.response.to_json()["error_type"]
            raise
        except StairError as error:
            error_type = build_error_response(error, None).to_json()["error_type"]
            raise
        except Exception:
            error_type = get_error_type(500)
            raise
        finally:
            task.cancel()
            gone.cancel()
            self._hooks.record_encode_request(input_count, error_type, time.perf_counter() - started_s)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _format_vector(vector: SparseVector, vector_format: VectorFormat) -> dict[str, Any]:
    if vector_format == "tokens":
        return {"tokens": vector.to_dict()}
    features = {escape_feature(token): weight for token, weight in vector}
    if vector_format == "features":
        return {"features": features}
    return {"features": [{"feature": name, "weight": weight} for name, weight in features.items()]}


def _respond_with_json(value: Any) -> Response:  # noqa: ANN401  any JSON value
    return Response(orjson.dumps(value), media_type="application/json")
