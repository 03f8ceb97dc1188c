"""The stages of an ingest: check -> prepare (read, decode, enrich) -> encode -> write, in this process or on a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.cluster.bulk.writer import BulkRequestStats
from stair_es.cluster.documents.document import (
    DocumentSettings,
    ImageMetadata,
    add_token_ids,
    build_document,
    compute_document_fingerprint,
    make_document_id,
)
from stair_es.cluster.metadata.token_fields import IDS_FIELD, TokenIds
from stair_es.errors import DecodeError
from stair_es.ingest.enrichers.base import EnricherInput, EnricherSpec, Enrichment, get_enricher, run_enricher
from stair_es.ingest.fetch import fetch_parts
from stair_es.ingest.sinks.base import SinkWriter
from stair_es.ingest.state import (
    Batch,
    Encoded,
    Fetched,
    IngestStage,
    Outcome,
    Pending,
    Prepared,
    VersionChanged,
    get_image_item,
    get_timestamp,
)
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.base import ReadLimits, SourceItem
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.token_policy import TokenPolicy
from stair_es.types import ImageSpec, SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.documents.state import StoredVersion

EMPTIED_BY_POLICY = "the token policy leaves it no token"
NO_TOKEN_ID = "the index has no id for some of its tokens"
_SAID = {
    EMPTIED_BY_POLICY: "the token policy leaves {count} without tokens: {they_are} stored, but no query finds {them}",
    NO_TOKEN_ID: "the index has no id for tokens of {count}: SEISMIC doesn't find {them} by those, an exact search does",
}


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Everything that a worker needs to build its objects. Picklable: builders, never clients or models."""

    writer: SinkWriter
    fresh: bool
    """Whether the sink is empty: then no document can be up to date."""
    model: ModelSpec
    model_id: str
    image_spec: ImageSpec
    document: DocumentSettings
    reading: ReadLimits
    limits: DecodeLimits
    enrichers: tuple[EnricherSpec, ...] = ()
    enricher_versions: tuple[str, ...] = ()
    """Determined once on the driver; part of each fingerprint."""
    policy: TokenPolicy | None = None
    """Token policy applied to the vectors; not part of the fingerprint."""
    token_ids: TokenIds | None = None
    """Token ids of the index under its policy, if it has any."""

    def compute_fingerprint(self, sha256: str, item: SourceItem) -> str:
        """Compute the fingerprint of the document for these bytes and this item."""
        return compute_document_fingerprint(sha256, self.model_id, self.document, item.fields, self.enricher_versions)

    def is_up_to_date(self, stored: StoredVersion, item: SourceItem) -> bool:
        """Return whether the stored document equals what its bytes would give today."""
        return stored.fingerprint == self.compute_fingerprint(stored.sha256, item)


def check_batch(batch: Batch, job: WorkerConfig) -> Batch:
    """Look up the stored documents of a batch.

    An image is `unchanged`, without reading its bytes, if the store reports the same version and the document is up to date.
    """
    with batch.time_stage("check"):
        items = batch.enumerate_state(SourceItem)
        stored: dict[str, StoredVersion] = {}
        if job.document.id == "content-hash":
            stored = job.writer.find_by_uri([item.uri for _, item in items])
        else:
            by_id = job.writer.find_by_id([make_document_id(item.uri) for _, item in items])
            stored = {item.uri: by_id[id_] for _, item in items if (id_ := make_document_id(item.uri)) in by_id}
        for i, item in items:
            known = stored.get(item.uri)
            if known and known.version is not None and known.version == item.version and job.is_up_to_date(known, item):
                batch.images[i] = Outcome(item, "unchanged", "check", id=known.id)
            else:
                batch.images[i] = Pending(item, known)
    return batch


def prepare_batch(batch: Batch, job: WorkerConfig) -> Batch:
    """Fetch, decode and enrich the images of a batch; large images in parts, to limit memory."""
    for places, part in fetch_parts(batch, job):
        _prepare_part(part, job)
        for place, state in zip(places, part.images, strict=True):
            batch.images[place] = state
    return batch


def _prepare_part(part: Batch, job: WorkerConfig) -> None:
    with part.time_stage("decode"):
        for i, loaded in part.enumerate_state(Fetched):
            try:
                decoded = decode_image(loaded.data, job.image_spec, job.limits, job.document.thumbnail_px)
            except DecodeError as error:
                part.images[i] = Outcome(loaded.item, "failed", "decode", error.message)
                continue
            part.images[i] = Prepared(loaded, decoded, loaded.item.fields)
    if job.enrichers:
        with part.time_stage("enrich"):
            for spec in job.enrichers:
                _enrich_batch(part, spec)
    for i, ready in part.enumerate_state(Prepared):  # drop raw bytes before sending the batch to the encoder
        part.images[i] = replace(ready, fetched=replace(ready.fetched, data=b""))


def _enrich_batch(batch: Batch, spec: EnricherSpec) -> None:
    images = batch.enumerate_state(Prepared)
    candidates = [
        EnricherInput(
            uri=ready.fetched.item.uri,
            data=ready.fetched.data,
            pixels_HWC=ready.decoded.pixels_HWC,
            box=ready.decoded.box,
            thumbnail=ready.decoded.thumbnail,
            fields=ready.fields,
        )
        for _, ready in images
    ]
    if not candidates:
        return
    for (i, ready), result in zip(images, run_enricher(get_enricher(spec), spec.name, candidates), strict=True):
        if isinstance(result, str):
            batch.images[i] = Outcome(ready.fetched.item, "failed", "enrich", result)
        else:
            batch.images[i] = _apply_enrichment(ready, result)


