"""The document service: images become documents as `stair-es ingest` makes them, and are written if an index is named.

The stages are those of an ingest. Only the model is called by the `EncodingService`: its batches have the images of all
requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import ClusterError, DecodeError, IndexNotFound, MissingExtra, StairError
from stair_es.ingest.sinks.base import Documents, SinkWriter
from stair_es.ingest.sinks.live import LiveIndex, remove_forgotten
from stair_es.ingest.stages import (
    WorkerConfig,
    build_encoded_image,
    check_batch,
    decode_batch,
    fetch_parts,
    write_batches,
)
from stair_es.ingest.state import Batch, Deferred, Fetched, ImageState, Outcome, Pending, Prepared, mark_failed
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.base import ReadLimits, UrlPolicy
from stair_es.sources.http.locator import UrlLocator
from stair_es.store import BulkResult, StoredVersion
from stair_es.types import Pixels, SparseVector
from stair_es.web.config import AppConfig
from stair_es.web.encoding.batching import MicroBatcher
from stair_es.web.encoding.document_schemas import Deletion, DocumentInputs, DocumentOutcome, DocumentsResponse
from stair_es.web.encoding.service import EncodingService, EncodingTarget
from stair_es.web.errors import RequestRejected

_CLUSTER_WORKERS = 4
_URL_FETCHES = 8
"""URLs that are fetched, or whose images wait for the model: each holds an image in memory. A request has one at a time."""
_URLS_TIMEOUT_S = 12.0
"""Time after which no further URL of a request is fetched, so that the others are written before the request times out."""
_URL_TIMEOUT_S = 10.0
_ATTEMPTS = 2
"""An index that is replaced, or gets another token policy, while documents are written gets them again."""

ResultT = TypeVar("ResultT")


class HeldDocuments:
    """The `SinkWriter` of a request: it holds the documents for the response, and passes them on if there is an index."""

    def __init__(self, writer: SinkWriter | None) -> None:
        """Pass documents on to a writer; None for documents that are only built."""
        self._writer = writer
        self.documents: dict[str, Mapping[str, Any]] = {}

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Return the stored ones of these documents."""
        return self._writer.find_by_id(ids) if self._writer else {}

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """Return the stored documents of these images."""
        return self._writer.find_by_uri(uris) if self._writer else {}

    def write(self, documents: Documents, chunk_bytes: int) -> BulkResult:
        """Hold documents, and store them."""
        self.documents.update(documents)
        if self._writer is None:
            return BulkResult(outcomes={id_: None for id_, _ in documents})
        return self._writer.write(documents, chunk_bytes)

    def update(self, documents: Documents) -> BulkResult:
        """Update fields of existing documents."""
        return self._writer.update(documents) if self._writer else BulkResult(outcomes={id_: None for id_, _ in documents})


