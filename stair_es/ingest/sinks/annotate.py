"""Annotate an index that belongs to another program: an ingest whose source and sink are the same documents.

The images are those that a field of the documents names or holds. Each document gets `tokens`, `top_tokens`, the object
`stair_es`, and those of `OPTIONAL_FIELDS` that the mapping didn't have: a field of the other program is never changed. What
`stair_es` records makes a later run skip the documents whose image is the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

from stair_es._itertools import batched
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster, open_shared_cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import ANNOTATION_FIELD, get_field_value
from stair_es.cluster.documents.read import WriteVersion, find_last_writes, scan_writes
from stair_es.cluster.index.mappings import build_document_properties
from stair_es.cluster.metadata.index_metadata import build_index_meta, check_not_token_index, get_index_meta, is_ingest_index
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.cluster.policy.update_by_query import check_script_support
from stair_es.errors import IndexMismatch, IndexNotFound, IngestError
from stair_es.ingest.sinks.annotated_documents import (
    OWN_MAPPING,
    ImageBase,
    build_annotate_action,
    build_clear_action,
    build_version_action,
    choose_fields,
)
from stair_es.ingest.sinks.base import Documents, RunCoverage, SinkKind, SinkPlan, SinkResult, SinkSession
from stair_es.ingest.sinks.cluster_options import ClusterPlan
from stair_es.retry import RetryPolicy
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.store import BulkResult, IndexedDocument, StoredVersion

logger = logging.getLogger(__name__)

_CLEARED_TOGETHER = 1000


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """Which documents are annotated, and where their images are."""

    index: str
    """The index, or an alias of a single one."""
    image_field: str
    """Field with the image, with dots for objects: a URL, a path, or base64. Of a list, the first one counts."""
    image_base: str = ""
    """Folder or URL; see `ImageBase`."""
    check_images: bool = False
    """Ask for each image whether it has changed, instead of comparing what the documents name."""
    change_field: bool = False
    """Whether the image may be in another field than in earlier runs: token weights of all others are removed."""


WrittenDocument: TypeAlias = tuple[str, "str | None"]
"""`_id` and routing of a document with our fields."""


class _ScannedDocument(NamedTuple):
    """A document, the value of its image, and what an earlier run has recorded."""

    hit: Mapping[str, Any]
    value: object
    digest: str
    """Hash of the value; empty if there is none."""
    own: Mapping[str, Any]

    @property
    def is_outdated(self) -> bool:
        """Return whether it has token weights of another image than it names."""
        return bool(self.own) and self.own.get("image") != self.digest


class IndexSource:
    """The `Source` of the images of an index."""

    ignored: Mapping[str, int] = {}
    can_reread = False
    """Reading the index again is another run."""

    def __init__(self, cluster: Cluster, options: AnnotateOptions) -> None:
        """Prepare the listing.

        Raises:
            UsageError: If `image_base` can't be used.
        """
        self.options = options
        self._cluster = cluster
        self._base = ImageBase.parse(options.image_base)
        self.without_image = 0
        """Documents whose field has no value."""
        self.outdated = 0
        """Documents with token weights of an image that they don't name any more."""
        self._last_writes: Sequence[WriteVersion | None] = ()

    @property
    def uri(self) -> str:
        """Return the `source` of the items."""
        return f"index://{self.options.index}"

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the image of each document that has one, as of now: what is written later belongs to the next run.

        Raises:
            IngestError: If no document has an image.
        """
        name, index = get_annotatable_index(self._cluster, self.options.index)
        self._cluster.refresh(name)
        self._last_writes = find_last_writes(self._cluster, name)
        found = False
        for scanned in self._scan(name):
            self.outdated += scanned.is_outdated
            if scanned.value is None:
                self.without_image += 1
                continue
            found = True
            yield self._build_item(scanned)
        if not found:
            names = ", ".join(sorted(index["mappings"].get("properties", {})))
            raise IngestError(
                f"no document of {name!r} has a value in {self.options.image_field!r}",
                f"Choose the field with --image-field. The index has: {names or 'no field'}.",
                code="no-images",
            )

    def list_outdated(self, name: str) -> Iterator[WrittenDocument]:
        """Yield those of the `outdated` documents that nobody has written since they were listed."""
        for scanned in self._scan(name) if self.outdated else ():
            if scanned.is_outdated:
                yield scanned.hit["_id"], scanned.hit.get("_routing")

    def _scan(self, name: str) -> Iterator[_ScannedDocument]:
        for hit in scan_writes(self._cluster, name, self._last_writes, [self.options.image_field, ANNOTATION_FIELD]):
            source = hit.get("_source") or {}
            value, own = get_field_value(source, self.options.image_field), source.get(ANNOTATION_FIELD)
            digest = "" if value is None else hashlib.sha256(str(value).encode(errors="surrogatepass")).hexdigest()[:32]
            yield _ScannedDocument(hit, value, digest, own if isinstance(own, Mapping) else {})

    def _build_item(self, scanned: _ScannedDocument) -> SourceItem | ListingFailure:
        hit, value, digest, own = scanned
        uri = f"{self.uri}/{quote(hit['_id'], safe='')}"
        if not isinstance(value, str):
            kind = type(value).__name__
            return ListingFailure(uri, self.uri, f"{self.options.image_field!r} holds a {kind}, not a string")
        resolved = self._base.locate(value)
        if isinstance(resolved, str):
            return ListingFailure(uri, self.uri, resolved)
        known = None if self.options.check_images or own.get("image") != digest else own.get("version")
        version = resolved.version or known
        about = {
            "image": digest,
            **({"uri": resolved.uri} if resolved.uri else {}),
            **({"routing": hit["_routing"]} if "_routing" in hit else {}),
        }
        return SourceItem(uri, self.uri, resolved.locator, version, {ANNOTATION_FIELD: about}, hit["_id"])


def get_annotatable_index(cluster: Cluster, name: str) -> tuple[str, Mapping[str, Any]]:
    """Get the concrete index that an index or alias names, as the GET index API describes it.

    Raises:
        IndexNotFound: If there is none.
        IndexMismatch: If there are several, ingest made it, or its documents can't get fields without losing others.
    """
    if not cluster.call(cluster.client.indices.exists, index=name):
        raise IndexNotFound(f"there is no index or alias {name!r} at {cluster.connection.safe_url}", "Check --index.")
    found: Mapping[str, Any] = cluster.call(cluster.client.indices.get, index=name)
    if len(found) != 1:
        raise IndexMismatch(
            f"{name!r} names {len(found)} indices: {', '.join(sorted(found)[:5])}",
            "Annotate each of them: --index NAME",
            code="several-indices",
        )
    [(concrete, index)] = found.items()
    check_not_token_index(concrete, index)
    if is_ingest_index(index):
        raise IndexMismatch(
            f"index {concrete!r} was made by stair-es ingest, which keeps it up to date",
            "Run stair-es ingest again.",
            code="index-of-ingest",
        )
    if index.get("aliases", {}).get(name, {}).get("filter"):
        raise IndexMismatch(
            f"{name!r} is an alias with a filter, and all documents of {concrete!r} would be annotated",
            f"If they may be, name the index: --index {concrete}",
            code="filtered-alias",
        )
    if reason := _explain_unwritable(index):
        raise IndexMismatch(
            f"the documents of {concrete!r} can't get fields: {reason}",
            "Ingest the images into an index of their own: stair-es ingest",
            code="index-without-updates",
        )
    return concrete, index


def _explain_unwritable(index: Mapping[str, Any]) -> str:
    """Return why updates would fail, or lose fields, since an update indexes what `_source` has; "" if they don't."""
    mapping = index["mappings"]
    source = mapping.get("_source", {})
    if source.get("enabled") is False or source.get("excludes") or source.get("includes"):
        return "its `_source` is disabled or incomplete"
    if "data_stream" in index:
        return "it belongs to a data stream"
    return "a `semantic_text` field allows no scripts" if _has_type(mapping, "semantic_text") else ""


