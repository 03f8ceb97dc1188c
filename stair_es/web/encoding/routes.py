"""The routes of the encoder: `/v1/...`, and those that clients of text-embeddings-inference use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stair_es._version import __version__
from stair_es.feature_names import escape_feature
from stair_es.search.query_encoder import MAX_READ_CHARS
from stair_es.types import SparseVector
from stair_es.web.config import AppConfig
from stair_es.web.encoding.document_schemas import (
    DeletionResponse,
    parse_deletion,
    parse_documents_request,
    parse_image_request,
)
from stair_es.web.encoding.documents import DocumentService
from stair_es.web.encoding.openapi import build_openapi_document
from stair_es.web.encoding.schemas import (
    MAX_BODY_BYTES,
    MAX_INPUTS,
    MAX_TEXT_CHARS,
    EncodeResponse,
    Feature,
    Info,
    Inputs,
    Pruning,
    SparseValue,
    Vector,
    VectorFormat,
    Vocabulary,
    parse_embed_request,
    parse_encode_request,
    parse_query_request,
)
from stair_es.web.encoding.service import EncodedInputs, EncodingService
from stair_es.web.errors import RequestRejected, get_error_type
from stair_es.web.hooks import HEALTH_PATH
from stair_es.web.request_body import BodyReader, check_json_type, get_media_type
from stair_es.web.routes import PatternRoute

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
_MAX_INLINE_BYTES = 64 * 1024
_CLIENT_CLOSED_REQUEST = 499
"""Status for metrics, as in nginx: the client doesn't get it."""

DENSE_PATHS = ("/", "/embed", "/embed_all", "/v1/embeddings", "/predict", "/rerank", "/similarity")
"""Routes of text-embeddings-inference and OpenAI for other kinds of models."""