class DocumentService:
    """Makes documents of images, and writes and deletes them. For one event loop."""

    def __init__(
        self,
        config: AppConfig,
        encoding: EncodingService,
        indices: Mapping[str, LiveIndex],
        *,
        allow_private_urls: bool = False,
    ) -> None:
        """Create a service; only the `indices`, by alias, may be written."""
        self._encoding, self._indices = encoding, indices
        limits = config.limits
        url_policy = UrlPolicy(allow_private=allow_private_urls, timeout_s=_URL_TIMEOUT_S, attempts=1)
        self._limits: dict[str, Any] = {
            "read_limits": ReadLimits(max_bytes=limits.upload_bytes, url_policy=url_policy, defer=True),
            "decode_limits": limits.upload_limits,
        }
        # One call at a time per request and turn, so that a slow cluster takes no thread of those that only encode.
        self._cluster_calls: MicroBatcher[Callable[[], Any], Any] = MicroBatcher(
            _run_calls, replace(config.batch_limits, max_batch=1), workers=_CLUSTER_WORKERS
        )
        self._fetchers = ThreadPoolExecutor(_URL_FETCHES, thread_name_prefix="fetch")
        self._fetch_slots = asyncio.Semaphore(_URL_FETCHES)

    async def ingest(self, inputs: DocumentInputs) -> DocumentsResponse:
        """Make the documents of a request, and write them if it names an index.

        Raises:
            RequestRejected: If the index isn't one that may be written, or keeps changing, or the cluster is busy for too long.
            TooManyRequests: If too many requests wait.
            StairError: If the index, the model or the cluster isn't available.
        """
        target = await run_in_threadpool(self._encoding.get_target)
        if inputs.index is None:
            config = self._build_config(target, inputs.thumbnail_px or 0)
            return await self._make_documents(config, inputs, None)
        live = self._get_index(inputs.index)
        state = await self._call(live.get_state, target.encoder)
        _check_ids(inputs, state.config)
        for attempt in range(_ATTEMPTS):
            # After a change, everything is written again: a fingerprint doesn't depend on the token policy.
            config = replace(state.config, is_empty=attempt > 0, **self._limits)
            response = None
            try:
                response = await self._make_documents(config, inputs, state.target.name)
            except ClusterError as error:  # the state may be older than the deletion of the index
                if attempt or not (isinstance(error, IndexNotFound) or error.status == 404 or error.code == "write-alias-lost"):
                    raise
            written, state = state, await self._call(live.read_state, target.encoder)
            if response is not None and written.target == state.target:
                return response
        raise RequestRejected(
            503, f"the index {inputs.index!r} has changed while it was written", "Send the request again.", code="index-changed"
        )

    async def delete(self, deletion: Deletion) -> int:
        """Delete the documents of an image; return how many there were. Raises as `ingest`."""
        live = self._get_index(deletion.index)
        target = await run_in_threadpool(self._encoding.get_target)
        return await self._call(live.delete_image, target.encoder, uri=deletion.uri or "", id_=deletion.id or "")

    def _get_index(self, name: str) -> LiveIndex:
        try:
            return self._indices[name]
        except KeyError:
            allowed = ", ".join(self._indices)
            raise RequestRejected(
                403,
                f"the index {name!r} may not be written",
                f"Allowed: {allowed}." if allowed else "Start the encoder with --write-index NAME.",
                code="index-not-writable",
            ) from None

    def _build_config(self, target: EncodingTarget, thumbnail_px: int) -> WorkerConfig:
        """Build the configuration of documents that are not written."""
        encoder = target.encoder
        return WorkerConfig(
            writer=HeldDocuments(None),
            is_empty=True,
            model=ModelSpec(name=encoder.card.name),
            model_id=encoder.model_id,
            image_spec=encoder.image_spec,
            document=DocumentSettings(thumbnail_px=thumbnail_px),
            policy=target.policy,
            **self._limits,
        )

    async def _make_documents(self, config: WorkerConfig, inputs: DocumentInputs, index: str | None) -> DocumentsResponse:
        held = HeldDocuments(config.writer if index else None)
        config = replace(config, writer=held)
        call = self._call if index else run_in_threadpool
        batch = Batch([*inputs.items])
        await call(check_batch, config, batch)
        remote = [i for i, item in enumerate(inputs.items) if isinstance(item.locator, UrlLocator)]
        local = Batch([state for i, state in enumerate(batch.images) if i not in remote])
        await call(_fetch, config, local)
        await self._encode(config, local)
        states, deadline_s = iter(local.images), time.monotonic() + _URLS_TIMEOUT_S
        for i, item in enumerate(inputs.items):
            if i not in remote:
                batch.images[i] = next(states)
            elif time.monotonic() < deadline_s or not isinstance(batch.images[i], Pending):
                batch.images[i] = await self._fetch_remote(config, batch.images[i])
            else:
                batch.images[i] = Outcome(item, "failed", "read", "the URLs before it took too long: send it again")
        await call(_write, config, held, batch)
        return DocumentsResponse(
            index=index,
            model=config.model_id,
            documents=[_describe_outcome(outcome, held.documents, is_built=index is None) for outcome in batch.get_outcomes()],
        )

    async def _fetch_remote(self, config: WorkerConfig, state: ImageState) -> ImageState:
        batch = Batch([state])
        async with self._fetch_slots:
            await asyncio.get_running_loop().run_in_executor(self._fetchers, _fetch, config, batch)
            await self._encode(config, batch)
        return batch.images[0]

    async def _encode(self, config: WorkerConfig, batch: Batch) -> None:
        """Decode and encode the fetched images of a batch."""
        images = [(i, _FetchedImage(config, fetched)) for i, fetched in batch.enumerate_state(Fetched)]
        results = await self._encoding.encode_decoded([image.decode for _, image in images])
        for (i, image), (_, result) in zip(images, results, strict=True):
            batch.images[i] = image.finish(result)

    async def _call(self, function: Callable[..., ResultT], *args: Any, **kwargs: Any) -> ResultT:  # noqa: ANN401
        """Call a function that sends requests to the cluster in one of the threads for it."""
        try:
            [result] = await self._cluster_calls.submit([partial(function, *args, **kwargs)])
        except ClusterError as error:
            if error.code not in ("cluster-overloaded", "index-blocked"):
                raise
            raise RequestRejected(
                503, "the search cluster is too busy to write", "Try again in a moment.", code=error.code
            ) from None
        return result  # type: ignore[no-any-return]


