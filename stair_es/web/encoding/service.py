"""The encoding service: texts and images to vectors of token weights, for the model and the policy of the moment."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.cluster.metadata.token_fields import TokenIds
from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import DecodeError
from stair_es.model.base import VocabularyProvider
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.sources.image.decode import decode_image
from stair_es.web.encoding.batching import MicroBatcher
from stair_es.web.encoding.schemas import MAX_INPUTS, build_decode_rejection
from stair_es.web.errors import RequestRejected
from stair_es.web.search.query import QueryPlan

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.search.index_cache import IndexCache
    from stair_es.token_policy import TokenPolicy
    from stair_es.types import Pixels, SparseVector
    from stair_es.web.hooks import ServerHooks
    from stair_es.web.index_state import IndexState
    from stair_es.web.limits import ConcurrencyLimiter, ServerLimits

_MAX_IMAGE_BATCH = 8
"""Images are decoded one after the other, so that larger batches would keep others waiting."""


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
        return EncodingTarget(encoder=state.encoder, policy=state.info.policy, plan=state.plan)

    return get_target


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """Limits of the batches."""

    max_batch: int = MAX_INPUTS
    """Maximum number of texts that are encoded together."""
    max_waiting: int = 256
    """Number of texts, and of images, that may wait; requests with more are rejected with 429."""
    timeout_s: float = 30.0
    """Maximum time for a request, from its last byte on; then it gets 503."""


@dataclass(frozen=True, kw_only=True)
class EncodedInputs:
    """The vectors of a request, and their target."""

    target: EncodingTarget
    texts: Sequence[SparseVector] = ()
    images: Sequence[SparseVector] = ()


class EncodingService:
    """Encodes what arrives together in batches. For one event loop."""

    def __init__(
        self,
        get_target: Callable[[], EncodingTarget],
        batch_limits: BatchLimits,
        server_limits: ServerLimits,
        hooks: ServerHooks,
        limiter: ConcurrencyLimiter | None = None,
    ) -> None:
        """Create a service.

        Args:
            get_target: Returns what to encode for. Called in worker threads, once per batch.
            batch_limits: Limits of the batches.
            server_limits: Limits of images.
            hooks: Telemetry.
            limiter: Limits the batches together with other work of the server.
        """
        self._get_target, self._hooks, self._limits = get_target, hooks, server_limits
        self._hold_slot = limiter or nullcontext
        self._texts = MicroBatcher(
            self._encode_texts,
            max_batch=batch_limits.max_batch,
            max_waiting=batch_limits.max_waiting,
            record_batch=hooks.record_batch,
        )
        self._images = MicroBatcher(
            self._encode_images,
            max_batch=min(batch_limits.max_batch, _MAX_IMAGE_BATCH),
            max_waiting=batch_limits.max_waiting,
            workers=server_limits.max_concurrent,
            record_batch=hooks.record_batch,
        )
        hooks.watch_queue(lambda: self._texts.waiting + self._images.waiting)
        self._ids: tuple[EncodingTarget, TokenIds] | None = None

    async def encode(self, texts: Sequence[str], images: Sequence[str], image_places: Sequence[str]) -> EncodedInputs:
        """Encode texts and images.

        Args:
            texts: Texts.
            images: Files in base64.
            image_places: Where the request has each image, for messages.

        Raises:
            RequestRejected: If an image can't be decoded, or the index has changed since.
            TooManyRequests: If too many wait already.
            StairError: If the index or its model is not available.
        """
        encoded_texts = await self._texts.submit(texts) if texts else []
        encoded_images = await self._images.submit(images) if images else []
        vectors: list[SparseVector] = []
        for place, (_, result) in zip(image_places, encoded_images, strict=True):
            if isinstance(result, DecodeError):
                raise build_decode_rejection(place, result)
            vectors.append(result)
        [target, *others] = [target for target, _ in (*encoded_texts, *encoded_images)]
        if any(other != target for other in others):
            raise RequestRejected(503, "the index has changed during the request", "Send it again.")
        return EncodedInputs(target=target, texts=[vector for _, vector in encoded_texts], images=vectors)

    def get_target(self) -> EncodingTarget:
        """Return the target of the encoding. May block.

        Raises:
            StairError: If the index or its model is not available.
        """
        return self._get_target()

    def list_tokens(self, target: EncodingTarget) -> list[str]:
        """List the tokens of a target by their id. A token of the policy has the id of one that it replaces. May block.

        Raises:
            RequestRejected: If the model doesn't list its tokens.
        """
        return list({position: token for token, position in self.get_token_ids(target).ids.items()}.values())

    def get_token_ids(self, target: EncodingTarget) -> TokenIds:
        """Return the ids of the tokens of a target. May block.

        Raises:
            RequestRejected: If the model doesn't list its tokens.
        """
        cached = self._ids
        if cached is None or cached[0] != target:
            encoder = target.encoder
            if not isinstance(encoder, VocabularyProvider):
                raise RequestRejected(
                    424, f"the model {encoder.model_id} doesn't list its tokens, so they have no ids", "Use /v1/encode."
                )
            self._ids = cached = (target, TokenIds.from_tokens(encoder.tokens).extend_for_policy(target.policy))
        return cached[1]

    def _encode_texts(self, texts: Sequence[str]) -> list[tuple[EncodingTarget, SparseVector]]:
        target = self._get_target()
        with self._hold_slot(), self._hooks.track_encoding("text"):
            vectors = target.encoder.encode_texts(texts)
        return [(target, target.rewrite_vector(vector)) for vector in vectors]

    def _encode_images(self, images: Sequence[str]) -> list[tuple[EncodingTarget, SparseVector | DecodeError]]:
        target = self._get_target()
        with self._hold_slot():
            decoded = [self._decode_image(image, target) for image in images]
            pixels = [each for each in decoded if not isinstance(each, DecodeError)]
            with self._hooks.track_encoding("image"):
                vectors = iter(target.encoder.encode_images(np.stack(pixels)) if pixels else ())
        return [(target, each if isinstance(each, DecodeError) else target.rewrite_vector(next(vectors))) for each in decoded]

    def _decode_image(self, image: str, target: EncodingTarget) -> Pixels | DecodeError:
        try:
            if len(image) > self._limits.upload_bytes * 4 // 3 + 4:
                raise DecodeError(f"the image is larger than {self._limits.upload_bytes:,} bytes", "Send a smaller one.")
            data = base64.b64decode(image, validate=True)
            return decode_image(data, target.encoder.image_spec, self._limits.decode_limits).pixels_HWC
        except binascii.Error:
            return DecodeError("not valid base64", "Send standard base64: with + and /, padding, and without line breaks.")
        except DecodeError as error:
            return error
