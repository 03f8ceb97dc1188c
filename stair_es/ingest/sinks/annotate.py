"""Annotate an index that belongs to another program: an ingest whose source and sink are the same documents.

The images are those that a field of the documents names or holds. Each document gets `tokens`, `top_tokens`, the object
`stair_es`, and those of `OPTIONAL_FIELDS` that the mapping doesn't have yet: a field of the other program is never changed. What
`stair_es` records makes a later run skip the documents whose image is the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from stair_es.cluster.bulk.actions import SerializedAction
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster, open_shared_cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import ANNOTATION_FIELD
from stair_es.cluster.documents.read import find_last_writes, scan_writes
from stair_es.cluster.index.mappings import build_document_properties
from stair_es.cluster.metadata.index_metadata import build_index_meta, check_not_token_index, get_index_meta
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.cluster.metadata.policy_state import POLICY_FIELDS, parse_policy_state
from stair_es.errors import IndexMismatch, IndexNotFound, IngestError, UsageError
from stair_es.ingest.sinks.base import Documents, RunCoverage, SinkKind, SinkPlan, SinkResult, SinkSession
from stair_es.ingest.sinks.cluster_options import ClusterPlan
from stair_es.retry import RetryPolicy
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.resolve import resolve_image_reference
from stair_es.sources.io.uris import from_file_uri
from stair_es.store import BulkResult, IndexedDocument, StoredVersion
from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

REQUIRED_FIELDS = ("tokens", "top_tokens", ANNOTATION_FIELD)
OPTIONAL_FIELDS = ("uri", "sha256", "perceptual_hash", "width", "height", "colors", "thumbnail")
"""Fields for links, duplicates, conditions on colors and the page, written if the mapping doesn't have them."""
_SIZE_FIELDS = {"width", "height"}
_OWN_MAPPING: Mapping[str, Any] = {
    "properties": {
        "model": {"type": "keyword"},
        "annotated_at": {"type": "date"},
        **{
            name: {"type": "keyword", "index": False, "doc_values": False}
            for name in ("image", "sha256", "version", "fingerprint")
        },
    }
}
_UNKNOWN_VERSION = "unknown"
_PAGE_SIZE = 500
_ANNOTATE = """
if (ctx._source.stair_es == null) {
  for (def name : params.fields.keySet()) {
    if (ctx._source.containsKey(name)) { throw new IllegalArgumentException("the document has its own field " + name) }
  }
}
for (def name : params.absent) { ctx._source.remove(name) }
ctx._source.putAll(params.fields)
"""
"""A partial document would be merged into the old one, and keep tokens of an earlier image."""


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """Which documents are annotated, and where their images are."""

    index: str
    """The index, or an alias of a single one."""
    image_field: str
    """Field with the image, with dots for objects: a URL, a path, or base64. Of a list, the first one counts."""
    image_base: str = ""
    """Folder or URL that relative paths begin at. Files are read only below such a folder: an index is data of others."""
    check_images: bool = False
    """Ask for each image whether it has changed, instead of comparing what the documents name."""


