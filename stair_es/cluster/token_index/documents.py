"""The documents of a token index, one for each of the heaviest tokens of an image, and readers of both indices, page by page.

Charts average and count these documents, since no cluster aggregates `rank_features`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import parse_token_weights
from stair_es.cluster.documents.read import WriteVersion, count_matches, get_documents_by_id, paginate_hits
from stair_es.errors import IndexMismatch
from stair_es.types import SparseVector

PAGE_SIZE = 1000
"""Images compared at once: within the bucket limit of any cluster."""
_MAX_HITS = 10_000
"""Default of `index.max_result_window`."""
TOKEN_INDEX_VERSION = 3
"""Part of each source version: increment it when the same image would give other documents."""

VERSIONED_FIELDS = ("fingerprint", "policy")
"""Fields of an image's document that are part of its source version, in addition to the version of the write."""
COPIED_FIELDS = ("uri", "name", "source", "caption", "colors", "model", "taken_at", "ingested_at")

TokenDocuments: TypeAlias = dict[str, dict[str, Any]]
"""`_id` -> `_source`."""


def compute_source_version(fields: Mapping[str, Any], write: WriteVersion) -> str:
    """Compute the source version of an image's token documents: if it changes, they have to be written again.

    The version of the write covers what the fingerprint doesn't: a document that was edited by hand, an image that has moved.
    """
    values = (_get_text(fields.get(name)) or "-" for name in VERSIONED_FIELDS)
    return ".".join((str(TOKEN_INDEX_VERSION), *values, str(write.seq_no), str(write.primary_term)))


def build_token_documents(id_: str, source: Mapping[str, Any], source_version: str, top_token_count: int) -> TokenDocuments:
    """Build one document for each of the heaviest tokens of an image; none without `top_tokens`.

    Raises:
        ValueError: If its `tokens` aren't token weights: not every document was written by stair-es.
    """
    if not source.get("top_tokens"):
        return {}
    vector = _parse_vector(source.get("tokens"))
    total = math.fsum(vector.weights)
    image = {
        "image_id": id_,
        "token_count": len(vector),
        **{name: source[name] for name in COPIED_FIELDS if _is_text(source.get(name))},
        "source_version": source_version,
    }
    return {
        f"{id_}-{rank}": {**image, "token": token, "weight": weight, "rank": rank, "weight_share": weight / total}
        for rank, (token, weight) in enumerate(vector.top(top_token_count), start=1)
    }


def _parse_vector(tokens: object) -> SparseVector:
    if tokens is None:
        raise ValueError("it has `top_tokens`, but no `tokens` in its _source")
    if not isinstance(tokens, Mapping):
        raise ValueError(f"its `tokens` are not an object of tokens and weights, but {type(tokens).__name__}")
    try:
        return SparseVector.from_mapping(parse_token_weights(tokens))
    except TypeError as error:
        raise ValueError(f"its `tokens` contain an invalid weight: {error}") from error


def _is_text(value: object) -> bool:
    """Return whether a value is a text or a list of texts: a column with one of these names may contain anything."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))


def _get_text(value: object) -> str:
    if isinstance(value, list):
        value = value[0] if value else ""
    return str(value or "")


@dataclass(frozen=True)
class SourceDocument:
    """The fields of an image's document that its token documents need."""

    source: Mapping[str, Any]
    version: WriteVersion

    @property
    def source_version(self) -> str:
        """Source version of the token documents."""
        return compute_source_version(self.source, self.version)


def check_pageable_mapping(properties: Mapping[str, Any], where: str) -> None:
    """Raise IndexMismatch if images with these fields can't be read page by page, sorted as ingest does."""
    missing = [name for name in ("uri", "sha256") if not _has_doc_values(properties.get(name, {}))]
    if missing:
        raise IndexMismatch(
            f"{where} can't have a token index: no doc values for {', '.join(missing)}",
            "Remove `doc_values` from the --mapping file, or omit --token-index.",
            code="no-doc-values",
        )