class EncodingRoutes:
    """The routes of the encoder."""

    def __init__(self, config: AppConfig, service: EncodingService, documents: DocumentService | None = None) -> None:
        """Create the routes; None for a server without documents."""
        self._service, self._limits, self._hooks = service, config.batch_limits, config.hooks
        self._documents = documents
        self._body_reader, self._max_image_bytes = BodyReader(config.limits), config.limits.upload_bytes
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
            *self._list_document_routes(),
            *(PatternRoute(path, self._reject_dense, methods=["POST"]) for path in DENSE_PATHS),
        ]

    def _list_document_routes(self) -> list[Route]:
        if self._documents is None:
            return []
        serve = partial(self._serve_documents, self._documents)
        return [PatternRoute("/v1/documents", serve, methods=["POST", "DELETE"])]

    async def _serve_documents(self, service: DocumentService, request: Request) -> Response:
        if request.method == "DELETE":
            deleted = await self._wait(request, service.delete(parse_deletion(request.query_params)), 1)
            return _respond_with_json(DeletionResponse(deleted=deleted))
        check_json_type(request, or_image=True)
        is_image = get_media_type(request).startswith("image/")
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            parse = partial(parse_image_request, dict(request.query_params)) if is_image else parse_documents_request
            inputs = await self._parse(parse, body)
            del body
            return _respond_with_json(await self._wait(request, service.ingest(inputs), len(inputs.items)))

    async def _get_health(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _encode(self, request: Request) -> Response:
        params, encoded = await self._encode_inputs(request, parse_encode_request)
        model, policy = encoded.target.encoder.model_id, encoded.target.policy
        if params.model not in (None, model):
            raise RequestRejected(
                404,
                f"the model {params.model!r:.200} is not served here",
                f"Leave `model` out, or send {model!r}.",
                code="model-not-served",
            )
        pruning = params.prune or Pruning()
        vectors = {
            place: _format_vector(pruning.prune_vector(vector), params.format)
            for place, vector in encoded.rewrite_vectors().items()
        }
        return _respond_with_json(
            EncodeResponse(
                model=model,
                policy=policy.digest if policy else None,
                texts=[vector for place, vector in vectors.items() if place.startswith("texts")],
                images=[vector for place, vector in vectors.items() if place.startswith("images")],
            )
        )

    async def _build_query(self, request: Request) -> Response:
        check_json_type(request)
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            params, inputs = await self._parse(parse_query_request, body)
            del body
            response = await self._wait(request, self._service.build_query(params, inputs), len(inputs))
            return _respond_with_json(response if params.describe else response.body)

    async def _embed_sparse(self, request: Request) -> Response:
        _, encoded = await self._encode_inputs(request, parse_embed_request)
        ids = await run_in_threadpool(self._service.get_token_ids, encoded.target)
        return _respond_with_json(
            [
                [SparseValue(ids[token], weight) for token, weight in vector if token in ids]
                for vector in encoded.rewrite_vectors().values()
            ]
        )

    async def _list_tokens(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        tokens = await run_in_threadpool(self._service.list_tokens, target)
        on_photos, policy = target.encoder.photo_tokens, target.policy
        return _respond_with_json(
            Vocabulary(
                model=target.encoder.model_id,
                tokens=tokens,
                photo_tokens=None if on_photos is None else list(policy.replace_tokens(on_photos) if policy else on_photos),
            )
        )

    async def _describe_model(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        return _respond_with_json(
            Info(
                model_id=target.encoder.model_id,
                served_model_name=target.encoder.model_id,
                model_sha=None,
                model_dtype="float32",
                model_type={"embedding": {"pooling": "splade"}},
                max_concurrent_requests=self._limits.max_waiting,
                max_input_length=MAX_TEXT_CHARS,
                max_batch_tokens=self._limits.max_batch * MAX_READ_CHARS,
                max_batch_requests=self._limits.max_batch,
                max_client_batch_size=MAX_INPUTS,
                auto_truncate=True,
                tokenization_workers=1,
                version=__version__,
                sha=None,
                docker_label=None,
            )
        )

    async def _list_models(self, request: Request) -> Response:
        target = await run_in_threadpool(self._service.get_target)
        model = {"id": target.encoder.model_id, "object": "model", "created": 0, "owned_by": "stair-es"}
        return _respond_with_json({"object": "list", "data": [model]})

    async def _reject_dense(self, request: Request) -> Response:
        raise RequestRejected(
            424,
            "the model has sparse vectors, which this route can't return",
            "POST /embed_sparse or /v1/encode.",
            code="no-dense-vectors",
        )

    async def _describe_api(self, request: Request) -> Response:
        return _respond_with_json(build_openapi_document())

    async def _encode_inputs(
        self, request: Request, parse: Callable[[bytes, int], tuple[RequestT, Inputs]]
    ) -> tuple[RequestT, EncodedInputs]:
        check_json_type(request)
        async with self._body_reader(request, MAX_BODY_BYTES) as body:
            params, inputs = await self._parse(parse, body)
            del body  # as large as the images, which are held for as long as they wait
            return params, await self._wait(request, self._service.encode(inputs), len(inputs))

    async def _parse(self, parse: Callable[[bytes, int], ResultT], body: bytes) -> ResultT:
        """Parse a body. A large one doesn't block the event loop, and only one at a time takes the memory for it."""
        if len(body) <= _MAX_INLINE_BYTES:
            return parse(body, self._max_image_bytes)
        async with self._parsing:
            return await run_in_threadpool(parse, body, self._max_image_bytes)

    async def _wait(self, request: Request, encoding: Awaitable[ResultT], input_count: int) -> ResultT:
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
            raise RequestRejected(503, message, "Send fewer inputs at once.", code="encoding-timed-out")
        except Exception as error:
            error_type = get_error_type(error)
            raise
        finally:
            task.cancel()
            gone.cancel()
            self._hooks.record_encode_request(input_count, error_type, time.perf_counter() - started_s)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _format_vector(vector: SparseVector, vector_format: VectorFormat | None) -> Vector:
    if vector_format in (None, "tokens"):
        return Vector(tokens=vector.to_dict())
    features = {escape_feature(token): weight for token, weight in vector}
    if vector_format == "features":
        return Vector(features=features)
    return Vector(features=tuple(Feature(name, weight) for name, weight in features.items()))


def _respond_with_json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