class IndexSource:
    """The `Source` of the images of an index."""

    ignored: Mapping[str, int] = {}
    can_reread = False
    """Dead letters hold each image: reading the index again is another run."""

    def __init__(self, cluster: Cluster, options: AnnotateOptions) -> None:
        """Use the documents as of the first page: what is written later belongs to the next run."""
        self._cluster, self._options = cluster, options
        base = options.image_base
        self._folder = None if not base or "://" in base else Path(base).expanduser().resolve()
        self._base = base.rstrip("/") if self._folder is None else self._folder.as_uri()
        self.without_image = 0
        """Documents whose field has no value."""

    @property
    def uri(self) -> str:
        """Return the `source` of the items."""
        return f"index://{self._options.index}"

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the image of each document that has one."""
        name, index = get_annotatable_index(self._cluster, self._options.index)
        self._cluster.refresh(name)
        writes = find_last_writes(self._cluster, name, int(index["settings"]["index"]["number_of_shards"]))
        fields, found = [self._options.image_field, ANNOTATION_FIELD], False
        for hit in scan_writes(self._cluster, name, writes, fields, _PAGE_SIZE):
            value = get_image_value(hit.get("_source", {}), self._options.image_field)
            if value is None or value == "":
                self.without_image += 1
                continue
            found = True
            yield self._build_item(hit, value)
        if not found:
            names = ", ".join(sorted(index["mappings"].get("properties", {})))
            raise IngestError(
                f"no document of {name!r} has a value in {self._options.image_field!r}",
                f"Choose the field with --image-field. The index has: {names or 'no field'}.",
                code="no-images",
            )

    def _build_item(self, hit: Mapping[str, Any], value: object) -> SourceItem | ListingFailure:
        uri, options = f"{self.uri}/{quote(hit['_id'], safe='')}", self._options
        if not isinstance(value, str):
            return ListingFailure(uri, self.uri, f"{options.image_field!r} holds a {type(value).__name__}, not a string")
        is_remote_base = self._base and self._folder is None
        resolved = resolve_image_reference(value.lstrip("/") if is_remote_base else value, self._base or "file:///")
        if isinstance(resolved, str):
            return ListingFailure(uri, self.uri, resolved)
        if isinstance(resolved.locator, FileLocator) and not self._contains(resolved.locator):
            return ListingFailure(uri, self.uri, "a local path: files are read only below --image-base FOLDER")
        own = hit["_source"].get(ANNOTATION_FIELD) or {}
        version = resolved.version or (None if options.check_images else own.get("version"))
        about = {
            "image": hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:32],
            **({"uri": resolved.uri} if resolved.uri else {}),
            **({"routing": hit["_routing"]} if "_routing" in hit else {}),
        }
        return SourceItem(uri, self.uri, resolved.locator, version, {ANNOTATION_FIELD: about}, hit["_id"])

    def _contains(self, locator: FileLocator) -> bool:
        return self._folder is not None and from_file_uri(locator.uri).resolve().is_relative_to(self._folder)


def get_image_value(source: object, path: str) -> object:
    """Get the value at a dotted path of a document; of a list, the first one that is there."""
    if isinstance(source, list):
        return next((value for each in source if (value := get_image_value(each, path)) is not None), None)
    if not path:
        return source
    if not isinstance(source, Mapping):
        return None
    if path in source:  # a name may contain dots
        return get_image_value(source[path], "")
    head, _, rest = path.partition(".")
    return get_image_value(source.get(head), rest) if rest else None


def get_annotatable_index(cluster: Cluster, name: str) -> tuple[str, Mapping[str, Any]]:
    """Get the concrete index that an index or alias names, as the GET index API describes it.

    Raises:
        IndexNotFound: If there is none.
        IndexMismatch: If there are several, ingest made it, or its documents can't get fields.
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
    if "digest" in get_index_meta(index):
        raise IndexMismatch(
            f"index {concrete!r} was made by stair-es ingest, which keeps it up to date",
            "Run stair-es ingest again.",
            code="index-of-ingest",
        )
    if index["mappings"].get("_source", {}).get("enabled") is False:
        raise IndexMismatch(
            f"index {concrete!r} doesn't store its documents (`_source` is disabled): they can't get fields",
            "Ingest the images into an index of their own: stair-es ingest",
            code="index-without-source",
        )
    return concrete, index


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
        return super().update([(id_, {ANNOTATION_FIELD: {"version": values["version"]}}) for id_, values in documents])


def build_annotate_action(id_: str, document: Mapping[str, Any], names: Sequence[str]) -> SerializedAction:
    """Build an `update` action that replaces the fields `names` of a document by those of a `build_document`."""
    about = dict(document[ANNOTATION_FIELD])
    routing = {"routing": about.pop("routing")} if "routing" in about else {}
    values = {**document, "uri": about.pop("uri", document["uri"])}
    own = {
        **about,
        **{name: document[name] for name in ("model", "sha256", "fingerprint")},
        "version": document.get("version") or _UNKNOWN_VERSION,
        "annotated_at": document["ingested_at"],
    }
    fields = {name: values[name] for name in names if name in values}
    params = {"fields": {**fields, ANNOTATION_FIELD: own}, "absent": [name for name in names if name not in values]}
    script = {"lang": "painless", "source": _ANNOTATE, "params": params}
    action = {"update": {"_id": id_, "retry_on_conflict": 3, **routing}}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"script": script}) + b"\n"


