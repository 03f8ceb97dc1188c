"""The encoding service: texts and images to vectors of token weights, for the model and the policy of the moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
from msgspec.structs import replace as replace_struct
from starlette.concurrency import run_in_threadpool

from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import DecodeError, QueryError
from stair_es.model.base import Encoder
from stair_es.model.vocabularies.unknown_words import find_unknown_words
from stair_es.search.dsl.pagination import Cursor
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.understanding import NO_FIELDS, SearchFields
from stair_es.search.index_cache import IndexCache, IndexState
from stair_es.search.options import SearchOptions
from stair_es.search.query import EMPTY_VECTOR, SearchQuery
from stair_es.search.query_encoder import MAX_READ_CHARS, build_search_query, truncate_query_text
from stair_es.search.request import QueryPlan, SearchRequest, build_search_request, restrict_to_matches
from stair_es.search.searcher import QueryRunner
from stair_es.sources.image.decode import decode_image
from stair_es.token_policy import TokenPolicy
from stair_es.types import Pixels, SparseVector
from stair_es.web.config import AppConfig
from stair_es.web.encoding.batching import EncodingSpeed, MicroBatcher
from stair_es.web.encoding.schemas import DEFAULT_HITS, Inputs, QueryRequest, QueryResponse, build_decode_rejection
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import ConcurrencyLimiter, SharedCores
from stair_es.web.search.params import build_filters

_MAX_IMAGE_BATCH, _MAX_IMAGE_BATCH_S = 8, 1.0
"""Images are decoded one after the other, so that larger batches would keep others waiting."""
_MAX_TEXT_BATCH_S = 0.02
"""Larger batches are hardly faster on a CPU, and keep others waiting. On a GPU this is time for a full one."""
_SHORT_TEXT_CHARS, _SHORT_TEXT_WORKERS = 256, 2
"""Maximum length of a query. Longer texts have a queue and a thread of their own, since each takes as long as several queries."""
_CHARS_PER_TEXT = 256
"""The work of any text, in characters: reading this many takes the text network as long as the least text."""
_SPEED_ROUNDS = 4
"""The first one loads the network. The fastest one counts, since other programs may be busy when the server starts."""

ItemT = TypeVar("ItemT")
ImageInput: TypeAlias = "bytes | Callable[[Encoder], Pixels]"
"""An image file, or what decodes one; see `EncodingService.encode_decoded`."""
EncodedItem: TypeAlias = "tuple[EncodingTarget, SparseVector | Exception]"
"""A target with the vector of an input for it, or why there is none."""

_ANY_INDEX = QueryPlan(query_type="rank_features", max_clauses=MAX_CLAUSES)


@dataclass(frozen=True, kw_only=True)
class EncodingTarget:
    """The target of vectors: a model, the token policy of an index, and its query type."""

    encoder: Encoder
    policy: TokenPolicy | None = None
    plan: QueryPlan = _ANY_INDEX
    state: IndexState | None = None
    """The index; None for every index of the model."""
    runner: QueryRunner | None = None
    """Sends searches to the index."""

    def rewrite_vector(self, vector: SparseVector) -> SparseVector:
        """Rewrite a query vector as the policy rewrote the tokens of the documents."""
        return self.policy.rewrite_query(vector) if self.policy else vector

    def list_search_fields(self) -> SearchFields:
        """List the fields in which a text is searched besides the token weights. May ask the cluster of the index."""
        return self.runner.list_search_fields(self.state) if self.state and self.runner else NO_FIELDS

    def build_query(self, inputs: QueryInputs, fields: SearchFields, text_vector: SparseVector | None) -> SearchQuery:
        """Build the query of inputs whose text is encoded, as `stair-es search` does. Asks the cluster of the index.

        Raises:
            QueryError: As `build_search_query`.
        """
        query = build_search_query(
            self.encoder, inputs, fields=fields, policy=self.policy, encode_text=lambda _, __: text_vector or EMPTY_VECTOR
        )
        if self.state is None or self.runner is None:
            return query
        self.state.info.check_filter_fields(query.filters)
        return self.runner.refine_query(self.state, query, SearchOptions())

    def build_request(self, query: SearchQuery, k: int, after: Cursor | None, sort: str = "") -> SearchRequest:
        """Build the request for a page of hits."""
        if self.state is not None and self.runner is not None:
            return self.runner.build_request(self.state, query, k, after, SearchOptions(sort=sort))
        plan = self.plan
        return build_search_request(query, plan.query_type, max_clauses=plan.max_clauses, k=k, after=after, ordered=plan.sortable)


def follow_index(states: IndexCache[IndexState], runner: QueryRunner) -> Callable[[], EncodingTarget]:
    """Return a function that returns the target for an index as it is now; `runner` searches that index."""

    def get_target() -> EncodingTarget:
        state = states.get()
        return EncodingTarget(
            encoder=state.encoder, policy=state.info.policy, plan=state.plan_query(), state=state, runner=runner
        )

    return get_target


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    """The vectors of a request, and their target."""

    target: EncodingTarget
    vectors: Mapping[str, SparseVector]
    """The vectors by where the request has their inputs, not rewritten by the policy of the target."""

    def rewrite_vectors(self) -> dict[str, SparseVector]:
        """Return the vectors as the policy rewrote the tokens of the documents."""
        return {place: self.target.rewrite_vector(vector) for place, vector in self.vectors.items()}


class EncodingService:
    """Encodes what arrives together in batches. For one event loop."""

    def __init__(
        self,
        config: AppConfig,
        get_target: Callable[[], EncodingTarget],
        limiter: ConcurrencyLimiter | None = None,
        char_s: float | None = None,
    ) -> None:
        """Create a service.

        `get_target` returns what to encode for; it is called in worker threads, once per batch. `limiter` limits the batches
        together with other work of the server. `char_s` is what `measure_char_s` returned, if it was called.
        """
        self.get_target, self._hold_slot = get_target, limiter or nullcontext
        self._hooks, self._limits, batch_limits = config.hooks, config.limits, config.batch_limits
        text_speed = EncodingSpeed(char_s)

        def create_text_batcher(workers: int) -> MicroBatcher[str, EncodedItem]:
            return MicroBatcher(
                self._encode_texts,
                replace(batch_limits, max_batch_s=_MAX_TEXT_BATCH_S),
                measure_work=measure_text_work,
                workers=workers,
                speed=text_speed,
                record_batch=self._hooks.record_batch,
            )

        self._short_texts, self._long_texts = create_text_batcher(_SHORT_TEXT_WORKERS), create_text_batcher(1)
        self._cores = SharedCores()
        self._images: MicroBatcher[ImageInput, EncodedItem] = MicroBatcher(
            self._encode_images,
            replace(batch_limits, max_batch=min(batch_limits.max_batch, _MAX_IMAGE_BATCH), max_batch_s=_MAX_IMAGE_BATCH_S),
            workers=self._limits.max_concurrent,
            record_batch=self._hooks.record_batch,
        )
        self._hooks.watch_queue(lambda: self._short_texts.waiting + self._long_texts.waiting + self._images.waiting)
        self._ids: tuple[EncodingTarget, Mapping[str, int]] | None = None

    async def encode(self, inputs: Inputs, expected: EncodingTarget | None = None) -> EncodedInputs:
        """Encode texts and images. Of a text, the first `MAX_READ_CHARS` characters are read.

        Args:
            inputs: The texts and images, at least one unless there is an expected target.
            expected: The target that is expected; by default, the same for all inputs.

        Raises:
            RequestRejected: If an image can't be decoded, the time limit is too short for the inputs, or the index has changed.
            TooManyRequests: If too many wait already.
            StairError: If the index or its model is not available.
        """
        texts = {place: truncate_query_text(item) for place, item in inputs.items() if isinstance(item, str)}
        short = {place: text for place, text in texts.items() if len(text) <= _SHORT_TEXT_CHARS}
        long = {place: text for place, text in texts.items() if place not in short}
        images: dict[str, ImageInput] = {place: item for place, item in inputs.items() if isinstance(item, bytes)}
        encoded = {
            **await _submit(self._short_texts, short),
            **await _submit(self._long_texts, long),
            **await _submit(self._images, images),
        }
        for place in images:
            if isinstance(error := encoded[place][1], DecodeError):
                raise build_decode_rejection(place, error)
        vectors: dict[str, SparseVector] = {}
        for place in inputs:
            found, result = encoded[place]
            if isinstance(result, Exception):
                raise result
            vectors[place], expected = result, expected or found
        if expected is None or any(other != expected for other, _ in encoded.values()):
            raise RequestRejected(503, "the index has changed during the request", "Send it again.", code="index-changed")
        return EncodedInputs(target=expected, vectors=vectors)

    async def encode_decoded(self, decoders: Sequence[Callable[[Encoder], Pixels]]) -> list[EncodedItem]:
        """Encode images that functions decode, in the batches of all images; errors are results, those of a function among them.

        A function is called in a worker thread, perhaps again. It raises DecodeError for an image that can't be decoded.

        Raises:
            RequestRejected: If the time limit is too short for the images.
            TooManyRequests: If too many wait already.
            StairError: If the index or its model is not available.
        """
        return await self._images.submit(decoders) if decoders else []

    async def build_query(self, params: QueryRequest, inputs: Inputs) -> QueryResponse:
        """Build the search of a request: with the operators, conditions, captions and thresholds of `stair-es search`.

        Raises:
            RequestRejected: As `encode`, or if the request has conditions and there is no index that has their fields.
            QueryError: If the query contradicts itself, or a field of it isn't in the index.
            StairError: As `encode`, or if the cluster fails.
        """
        target = await run_in_threadpool(self.get_target)
        query_inputs = build_request_inputs(params, target)
        fields = await run_in_threadpool(target.list_search_fields)
        text = (await run_in_threadpool(query_inputs.understand, target.encoder, fields)).text
        images = {place: item for place, item in inputs.items() if isinstance(item, bytes)}
        encoded = await self.encode({**({"text": text} if text.strip() else {}), **images}, target)
        query_inputs = replace(query_inputs, vectors=[encoded.vectors[place] for place in images])
        return await run_in_threadpool(build_query_response, params, target, query_inputs, fields, encoded.vectors.get("text"))

    def list_tokens(self, target: EncodingTarget) -> list[str]:
        """List the tokens of a target by their id. A token of the policy has the id of one that it replaces. May block."""
        return list({position: token for token, position in self.get_token_ids(target).items()}.values())

    def get_token_ids(self, target: EncodingTarget) -> Mapping[str, int]:
        """Return the ids of the tokens of a target. May block.

        Raises:
            RequestRejected: If the model doesn't list its tokens.
        """
        cached = self._ids
        if cached is None or cached[0] != target:
            encoder = target.encoder
            if not encoder.tokens:
                raise RequestRejected(
                    424,
                    f"the model {encoder.model_id} doesn't list its tokens, so they have no ids",
                    "Use /v1/encode.",
                    code="no-token-ids",
                )
            self._ids = cached = (target, number_tokens(encoder.tokens, target.policy))
        return cached[1]

    def _encode_texts(self, texts: Sequence[str]) -> list[EncodedItem]:
        target = self.get_target()
        with self._hold_slot(), self._cores.share(), self._hooks.track_encoding("text"):
            vectors = _encode_apart(target.encoder.encode_texts, texts)
        return [(target, vector) for vector in vectors]

    def _encode_images(self, images: Sequence[ImageInput]) -> list[EncodedItem]:
        target = self.get_target()
        with self._hold_slot():
            results = _encode_apart(partial(self._decode_and_encode, target.encoder), images)
        return [(target, result) for result in results]

    def _decode_and_encode(self, encoder: Encoder, images: Sequence[ImageInput]) -> list[SparseVector | Exception]:
        decoded = [self._decode_image(image, encoder) for image in images]
        pixels = [each for each in decoded if not isinstance(each, DecodeError)]
        with self._hooks.track_encoding("image"):
            vectors = iter(encoder.encode_images(np.stack(pixels)) if pixels else ())
        return [each if isinstance(each, DecodeError) else next(vectors) for each in decoded]

    def _decode_image(self, image: ImageInput, encoder: Encoder) -> Pixels | DecodeError:
        try:
            if not isinstance(image, bytes):
                return image(encoder)
            return decode_image(image, encoder.image_spec, self._limits.upload_limits).pixels_HWC
        except DecodeError as error:
            return error


def build_request_inputs(params: QueryRequest, target: EncodingTarget) -> QueryInputs:
    """Build the query inputs of a request, without its image."""
    for name in ("filters", "sort"):
        if getattr(params, name) and target.state is None:
            raise RequestRejected(
                422,
                f"`{name}` needs the fields of an index",
                f"Start the encoder with --index, or omit `{name}`.",
                code="no-index",
            )
    return QueryInputs(
        query_string=params.text or "",
        required=params.require,
        excluded=params.exclude,
        filters=build_filters(params.filters, params.filter, target.state.info.mapped_fields if target.state else {}),
        hybrid=params.hybrid,
    )


def build_query_response(
    params: QueryRequest, target: EncodingTarget, inputs: QueryInputs, fields: SearchFields, text_vector: SparseVector | None
) -> QueryResponse:
    """Build the response of a request whose text is encoded. If the model knows no word of it, the search finds nothing."""
    k = int(params.k or DEFAULT_HITS)
    response = QueryResponse(
        body={"size": k, "query": {"match_none": {}}},
        model=target.encoder.model_id,
        policy=target.policy.digest if target.policy else None,
        tokens={},
        weak_below=None,
        conditions=[],
        unknown_words=[],
        remarks=[],
    )
    try:
        query = target.build_query(inputs, fields, text_vector)
    except QueryError as error:
        is_image_empty = error.code == "no-input" and inputs.vectors
        if not is_image_empty and error.code != "no-known-word":
            raise
        unknown = find_unknown_words(target.encoder, inputs.parsed.text)
        return replace_struct(response, unknown_words=[word.to_dict() for word in unknown], remarks=[error.message])
    if params.prune:
        query = replace(query, vector=params.prune.prune_vector(query.vector))
    request = target.build_request(query, k, params.after, params.sort)
    if params.cut:
        request = restrict_to_matches(request, query)
    return replace_struct(
        response,
        body=request.body,
        tokens=request.vector.to_dict(),
        weak_below=request.match_cut.weak_below if request.match_cut else None,
        conditions=[condition.to_dict() for condition in query.conditions],
        unknown_words=[word.to_dict() for word in query.unknown_words],
        remarks=[*query.remarks, *request.remarks],
    )


async def _submit(batcher: MicroBatcher[ItemT, EncodedItem], items: Mapping[str, ItemT]) -> dict[str, EncodedItem]:
    return dict(zip(items, await batcher.submit([*items.values()]), strict=True)) if items else {}


def number_tokens(tokens: Sequence[str], policy: TokenPolicy | None) -> dict[str, int]:
    """Return the ids of tokens: their positions. A new name of the policy gets the lowest id of the tokens that it replaces."""
    ids = {token: position for position, token in enumerate(tokens)}
    added: dict[str, int] = {}
    for token, target in (policy.replacements if policy else {}).items():
        if token in ids and target not in ids:
            added[target] = min(ids[token], added.get(target, ids[token]))
    return {**ids, **added}


def measure_text_work(text: str) -> float:
    """Measure the work of a text, in characters."""
    return len(text) + _CHARS_PER_TEXT


def measure_char_s(encoder: Encoder) -> float:
    """Measure how long a character of work takes, in seconds; the text network is loaded for it."""
    text = "a red car " * (MAX_READ_CHARS // 10)

    def measure_once() -> float:
        started_s = time.perf_counter()
        encoder.encode_texts([text])
        return (time.perf_counter() - started_s) / measure_text_work(text)

    return min(measure_once() for _ in range(_SPEED_ROUNDS))


def _encode_apart(
    encode: Callable[[Sequence[ItemT]], Sequence[SparseVector | Exception]], items: Sequence[ItemT]
) -> Sequence[SparseVector | Exception]:
    """Encode items together, or one by one if that fails, so that an input never changes the result of another request."""
    try:
        return encode(items)
    except Exception as error:  # noqa: BLE001  whatever it is, only the request of its item gets it
        return [error] if len(items) == 1 else [_encode_apart(encode, [item])[0] for item in items]