@dataclass(frozen=True, kw_only=True)
class ImageIndexReader:
    """Reads the image index."""

    cluster: Cluster
    index: str
    properties: Mapping[str, Any]

    @property
    def token_query(self) -> dict[str, Any]:
        """Query for images with tokens; if `top_tokens` can't be searched, for all images."""
        field = self.properties.get("top_tokens", {})
        searchable = field.get("type") == "keyword" and (field.get("index", True) or field.get("doc_values", True))
        fields = ["uri", "top_tokens"] if searchable else ["uri"]
        return {"bool": {"filter": [{"exists": {"field": name}} for name in fields]}}

    def iterate_source_versions(self) -> Iterator[dict[str, str]]:
        """Iterate over id -> source version of the images with tokens, in the order of their URIs; see `scan_documents`."""
        columns = [name for name in VERSIONED_FIELDS if _has_doc_values(self.properties.get(name, {}))]
        others = [name for name in VERSIONED_FIELDS if name not in columns]
        body = {"query": self.token_query, "_source": others or False, "docvalue_fields": columns, "seq_no_primary_term": True}
        for hits in paginate_hits(self.cluster, self.index, body, size=PAGE_SIZE):
            yield {
                hit["_id"]: compute_source_version(
                    {**hit.get("_source", {}), **hit.get("fields", {})}, WriteVersion.from_hit(hit)
                )
                for hit in hits
            }

    def filter_with_tokens(self, ids: Sequence[str]) -> set[str]:
        """Filter the ids of images that exist and have tokens."""
        query = {"bool": {"filter": [{"ids": {"values": list(ids)}}, self.token_query]}}
        body = {"size": len(ids), "query": query, "_source": False, "track_total_hits": False}
        return {hit["_id"] for hit in self.cluster.search(self.index, body)["hits"]["hits"]}

    def get_documents(self, ids: Sequence[str]) -> dict[str, SourceDocument]:
        """Get the images that exist among `ids`, in real time."""
        docs = get_documents_by_id(self.cluster, self.index, ids, ("tokens", "top_tokens", *VERSIONED_FIELDS, *COPIED_FIELDS))
        return {doc["_id"]: SourceDocument(doc.get("_source", {}), WriteVersion.from_hit(doc)) for doc in docs}

    def get_versions(self, ids: Sequence[str]) -> dict[str, WriteVersion]:
        """Get the stored version of each document, in real time."""
        return {doc["_id"]: WriteVersion.from_hit(doc) for doc in get_documents_by_id(self.cluster, self.index, ids, ())}


@dataclass(frozen=True, kw_only=True)
class TokenSummary:
    """The token documents of one image."""

    documents: int
    token_count: int | None
    """Number of tokens of the image, as stored in these documents."""
    source_version: str | None
    """None if there are several, or none: then some documents are stale."""

    def is_up_to_date(self, source_version: str, top_token_count: int) -> bool:
        """Return whether these are all the documents for an image with this source version."""
        return (
            self.source_version == source_version
            and self.token_count is not None
            and self.documents == min(top_token_count, self.token_count)
        )


@dataclass(frozen=True, kw_only=True)
class TokenIndexReader:
    """Reads the token index, as of its last refresh."""

    cluster: Cluster
    index: str

    def summarize_images(self, ids: Sequence[str]) -> dict[str, TokenSummary]:
        """Summarize the token documents of each of these images."""
        if not ids:
            return {}
        aggs = {
            "source_versions": {"terms": {"field": "source_version", "size": 2, "execution_hint": "map"}},
            "token_count": {"max": {"field": "token_count"}},
        }
        images = {"terms": {"field": "image_id", "size": len(ids), "execution_hint": "map"}, "aggs": aggs}
        body = {"size": 0, "query": _build_image_filter(ids), "aggs": {"images": images}}
        buckets = self.cluster.search(self.index, body)["aggregations"]["images"]["buckets"]
        return {bucket["key"]: _parse_bucket(bucket) for bucket in buckets}

    def iterate_image_ids(self) -> Iterator[list[str]]:
        """Iterate over the ids of all images that have token documents, page by page."""
        composite: dict[str, Any] = {"size": PAGE_SIZE, "sources": [{"id": {"terms": {"field": "image_id"}}}]}
        while True:
            body = {"size": 0, "aggs": {"images": {"composite": composite}}}
            page = self.cluster.search(self.index, body)["aggregations"]["images"]
            ids = [bucket["key"]["id"] for bucket in page["buckets"]]
            if ids:
                yield ids
            if len(ids) < PAGE_SIZE:
                return
            composite = {**composite, "after": page["after_key"]}

    def list_document_ids(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """List the ids of the token documents by the id of the image."""
        body = {
            "size": _MAX_HITS,
            "query": _build_image_filter(ids),
            "_source": False,
            "docvalue_fields": ["image_id"],
            "track_total_hits": False,
        }
        found: dict[str, set[str]] = {}
        for hit in self.cluster.search(self.index, body)["hits"]["hits"]:
            found.setdefault(hit["fields"]["image_id"][0], set()).add(hit["_id"])
        return found

    def count_documents(self) -> int:
        """Count the token documents."""
        return count_matches(self.cluster, self.index, {"match_all": {}})

    def count_images(self) -> int:
        """Count the images that have token documents."""
        return count_matches(self.cluster, self.index, {"term": {"rank": 1}})


def _build_image_filter(ids: Sequence[str]) -> dict[str, Any]:
    return {"bool": {"filter": [{"terms": {"image_id": list(ids)}}]}}


def _parse_bucket(bucket: Mapping[str, Any]) -> TokenSummary:
    versions, token_count = bucket["source_versions"], bucket["token_count"]["value"]
    is_consistent = len(versions["buckets"]) == 1 and versions["buckets"][0]["doc_count"] == bucket["doc_count"]
    return TokenSummary(
        documents=bucket["doc_count"],
        token_count=None if token_count is None else int(token_count),
        source_version=versions["buckets"][0]["key"] if is_consistent else None,
    )


def _has_doc_values(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "keyword" and field.get("doc_values", True) is not False
