"""The stages of an ingest: check -> prepare (read, decode, enrich) -> encode -> write, in this process or on a worker."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.documents.document import (
    DocumentSettings,
    ImageMetadata,
    TextMetadata,
    build_document,
    compute_document_fingerprint,
    make_content_id,
    merge_labels,
)
from stair_es.errors import DecodeError, DeviceOutOfMemory, ReadError, RetryLater, StairError
from stair_es.ingest.enrichers.base import EnricherSpec
from stair_es.ingest.enrichers.run import enrich_batch
from stair_es.ingest.sinks.base import ForgottenGuard, SinkWriter, list_image_keys
from stair_es.ingest.state import (
    Batch,
    Deferred,
    Encoded,
    Fetched,
    IngestStage,
    Outcome,
    Pending,
    Prepared,
    VersionChanged,
    get_document_id,
    get_image_item,
    get_item_host,
    get_timestamp,
)
from stair_es.model.base import Encoder, ModelSpec
from stair_es.retry import raise_if_cancelled
from stair_es.sources.base import ReadLimits, ReadResult, SourceItem
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.io.uris import split_image_uri
from stair_es.sources.limits import PREPARED_BYTES
from stair_es.store import BulkRequestStats, StoredVersion
from stair_es.token_policy import TokenPolicy
from stair_es.types import ImageSpec, SparseVector

EMPTIED_BY_POLICY = "the token policy leaves it no token"
NO_KNOWN_TOKENS = "no token that the model knows"


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Everything that a worker needs to build its objects. Picklable: builders, never clients or models."""

    writer: SinkWriter
    is_empty: bool
    model: ModelSpec
    model_id: str
    image_spec: ImageSpec
    document: DocumentSettings
    read_limits: ReadLimits
    decode_limits: DecodeLimits
    is_text: bool = False
    """Whether the items are texts: then there is nothing to decode."""
    enrichers: tuple[EnricherSpec, ...] = ()
    enricher_versions: tuple[str, ...] = ()
    """Determined once on the driver; part of each fingerprint."""
    policy: TokenPolicy | None = None
    """Token policy applied to the vectors; not part of the fingerprint."""
    labels_policy: TokenPolicy | None = None
    """That of labels of enrichers."""
    forgotten: ForgottenGuard | None = None
    """None if no image was ever forgotten."""
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    hub_revisions: Mapping[str, str] = field(default_factory=dict)
    """Commits of the repositories of the model: the hub may have newer ones when a worker starts."""
    trusted_code: frozenset[str] = frozenset()
    """Code that the driver's user trusts: a worker elsewhere has other settings, and asks nobody."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of stair-es and of the packages with plugins on the driver, which a worker elsewhere must have, too."""

    @property
    def skips_check(self) -> bool:
        """Whether no image has to be looked up before it is read; a text is looked up by its content."""
        return (self.is_empty or self.is_text) and self.forgotten is None

    def compute_fingerprint(self, sha256: str, item: SourceItem) -> str:
        """Compute the fingerprint of the document for these bytes and this item."""
        return compute_document_fingerprint(sha256, self.model_id, self.document, item.fields, self.enricher_versions)

    def is_up_to_date(self, stored: StoredVersion, item: SourceItem) -> bool:
        """Return whether the stored document equals what its bytes would give today."""
        return stored.fingerprint == self.compute_fingerprint(stored.sha256, item)


def check_batch(config: WorkerConfig, batch: Batch) -> Batch:
    """Look up the stored documents of a batch, after forgotten images are left out.

    An image is `unchanged`, without reading its bytes, if the store reports the same version and the document is up to date.
    """
    with batch.time_stage("check"):
        keys = {i: list_image_keys(item.uri) for i, item in batch.enumerate_state(SourceItem)}
        _leave_out_forgotten(batch, config, "check", keys)
        items = batch.enumerate_state(SourceItem)
        stored: dict[str, StoredVersion] = {}
        if not (config.is_empty or config.is_text):
            stored = _find_stored(config, [item for _, item in items])
        for i, item in items:
            found = stored.get(item.uri)
            if found and found.version is not None and found.version == item.version and config.is_up_to_date(found, item):
                batch.images[i] = Outcome(item, "unchanged", "check", id=found.id)
            else:
                batch.images[i] = Pending(item, found)
    return batch