def _has_type(definition: Mapping[str, Any], type_: str) -> bool:
    inner = definition.get("properties", {}).values()
    return definition.get("type") == type_ or any(_has_type(each, type_) for each in inner)


@dataclass(frozen=True, kw_only=True)
class AnnotatingWriter(BulkWriter):
    """Adds fields to documents that exist. One that was deleted in between counts as done."""

    fields: tuple[str, ...] = field(default=())
    """The fields that belong to stair-es in this index, without `ANNOTATION_FIELD`."""

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Look up what was written before, by a search: routing doesn't matter for it."""
        body = {
            "size": len(ids),
            "query": {"ids": {"values": list(ids)}},
            "_source": [ANNOTATION_FIELD],
            "track_total_hits": False,
        }
        hits = self.cluster.search(self.index, body)["hits"]["hits"]
        owned = {hit["_id"]: own for hit in hits if isinstance(own := hit.get("_source", {}).get(ANNOTATION_FIELD), Mapping)}
        return {
            id_: StoredVersion(
                id=id_, uri="", sha256=own.get("sha256", ""), fingerprint=own.get("fingerprint", ""), version=own.get("version")
            )
            for id_, own in owned.items()
        }

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """Find nothing: the documents have ids of their own."""
        return {}

    def write(self, documents: Documents, chunk_bytes: int | None = None) -> BulkResult:
        """Add the fields of `build_document` to the documents with these ids."""
        return self._write_actions(partial(build_annotate_action, names=self.fields), documents, chunk_bytes)

    def update(self, documents: Documents) -> BulkResult:
        """Update the recorded version of images that are the same."""
        return self._write_actions(build_version_action, documents)

    def clear(self, documents: Sequence[WrittenDocument]) -> int:
        """Remove our fields from documents, and return how many are done."""
        named = [(id_, {"routing": routing}) for id_, routing in documents]
        outcomes = self._write_actions(partial(build_clear_action, names=self.fields), named).outcomes
        failed = {id_: reason for id_, reason in outcomes.items() if reason is not None}
        if failed:
            id_, reason = next(iter(failed.items()))
            logger.warning("%s documents keep token weights of another image, such as %s: %s", f"{len(failed):,}", id_, reason)
        return len(outcomes) - len(failed)


