"""The encoding service: texts and images to vectors of token weights, for the model and the policy of the moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np

from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import DecodeError
from stair_es.model.base import Encoder
from stair_es.search.index_cache import IndexCache, IndexState
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import MAX_READ_CHARS, truncate_query_text
from stair_es.search.request import QueryPlan, build_search_request
from stair_es.sources.image.decode import decode_image
from stair_es.token_policy import TokenPolicy
from stair_es.types import Pixels, SparseVector
from stair_es.web.config import AppConfig
from stair_es.web.encoding.batching import EncodingSpeed, MicroBatcher
from stair_es.web.encoding.schemas import Inputs, build_decode_rejection
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import ConcurrencyLimiter, SharedCores

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
EncodedItem: TypeAlias = "tuple[EncodingTarget, SparseVector | Exception]"
"""A target with the vector of an input for it, or why there is none."""

_ANY_INDEX = QueryPlan(query_type="rank_features", max_clauses=MAX_CLAUSES)


@dataclass(frozen=True, kw_only=True)
class EncodingTarget:
    """The target of vectors: a model, the token policy of an index, and its query type."""

    encoder: Encoder
    policy: TokenPolicy | None = None
    plan: QueryPlan = _ANY_INDEX

    def rewrite_vector(self, vector: SparseVector) -> SparseVector:
        """Rewrite a query vector as the policy rewrote the tokens of the documents."""
        return self.policy.rewrite_query(vector) if self.policy else vector

    def build_search_body(self, vector: SparseVector, size: int) -> dict[str, Any]:
        """Build the body of a `_search` request for the `size` best documents; without tokens, one that finds nothing."""
        if not len(vector):
            return {"size": size, "query": {"match_none": {}}}
        plan, query = self.plan, SearchQuery(vector=vector)
        return build_search_request(query, plan.query_type, max_clauses=plan.max_clauses, k=size, ordered=plan.sortable).body


def follow_index(states: IndexCache[IndexState]) -> Callable[[], EncodingTarget]:
    """Return a function that returns the target for an index as it is now."""

    def get_target() -> EncodingTarget:
        state = states.get()
        return EncodingTarget(encoder=state.encoder, policy=state.info.policy, plan=state.plan_query())

    return get_target


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    """The vectors of a request, and their target."""

    target: EncodingTarget
    vectors: Mapping[str, SparseVector]
    """The vectors by where the request has their inputs."""


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
        self._images: MicroBatcher[bytes, EncodedItem] = MicroBatcher(
            self._encode_images,
            replace(batch_limits, max_batch=min(batch_limits.max_batch, _MAX_IMAGE_BATCH), max_batch_s=_MAX_IMAGE_BATCH_S),
            workers=self._limits.max_concurrent,
            record_batch=self._hooks.record_batch,
        )
        self._hooks.watch_queue(lambda: self._short_texts.waiting + self._long_texts.waiting + self._images.waiting)
        self._ids: tuple[EncodingTarget, Mapping[str, int]] | None = None

    async def encode(self, inputs: Inputs) -> EncodedInputs:
        """Encode texts and images. Of a text, the first `MAX_READ_CHARS` characters are read.

        Raises:
            RequestRejected: If an image can't be decoded, the time limit is too short for the inputs, or the index has changed.
            TooManyRequests: If too many wait already.
            StairError: If the index or its model is not available.
        """
        texts = {place: truncate_query_text(item) for place, item in inputs.items() if isinstance(item, str)}
        short = {place: text for place, text in texts.items() if len(text) <= _SHORT_TEXT_CHARS}
        long = {place: text for place, text in texts.items() if place not in short}
        images = {place: item for place, item in inputs.items() if isinstance(item, bytes)}
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
            target, result = encoded[place]
            if isinstance(result, Exception):
                raise result
            vectors[place] = result
        if any(other != target for other, _ in encoded.values()):
            raise RequestRejected(503, "the index has changed during the request", "Send it again.", code="index-changed")
        return EncodedInputs(target=target, vectors=vectors)

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
        return [_rewrite_result(target, vector) for vector in vectors]

    def _encode_images(self, images: Sequence[bytes]) -> list[EncodedItem]:
        target = self.get_target()
        with self._hold_slot():
            results = _encode_apart(partial(self._decode_and_encode, target.encoder), images)
        return [_rewrite_result(target, result) for result in results]

    def _decode_and_encode(self, encoder: Encoder, images: Sequence[bytes]) -> list[SparseVector | Exception]:
        decoded = [self._decode_image(image, encoder) for image in images]
        pixels = [each for each in decoded if not isinstance(each, DecodeError)]
        with self._hooks.track_encoding("image"):
            vectors = iter(encoder.encode_images(np.stack(pixels)) if pixels else ())
        return [each if isinstance(each, DecodeError) else next(vectors) for each in decoded]

    def _decode_image(self, image: bytes, encoder: Encoder) -> Pixels | DecodeError:
        try:
            return decode_image(image, encoder.image_spec, self._limits.decode_limits).pixels_HWC
        except DecodeError as error:
            return error


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


def _rewrite_result(target: EncodingTarget, result: SparseVector | Exception) -> EncodedItem:
    return target, result if isinstance(result, Exception) else target.rewrite_vector(result)