def _find_stored(config: WorkerConfig, items: Sequence[SourceItem]) -> dict[str, StoredVersion]:
    """Find the stored documents of images by URI."""
    if config.document.id == "content-hash":
        return config.writer.find_by_uri([item.uri for item in items])
    by_id = config.writer.find_by_id([get_document_id(item) for item in items])
    return {item.uri: by_id[id_] for item in items if (id_ := get_document_id(item)) in by_id}


def _leave_out_forgotten(batch: Batch, config: WorkerConfig, stage: IngestStage, keys: Mapping[int, Sequence[str]]) -> None:
    """Leave out images that are listed under one of their keys, and delete their documents: a killed run may have left one.

    With ids by content, a document that a URI had with other bytes stays: it may be that of another image, too.
    """
    if config.forgotten is None or not keys:
        return
    found = config.forgotten.find_listed(list(keys.values()))
    items = {i: get_image_item(batch.images[i]) for i, is_listed in zip(keys, found, strict=True) if is_listed}
    has_own = items and (stage == "check" or config.document.id == "uri")
    stored = _find_stored(config, list(items.values())) if has_own else {}
    reasons = config.forgotten.delete_documents([document.id for document in stored.values()])
    for i, item in items.items():
        reason = reasons.get(stored[item.uri].id) if item.uri in stored else None
        batch.images[i] = Outcome(item, "failed" if reason else "forgotten", stage, reason or "")


def prepare_batch(config: WorkerConfig, batch: Batch) -> Batch:
    """Fetch, decode and enrich the images of a batch; large images in parts, to limit memory. Texts are only fetched."""
    for positions, part in fetch_parts(config, batch):
        if not config.is_text:
            decode_batch(config, part)
        for position, state in zip(positions, part.images, strict=True):
            batch.images[position] = state
    return batch


def fetch_parts(config: WorkerConfig, batch: Batch) -> Iterator[tuple[list[int], Batch]]:
    """Fetch the pending images; yield parts of about `PREPARED_BYTES`, with the positions of their images in the batch.

    No further image is requested from a host that asks to wait.
    """
    pending = deque(batch.enumerate_state(Pending))
    paused: dict[str, Deferred] = {}
    while pending:
        positions, part, held_bytes = list[int](), Batch([], batch.seconds, batch.began_ns), 0
        with batch.time_stage("read"):
            while pending and held_bytes < PREPARED_BYTES:
                raise_if_cancelled()
                position, image = pending.popleft()
                refusal = paused.get(get_item_host(image.item)) if paused else None
                state = _fetch_image(image, config) if refusal is None else replace(refusal, item=image.item, was_requested=False)
                if isinstance(state, Deferred) and state.host:
                    paused[state.host] = state
                held_bytes += len(state.data) if isinstance(state, Fetched) else 0
                positions.append(position)
                part.images.append(state)
            keys = {i: [make_content_id(image.sha256)] for i, image in part.enumerate_state(Fetched)}
            _leave_out_forgotten(part, config, "read", keys)
            _skip_known_content(part, config)
        yield positions, part


