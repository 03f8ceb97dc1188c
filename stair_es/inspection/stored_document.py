"""Read stored documents: the vector of an image, and the other fields."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.retry import NO_RETRY
from stair_es.cluster.documents.document import ANNOTATION_FIELD, parse_policy_undo, parse_token_vector
from stair_es.search.dsl.weights import HEAVY_SCORE
from stair_es.token_policy import PolicyUndo
from stair_es.types import SparseVector, is_utf8

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster

_SKIPPED_FIELDS = ("impacts", "thumbnail", "labels_undo", ANNOTATION_FIELD)
"""Large, or redundant with the tokens."""
_SOURCE_FILTER = {"includes": ["*", "tokens"], "excludes": list(_SKIPPED_FIELDS)}
"""Elasticsearch 9 may exclude vectors from `_source`, unless they are included by name."""
_BATCH_SIZE = 500
_MAX_HITS = 1000
_NEWEST = {"ingested_at": {"order": "desc", "unmapped_type": "date"}}
_MAX_REFERENCE_CHARS = 8191
"""Maximum length of a searchable id or URI; Elasticsearch 9 rejects much longer ones."""
_DATA_URI = re.compile(r"data:(?P<type>image/(?:webp|jpeg|png));base64,(?P<data>.*)", re.DOTALL)
_SIGNATURES = {"image/webp": (b"RIFF", b"WEBP"), "image/jpeg": (b"\xff\xd8\xff", b""), "image/png": (b"\x89PNG\r\n\x1a\n", b"")}
"""Content type -> first bytes of such data, and bytes from offset 8."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """A stored document."""

    id: str
    index: str
    """The concrete index, not the alias."""
    uri: str
    """Empty for a document without one."""
    vector: SparseVector
    """All tokens with their original spelling, heaviest first, without those that no query can find."""
    source: Mapping[str, Any]
    """The document without tokens, thumbnail and internal fields."""
    undo: PolicyUndo = field(default_factory=PolicyUndo)
    """What a token policy changed."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail image."""

    content_type: str
    data: bytes


def find_stored_image(cluster: Cluster, index: str, reference: str) -> StoredImage | None:
    """Find the document with this id, else the newest with this URI; None if there is none.

    It searches: it sees what was written before the last refresh. The name may refer to several indices.
    """
    if not _is_searchable_reference(reference):
        return None
    by_id = {"constant_score": {"filter": {"ids": {"values": [reference]}}, "boost": 2 * HEAVY_SCORE}}
    by_uri = {"constant_score": {"filter": {"term": {"uri": reference}}, "boost": HEAVY_SCORE}}
    body = {"size": 1, "query": {"bool": {"should": [by_id, by_uri]}}, "_source": _SOURCE_FILTER}
    hits = _search(cluster, index, {**body, "sort": [{"_score": {"order": "desc"}}, _NEWEST]})
    return parse_stored_image(hits[0]) if hits else None


def find_stored_by_content(cluster: Cluster, index: str, sha256: str) -> StoredImage | None:
    """Find the newest document of an image with these bytes, regardless of its URI; None if there is none."""
    same = {"term": {"sha256": sha256}}
    hits = _search(cluster, index, {"size": 1, "query": same, "_source": _SOURCE_FILTER})
    return parse_stored_image(hits[0]) if hits else None


def get_stored_images(cluster: Cluster, index: str, ids: Sequence[str]) -> dict[str, StoredImage]:
    """Get `{id: document}` for those of `ids` that exist, in their order; the newest of several with the same id."""
    searchable = [id_ for id_ in dict.fromkeys(ids) if _is_searchable_reference(id_)]
    found: dict[str, StoredImage] = {}
    for start in range(0, len(searchable), _BATCH_SIZE):
        for hit in _search_by_ids(cluster, index, searchable[start : start + _BATCH_SIZE]):
            found.setdefault(hit["_id"], parse_stored_image(hit))
    return {id_: found[id_] for id_ in searchable if id_ in found}


def get_stored_fields(cluster: Cluster, index: str, id_: str, fields: Sequence[str]) -> dict[str, Any] | None:
    """Get some fields of the newest document with this id; None if there is none."""
    if not _is_searchable_reference(id_):
        return None
    body = {"size": 1, "query": {"ids": {"values": [id_]}}, "_source": list(fields)}
    hits = _search(cluster, index, body)
    return (hits[0].get("_source") or {}) if hits else None


def get_stored_thumbnail(cluster: Cluster, index: str, id_: str) -> Thumbnail | None:
    """Get the thumbnail of the document with this id; None if there is no such document, or no thumbnail in it."""
    return parse_thumbnail((get_stored_fields(cluster, index, id_, ["thumbnail"]) or {}).get("thumbnail"))


def parse_thumbnail(value: object) -> Thumbnail | None:
    """Parse a data URI; None unless it is WebP, JPEG or PNG and its content has that format. Pure function."""
    match = _DATA_URI.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        data = base64.b64decode(match["data"], validate=True)
    except (binascii.Error, ValueError):
        return None
    start, rest = _SIGNATURES[match["type"]]
    is_valid = data.startswith(start) and data[8:].startswith(rest)
    return Thumbnail(content_type=match["type"], data=data) if is_valid else None


def parse_stored_image(hit: Mapping[str, Any]) -> StoredImage:
    """Parse an element of `hits.hits`. Pure function."""
    source = dict(hit.get("_source") or {})
    undo = parse_policy_undo(source)
    tokens = source.pop("tokens", None)
    for name in (*_SKIPPED_FIELDS, "policy_undo"):
        source.pop(name, None)
    uri = source.get("uri")
    return StoredImage(
        id=hit["_id"],
        index=str(hit.get("_index", "")),
        uri=uri if isinstance(uri, str) else "",
        vector=parse_token_vector(tokens),
        source=source,
        undo=undo,
    )


def _is_searchable_reference(reference: str) -> bool:
    return 0 < len(reference) <= _MAX_REFERENCE_CHARS and is_utf8(reference)


def _search_by_ids(cluster: Cluster, index: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the documents of some ids, the newest first for each id. Requests are split if many indices have the same ids."""
    body = {"size": _MAX_HITS, "query": {"ids": {"values": list(ids)}}, "_source": _SOURCE_FILTER}
    hits = _search(cluster, index, body)
    if len(hits) < _MAX_HITS or len(ids) == 1:
        yield from hits
        return
    middle = len(ids) // 2
    yield from _search_by_ids(cluster, index, ids[:middle])
    yield from _search_by_ids(cluster, index, ids[middle:])


def _search(cluster: Cluster, index: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Search, by default the newest first. An unavailable shard fails the request: its documents must not count as missing."""
    request = {"sort": [_NEWEST], **body, "track_total_hits": False}
    hits: list[dict[str, Any]] = cluster.search(index, request, retry=NO_RETRY)["hits"]["hits"]
    return hits