@dataclass(kw_only=True)
class AnnotateSession(SinkSession):
    """The `SinkSession` of a run that annotates."""

    writer: AnnotatingWriter
    index: str
    label: str
    policy: TokenPolicy | None
    is_empty: bool = False

    def choose_policy(self, requested: TokenPolicy | None) -> TokenPolicy | None:
        """Return the policy of the index."""
        return self.policy

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """Yield nothing: a document of another program is never removed."""
        yield from ()

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete nothing."""
        return BulkResult()

    def complete(self, coverage: RunCoverage) -> SinkResult:
        """Refresh the index."""
        self.writer.cluster.refresh(self.index)
        return SinkResult()


@dataclass(frozen=True)
class AnnotateSinkKind(SinkKind):
    """The sink of documents that exist."""

    options: AnnotateOptions
    name = "annotate"
    description = "documents of another program, which get token weights"

    def open(self, plan: SinkPlan) -> AnnotateSession:
        """Add the fields and the model to the mapping."""
        assert isinstance(plan, ClusterPlan)
        cluster, name, mapping = self._prepare(plan)
        before = get_index_meta({"mappings": mapping})
        if before and before.get("model") != plan.index_spec.model_id:
            logger.warning(
                "%s has tokens of the model %s: until this run is complete, it has those of both", name, before.get("model")
            )
        names = choose_fields(mapping.get("properties", {}), before)
        annotates = {"image_field": self.options.image_field, "fields": names}
        kept = {key: value for key, value in before.items() if key.startswith("policy")}
        meta = {**mapping.get("_meta", {}), "stair_es": {**build_index_meta(plan.index_spec), **kept, "annotates": annotates}}
        properties = {**build_document_properties(names), ANNOTATION_FIELD: _OWN_MAPPING}
        cluster.call(cluster.client.indices.put_mapping, index=name, body={"properties": properties, "_meta": meta})
        ensure_write_alias(cluster, name)
        return self._build_session(plan, cluster, name, mapping, names)

    def open_readonly(self, plan: SinkPlan) -> AnnotateSession:
        """Check what `open` checks, without changes."""
        assert isinstance(plan, ClusterPlan)
        cluster, name, mapping = self._prepare(plan)
        names = choose_fields(mapping.get("properties", {}), get_index_meta({"mappings": mapping}))
        return self._build_session(plan, cluster, name, mapping, names)

    def _prepare(self, plan: ClusterPlan) -> tuple[Cluster, str, Mapping[str, Any]]:
        assert isinstance(plan.connection, Connection)
        cluster = open_shared_cluster(plan.connection)
        name, index = get_annotatable_index(cluster, self.options.index)
        return cluster, name, index["mappings"]

    def _build_session(
        self, plan: ClusterPlan, cluster: Cluster, name: str, mapping: Mapping[str, Any], names: Sequence[str]
    ) -> AnnotateSession:
        policy = parse_policy_state({"mappings": mapping}, name).policy
        fields = (*names, *(POLICY_FIELDS if policy else ()))
        return AnnotateSession(
            writer=AnnotatingWriter(cluster=cluster, index=name, policy=plan.bulk, fields=fields),
            index=name,
            label=get_cluster_info(cluster, RetryPolicy()).label,
            policy=policy,
        )


def choose_fields(properties: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    """Choose the fields of documents that are ours, without `ANNOTATION_FIELD`: those of an earlier run, and those that are free.

    Raises:
        UsageError: If a required one belongs to the other program.
    """
    ours = meta.get("annotates", {}).get("fields", [])
    if taken := [name for name in REQUIRED_FIELDS if name in properties and not ours]:
        raise UsageError(
            f"the index has its own fields {', '.join(taken)}, which token weights need",
            "Ingest the images into an index of their own: stair-es ingest",
            code="fields-taken",
        )
    free = {name for name in (*REQUIRED_FIELDS, *OPTIONAL_FIELDS) if name in ours or name not in properties}
    if not free >= _SIZE_FIELDS:  # half of ours and half of theirs would be the shape of no picture
        free -= _SIZE_FIELDS
    return [name for name in (*REQUIRED_FIELDS, *OPTIONAL_FIELDS) if name in free and name != ANNOTATION_FIELD]