def _fetch_image(image: Pending, config: WorkerConfig) -> Fetched | VersionChanged | Deferred | Outcome:
    item, stored = image.item, image.stored
    current = stored if stored is not None and config.is_up_to_date(stored, item) else None
    try:
        read: ReadResult | None = item.locator.read(config.read_limits, current.version if current else None)
    except RetryLater as error:
        return Deferred(item, error.host, error.wait_s, error.message)
    except ReadError as error:
        return Outcome(item, "failed", "read", error.message)
    except (StairError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001  a plugin's locator: one image must not fail the run
        return Outcome(item, "failed", "read", f"{type(error).__name__}: {error}")
    if read is None:
        return Outcome(item, "unchanged", "read", id=current.id if current else "")
    text = json.dumps(read.fields, sort_keys=True).encode() if read.fields else b""
    sha256 = hashlib.sha256(read.data + text).hexdigest()
    version = item.version or read.version
    if current and current.sha256 == sha256:
        if version is None or current.version == version:
            return Outcome(item, "unchanged", "read", id=current.id)
        return VersionChanged(item, current.id, version, read.modified_at)
    id_ = make_content_id(sha256) if config.document.id == "content-hash" else get_document_id(item)
    return Fetched(
        item,
        id_,
        read.data,
        size_bytes=len(read.data),
        version=version,
        modified_at=read.modified_at,
        sha256=sha256,
        fingerprint=config.compute_fingerprint(sha256, item),
        format=read.format,
        fields=read.fields,
        label_fields=stored.label_fields if stored is not None and stored.sha256 == sha256 else {},
    )


def _skip_known_content(batch: Batch, config: WorkerConfig) -> None:
    """Skip images whose content is already stored, if ids go by content.

    It may be under another URI, or not be the document that `find_by_uri` takes for the newest one: that goes by clocks.
    """
    if config.document.id != "content-hash" or config.is_empty:
        return
    fetched = batch.enumerate_state(Fetched)
    stored = config.writer.find_by_id([image.id for _, image in fetched])
    for i, image in fetched:
        duplicate = stored.get(image.id)
        if duplicate is None or duplicate.fingerprint != image.fingerprint:
            continue
        if duplicate.uri != image.item.uri or duplicate.version == image.version:
            batch.images[i] = Outcome(image.item, "unchanged", "read", id=duplicate.id)


def decode_batch(config: WorkerConfig, part: Batch) -> None:
    """Decode and enrich the fetched images of a part of a batch."""
    with part.time_stage("decode"):
        for i, fetched in part.enumerate_state(Fetched):
            try:
                decoded = decode_image(fetched.data, config.image_spec, config.decode_limits, config.document.thumbnail_px)
            except DecodeError as error:
                part.images[i] = Outcome(fetched.item, "failed", "decode", error.message)
                continue
            part.images[i] = Prepared(fetched, decoded, {**fetched.item.fields, **fetched.fields})
    if config.enrichers:
        with part.time_stage("enrich"):
            for spec in config.enrichers:
                enrich_batch(part, spec)
    for i, prepared in part.enumerate_state(Prepared):  # drop raw bytes before sending the batch to the encoder
        part.images[i] = prepared.drop_bytes(merge_labels(prepared.fetched.label_fields, prepared.labels, config.labels_policy))


def encode_batch(encoder: Encoder, batch: Batch) -> Batch:
    """Encode all images, or all texts, of the batch with one call of the encoder."""
    with batch.time_stage("encode"):
        images = batch.enumerate_state(Prepared)
        try:
            _encode_images(encoder, batch, images)
        except DeviceOutOfMemory:  # the others fit
            for image in images:
                _encode_single(encoder, batch, image)
            if len(images) > 1 and not batch.select_state(Encoded):  # it isn't the images: another process has the memory
                raise
        if texts := batch.enumerate_state(Fetched):
            vectors = encoder.encode_texts([text.data.decode() for _, text in texts])
            for (i, text), vector in zip(texts, vectors, strict=True):
                if len(vector):
                    metadata = TextMetadata(uri=text.item.uri, source=text.item.source, sha256=text.sha256)
                    batch.images[i] = Encoded(text.item, text.id, vector, metadata, text.item.fields, text.fingerprint)
                else:
                    batch.images[i] = Outcome(text.item, "failed", "encode", NO_KNOWN_TOKENS)
    return batch


def _encode_images(encoder: Encoder, batch: Batch, images: Sequence[tuple[int, Prepared]]) -> None:
    if not images:
        return
    vectors = encoder.encode_images(np.stack([image.decoded.pixels_HWC for _, image in images]))
    for (i, image), vector in zip(images, vectors, strict=True):
        batch.images[i] = build_encoded_image(image, vector)


def _encode_single(encoder: Encoder, batch: Batch, image: tuple[int, Prepared]) -> None:
    try:
        _encode_images(encoder, batch, [image])
    except DeviceOutOfMemory as error:
        batch.images[image[0]] = Outcome(image[1].fetched.item, "failed", "encode", error.message)


def build_encoded_image(image: Prepared, vector: SparseVector) -> Encoded:
    """Build the state of a prepared image with its vector."""
    fetched = image.fetched
    metadata = _build_metadata(image)
    return Encoded(fetched.item, fetched.id, vector, metadata, image.fields, fetched.fingerprint, fetched.label_fields)


def _build_metadata(image: Prepared) -> ImageMetadata:
    fetched, decoded = image.fetched, image.decoded
    name, folder = split_image_uri(fetched.item.uri)
    return ImageMetadata(
        uri=fetched.item.uri,
        name=name,
        folder=folder,
        source=fetched.item.source,
        version=fetched.version,
        modified_at=fetched.modified_at,
        bytes=fetched.size_bytes,
        sha256=fetched.sha256,
        perceptual_hash=decoded.perceptual_hash,
        width=decoded.width,
        height=decoded.height,
        format=fetched.format or decoded.format,
        taken_at=decoded.taken_at,
        thumbnail=decoded.thumbnail,
        colors=decoded.colors,
    )


def write_batches(config: WorkerConfig, chunk_bytes: int, *batches: Batch) -> tuple[list[Batch], list[BulkRequestStats]]:
    """Write the documents of several batches to the sink. Documents that the sink rejects permanently have failed."""
    ingested_at = get_timestamp()
    encoded = [image for batch in batches for image in batch.select_state(Encoded)]
    version_changed = [image for batch in batches for image in batch.select_state(VersionChanged)]
    requests: list[BulkRequestStats] = []
    with batches[0].time_stage("write"):
        if encoded:
            # the same content twice is one document
            documents = {image.id: _build_document(image, config, ingested_at) for image in encoded}
            emptied = {image.id for image in encoded if len(image.vector) and not documents[image.id]["tokens"]}
            written = config.writer.write(list(documents.items()), chunk_bytes)
            requests = written.requests
            for batch in batches:
                _record_outcomes(batch, written.outcomes, emptied)
        if version_changed:
            updated = config.writer.update([(image.id, _build_version_update(image)) for image in version_changed])
            for batch in batches:
                for i, image in batch.enumerate_state(VersionChanged):
                    reason = updated.outcomes.get(image.id)
                    unchanged = Outcome(image.item, "unchanged", "read", id=image.id)
                    batch.images[i] = unchanged if reason is None else Outcome(image.item, "failed", "write", reason)
    return list(batches), requests


def _build_version_update(image: VersionChanged) -> dict[str, object]:
    """Return the fields that change when an image gets another version, but has the same bytes."""
    if image.item.document_id:
        return {**image.item.fields, "version": image.version}
    return {"version": image.version, **({"modified_at": image.modified_at} if image.modified_at else {})}


def _build_document(image: Encoded, config: WorkerConfig, ingested_at: str) -> dict[str, object]:
    document = build_document(
        image.vector,
        image.metadata,
        fields=image.fields,
        model_id=config.model_id,
        fingerprint=image.fingerprint,
        ingested_at=ingested_at,
        settings=config.document,
        policy=config.policy,
    )
    return {**document, **image.label_fields}


def _record_outcomes(batch: Batch, reasons: Mapping[str, str | None], emptied: Collection[str]) -> None:
    for i, image in batch.enumerate_state(Encoded):
        reason = reasons[image.id]
        if reason is None:
            batch.images[i] = Outcome(
                image.item, "written", "write", EMPTIED_BY_POLICY if image.id in emptied else "", id=image.id
            )
        else:
            batch.images[i] = Outcome(image.item, "failed", "write", reason)