@dataclass(kw_only=True)
class AnnotateSession(SinkSession):
    """The `SinkSession` of a run that annotates."""

    writer: AnnotatingWriter
    index: str
    label: str
    source: IndexSource
    model_id: str
    is_empty: bool = False

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """Yield nothing: a document of another program is never removed."""
        yield from ()

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete nothing."""
        return BulkResult()

    def complete(self, coverage: RunCoverage) -> SinkResult:
        """Remove token weights of images that are gone or can't be read, and those of another model."""
        cleared = 0
        self.writer.cluster.refresh(self.index)
        for batch in batched(self.source.list_outdated(self.index), _CLEARED_TOGETHER):
            cleared += self.writer.clear(batch)
        self.writer.cluster.refresh(self.index)
        while batch := self._find_other_models():
            done = self.writer.clear(batch)
            self.writer.cluster.refresh(self.index)
            cleared += done
            if not done:
                break
        if cleared:
            logger.info("%s documents have no token weights any more: their image is gone or can't be read", f"{cleared:,}")
        return SinkResult()

    def _find_other_models(self) -> list[WrittenDocument]:
        """Find some of the documents that still have token weights of another model."""
        of_model = f"{ANNOTATION_FIELD}.model"
        query = {"bool": {"filter": [{"exists": {"field": of_model}}], "must_not": [{"term": {of_model: self.model_id}}]}}
        body = {"size": _CLEARED_TOGETHER, "query": query, "_source": False, "track_total_hits": False}
        return [(hit["_id"], hit.get("_routing")) for hit in self.writer.cluster.search(self.index, body)["hits"]["hits"]]


@dataclass(frozen=True)
class AnnotateSinkKind(SinkKind):
    """The sink of the documents that a source lists."""

    source: IndexSource
    name = "annotate"
    description = "documents of another program, which get token weights"

    def open(self, plan: SinkPlan) -> AnnotateSession:
        """Add the fields and the model to the mapping."""
        session, mapping = self._prepare(plan)
        assert isinstance(plan, ClusterPlan)
        before = get_index_meta({"mappings": mapping})
        if before and before.get("model") != plan.index_spec.model_id:
            logger.warning(
                "%s has tokens of the model %s: until this run is complete, it has those of both",
                session.index,
                before.get("model"),
            )
        names = session.writer.fields
        annotates = {"image_field": self.source.options.image_field, "fields": list(names)}
        own_meta = {**before, **build_index_meta(plan.index_spec), "annotates": annotates}
        properties = {**build_document_properties(names), ANNOTATION_FIELD: OWN_MAPPING}
        body = {"properties": properties, "_meta": {**mapping.get("_meta", {}), "stair_es": own_meta}}
        cluster = session.writer.cluster
        ensure_write_alias(cluster, session.index)
        cluster.call(cluster.client.indices.put_mapping, index=session.index, body=body)
        return session

    def open_readonly(self, plan: SinkPlan) -> AnnotateSession:
        """Check what `open` checks, without changes."""
        return self._prepare(plan)[0]

    def _prepare(self, plan: SinkPlan) -> tuple[AnnotateSession, Mapping[str, Any]]:
        assert isinstance(plan, ClusterPlan)
        assert isinstance(plan.connection, Connection)
        cluster = open_shared_cluster(plan.connection)
        check_script_support(cluster)
        name, index = get_annotatable_index(cluster, self.source.options.index)
        mapping: Mapping[str, Any] = index["mappings"]
        meta, options = get_index_meta(index), self.source.options
        before = meta.get("annotates", {}).get("image_field", options.image_field)
        if before != options.image_field and not options.change_field:
            raise IndexMismatch(
                f"index {name!r} was annotated by the field {before!r}, not {options.image_field!r}",
                "If the images are in the other field now, add --change-field: tokens of all other documents are removed.",
                code="other-image-field",
            )
        names = choose_fields(mapping, meta)
        session = AnnotateSession(
            writer=AnnotatingWriter(cluster=cluster, index=name, policy=plan.bulk, fields=tuple(names)),
            index=name,
            label=get_cluster_info(cluster, RetryPolicy()).label,
            source=self.source,
            model_id=plan.index_spec.model_id,
        )
        return session, mapping