def _apply_enrichment(ready: Prepared, enrichment: Enrichment) -> Prepared:
    decoded = ready.decoded
    if enrichment.pixels_HWC is not None:
        decoded = replace(decoded, pixels_HWC=enrichment.pixels_HWC)
    if enrichment.thumbnail is not None:
        decoded = replace(decoded, thumbnail=enrichment.thumbnail or None)
    return replace(ready, decoded=decoded, fields={**ready.fields, **enrichment.fields})


def encode_batch(batch: Batch, encoder: Encoder) -> Batch:
    """Encode all images of the batch with one call of the encoder."""
    with batch.time_stage("encode"):
        ready = batch.enumerate_state(Prepared)
        if ready:
            vectors = encoder.encode_images(np.stack([image.decoded.pixels_HWC for _, image in ready]))
            for (i, image), vector in zip(ready, vectors, strict=True):
                loaded = image.fetched
                batch.images[i] = Encoded(loaded.item, loaded.id, vector, _build_facts(image), image.fields, loaded.fingerprint)
    return batch


def _build_facts(image: Prepared) -> ImageMetadata:
    loaded, decoded = image.fetched, image.decoded
    return ImageMetadata(
        uri=loaded.item.uri,
        source=loaded.item.source,
        version=loaded.version,
        sha256=loaded.sha256,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        taken_at=decoded.taken_at,
        thumbnail=decoded.thumbnail,
        colours=decoded.colours,
    )


def write_batches(batches: Sequence[Batch], job: WorkerConfig, chunk_bytes: int) -> tuple[list[Batch], list[BulkRequestStats]]:
    """Write the documents of several batches to the sink. Documents that the sink rejects permanently have failed."""
    written_at = get_timestamp()
    encoded = [image for batch in batches for image in batch.select_state(Encoded)]
    touched = [image for batch in batches for image in batch.select_state(VersionChanged)]
    sent: list[BulkRequestStats] = []
    with batches[0].time_stage("write"):
        if encoded:
            # the same content twice is one document
            documents = {image.id: _build_document(image, job, written_at) for image in encoded}
            losses = {image.id: describe_loss(image.vector, documents[image.id], job.token_ids) for image in encoded}
            written = job.writer.write(list(documents.items()), chunk_bytes)
            sent = written.requests
            for batch in batches:
                _record_outcomes(batch, written.outcomes, losses)
        if touched:
            updated = job.writer.update([(image.id, {"version": image.version}) for image in touched])
            for batch in batches:
                for i, image in batch.enumerate_state(VersionChanged):
                    reason = updated.outcomes.get(image.id)
                    kept = Outcome(image.item, "unchanged", "read", id=image.id)
                    batch.images[i] = kept if reason is None else Outcome(image.item, "failed", "write", reason)
    return list(batches), sent


def _build_document(image: Encoded, job: WorkerConfig, written_at: str) -> dict[str, object]:
    made = build_document(
        image.vector,
        image.facts,
        fields=image.fields,
        model_id=job.model_id,
        fingerprint=image.fingerprint,
        ingested_at=written_at,
        settings=job.document,
        policy=job.policy,
    )
    return add_token_ids(made, job.token_ids)


def _record_outcomes(batch: Batch, refused: dict[str, str | None], losses: Mapping[str, str]) -> None:
    for i, image in batch.enumerate_state(Encoded):
        reason = refused[image.id]
        if reason is None:
            batch.images[i] = Outcome(image.item, "written", "write", losses[image.id], id=image.id)
        else:
            batch.images[i] = Outcome(image.item, "failed", "write", reason)


def describe_loss(vector: SparseVector, document: Mapping[str, Any], token_ids: TokenIds | None) -> str:
    """Return `EMPTIED_BY_POLICY` or `NO_TOKEN_ID` for a document that can't be found by all of its model's tokens; "" otherwise.

    Args:
        vector: Vector from the encoder.
        document: Document built from it.
        token_ids: Token ids of the index, if it has any.
    """
    tokens = document["tokens"]
    if len(vector) and not tokens:
        return EMPTIED_BY_POLICY
    return NO_TOKEN_ID if token_ids and len(tokens) > len(document.get(IDS_FIELD, ())) else ""


def describe_losses(losses: Counter[str], what: str) -> Iterator[str]:
    """Yield a message for each kind of loss that occurred; `what` names the items, as `image`."""
    for loss, sentence in _SAID.items():
        if losses[loss]:
            ending, they_are, them = ("", "it is", "it") if losses[loss] == 1 else ("s", "they are", "them")
            yield sentence.format(count=f"{losses[loss]:,} {what}{ending}", they_are=they_are, them=them)


def mark_failed(batch: Batch, stage: IngestStage, reason: str) -> Batch:
    """Mark each image of the batch that has no outcome yet as failed, and return the batch."""
    for i, state in enumerate(batch.images):
        if not isinstance(state, Outcome):
            batch.images[i] = Outcome(get_image_item(state), "failed", stage, reason)
    return batch