class _FetchedImage:
    """An image that a worker of the `EncodingService` decodes."""

    def __init__(self, config: WorkerConfig, fetched: Fetched) -> None:
        self._config, self._batch, self._item = config, Batch([fetched]), fetched.item

    def decode(self, encoder: Encoder) -> Pixels:
        """Return the pixels. May be called again.

        Raises:
            DecodeError: If the image can't be decoded.
            RequestRejected: If the encoder isn't the one that the documents are made with.
        """
        if encoder.model_id != self._config.model_id:
            raise RequestRejected(503, "the model has changed during the request", "Send it again.", code="index-changed")
        decode_batch(self._config, self._batch)
        [state] = self._batch.images
        if not isinstance(state, Prepared):
            raise DecodeError("see its outcome", code="image-has-outcome")
        return state.decoded.pixels_HWC

    def finish(self, result: SparseVector | Exception) -> ImageState:
        """Return the image with its vector, or its outcome if it has failed."""
        [state] = self._batch.images
        if isinstance(state, Outcome):
            return state
        if isinstance(state, Prepared) and isinstance(result, SparseVector):
            return build_encoded_image(state, result)
        if isinstance(result, (RequestRejected, StairError)):
            raise result
        return Outcome(self._item, "failed", "encode", f"{type(result).__name__}: {result}"[:1000])


def _check_ids(inputs: DocumentInputs, config: WorkerConfig) -> None:
    if config.document.id != "uri" and any(item.document_id for item in inputs.items):
        raise RequestRejected(
            422,
            "the ids of this index are those of the contents, so `id` can't be given",
            "Omit `id`.",
            code="id-by-content",
        )


def _run_calls(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def _fetch(config: WorkerConfig, batch: Batch) -> None:
    """Fetch the images of a batch: read them, or take the bytes of the request."""
    try:
        for positions, part in fetch_parts(config, batch):
            for position, state in zip(positions, part.images, strict=True):
                if isinstance(state, Deferred):
                    state = Outcome(state.item, "failed", "read", state.reason)
                batch.images[position] = state
    except MissingExtra as error:
        mark_failed(batch, "read", f"{error.message}. {error.remedy}")


def _write(config: WorkerConfig, held: HeldDocuments, batch: Batch) -> None:
    write_batches(config, config.bulk.max_chunk_bytes, batch)
    remove_forgotten(config, batch, held.documents)


def _describe_outcome(outcome: Outcome, documents: Mapping[str, Mapping[str, Any]], *, is_built: bool) -> DocumentOutcome:
    is_written, has_failed = outcome.kind == "written", outcome.kind == "failed"
    return DocumentOutcome(
        uri=outcome.item.uri,
        outcome="built" if is_written and is_built else outcome.kind,
        id=outcome.id or None,
        document=dict(documents[outcome.id]) if is_written else None,
        stage=outcome.stage if has_failed else None,
        reason=outcome.reason or None,
    )
