"""One image as an index holds it: all its words, and the document around them."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents import stored_words, undo_of
from stair_es.cluster.failures import translated
from stair_es.policy import Undo
from stair_es.search.clauses import sendable
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection

_UNREAD = ("impacts", "token_ids", "thumbnail")
"""Large, and the words once more."""
_READ = {"includes": ["*", "tokens"], "excludes": list(_UNREAD)}
"""Elasticsearch 9 may be set to leave vectors out of `_source`, but not where they are asked for by name."""
_AT_ONCE = 500
"""Ids asked for in one request."""
_MOST_HITS = 1000
_LONGEST = 8191
"""No id and no URI that can be searched has more characters; Elasticsearch 9 refuses much longer ones."""
_DATA_URI = re.compile(r"data:(?P<type>image/(?:webp|jpeg|png));base64,(?P<data>.*)", re.DOTALL)
_BEGINNINGS = {"image/webp": (b"RIFF", b"WEBP"), "image/jpeg": (b"\xff\xd8\xff", b""), "image/png": (b"\x89PNG\r\n\x1a\n", b"")}
"""Content type -> what such data begins with, and what it has from its eighth byte on."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """A document."""

    id: str
    index: str
    """The index that holds it, not the alias."""
    uri: str
    """Empty for a document that has none."""
    vector: SparseVector
    """All words as people write them, heaviest first; what no query could find is left out."""
    source: Mapping[str, Any]
    """The document without words, thumbnail and what is internal."""
    undo: Undo = field(default_factory=Undo)
    """What a word policy changed."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture."""

    content_type: str
    data: bytes


def stored(client: OpenSearch, connection: Connection, index: str, reference: str) -> StoredImage | None:
    """The document with this id, else the newest with this URI; None if there is none.

    A search: it sees what was written before the last refresh. The name may stand for several indices.

    Raises:
        ClusterError: The cluster failed the request, or could answer for a part of the index only.
    """
    if not _may_be(reference):
        return None
    by_id = {"constant_score": {"filter": {"ids": {"values": [reference]}}, "boost": 2.0}}
    by_uri = {"constant_score": {"filter": {"term": {"uri": reference}}, "boost": 1.0}}
    body = {"size": 1, "query": {"bool": {"should": [by_id, by_uri]}}, "_source": _READ}
    hits = _search(client, connection, index, body)
    return image_of(hits[0]) if hits else None


def stored_by_content(client: OpenSearch, connection: Connection, index: str, sha256: str) -> StoredImage | None:
    """The newest document of an image with these bytes, whatever its URI; None if there is none.

    Raises:
        ClusterError: As for `stored`.
    """
    same = {"constant_score": {"filter": {"term": {"sha256": sha256}}}}
    hits = _search(client, connection, index, {"size": 1, "query": same, "_source": _READ})
    return image_of(hits[0]) if hits else None


def stored_many(client: OpenSearch, connection: Connection, index: str, ids: Sequence[str]) -> dict[str, StoredImage]:
    """`{id: document}` of those among `ids` that the index holds, in their order; of several of one id the newest.

    Raises:
        ClusterError: As for `stored`.
    """
    wanted = [id_ for id_ in dict.fromkeys(ids) if _may_be(id_)]
    found: dict[str, StoredImage] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        for hit in _by_ids(client, connection, index, wanted[start : start + _AT_ONCE]):
            found.setdefault(hit["_id"], image_of(hit))
    return {id_: found[id_] for id_ in wanted if id_ in found}


def fields_of(client: OpenSearch, connection: Connection, index: str, id_: str, fields: Sequence[str]) -> dict[str, Any] | None:
    """Some fields of the newest document with this id; None if there is none.

    Raises:
        ClusterError: As for `stored`.
    """
    if not _may_be(id_):
        return None
    body = {"size": 1, "query": {"ids": {"values": [id_]}}, "_source": list(fields)}
    hits = _search(client, connection, index, body)
    return (hits[0].get("_source") or {}) if hits else None


def thumbnail(client: OpenSearch, connection: Connection, index: str, id_: str) -> Thumbnail | None:
    """The thumbnail in the document with this id; None if there is no document, or no picture in it.

    Raises:
        ClusterError: As for `stored`.
    """
    return thumbnail_of((fields_of(client, connection, index, id_, ["thumbnail"]) or {}).get("thumbnail"))


def thumbnail_of(value: object) -> Thumbnail | None:
    """The picture in a data URI; None for everything that isn't WebP, JPEG or PNG and says so. Pure."""
    about = _DATA_URI.fullmatch(value) if isinstance(value, str) else None
    if about is None:
        return None
    try:
        data = base64.b64decode(about["data"], validate=True)
    except (binascii.Error, ValueError):
        return None
    begins, goes_on = _BEGINNINGS[about["type"]]
    right = data.startswith(begins) and data[8:].startswith(goes_on)
    return Thumbnail(content_type=about["type"], data=data) if right else None


def image_of(hit: Mapping[str, Any]) -> StoredImage:
    """One element of `hits.hits`. Pure."""
    source = dict(hit.get("_source") or {})
    undo = undo_of(source)
    tokens = source.pop("tokens", None)
    for name in (*_UNREAD, "policy_undo"):
        source.pop(name, None)
    uri = source.get("uri")
    return StoredImage(
        id=hit["_id"],
        index=str(hit.get("_index", "")),
        uri=uri if isinstance(uri, str) else "",
        vector=vector_of(tokens),
        source=source,
        undo=undo,
    )


def vector_of(tokens: object) -> SparseVector:
    """The words of a document's field `tokens`, whoever wrote it: without what is no weight. Pure."""
    try:
        words = stored_words(tokens)
    except (TypeError, ValueError):  # in a field of another type than ours anything may stand
        return SparseVector((), ())
    return SparseVector.from_mapping({word: weight for word, weight in words.items() if math.isfinite(weight) and weight > 0})


def _may_be(reference: str) -> bool:
    return 0 < len(reference) <= _LONGEST and sendable(reference)


def _by_ids(client: OpenSearch, connection: Connection, index: str, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The newest first of each id. Where many indices have the same ids, a request for fewer at once."""
    body = {"size": _MOST_HITS, "query": {"ids": {"values": list(ids)}}, "_source": _READ}
    hits = _search(client, connection, index, body)
    if len(hits) < _MOST_HITS or len(ids) == 1:
        yield from hits
        return
    middle = len(ids) // 2
    yield from _by_ids(client, connection, index, ids[:middle])
    yield from _by_ids(client, connection, index, ids[middle:])


def _search(client: OpenSearch, connection: Connection, index: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Best first, then newest. A shard that can't be asked fails the request: it isn't as if its documents weren't there."""
    newest = {"ingested_at": {"order": "desc", "unmapped_type": "date"}}
    whole = {**body, "sort": [{"_score": {"order": "desc"}}, newest], "track_total_hits": False}
    with translated(connection):
        answer = client.search(index=index, body=whole, params={"allow_partial_search_results": "false"})
    hits: list[dict[str, Any]] = answer["hits"]["hits"]
    return hits
