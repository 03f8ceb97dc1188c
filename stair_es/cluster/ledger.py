"""The index is the ledger: what is stored, and whether it is up to date, is asked of the index itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection
from stair_es.cluster.pages import by_id as get_documents_by_id
from stair_es.cluster.pages import pages, whole

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_STORED = ("uri", "sha256", "fingerprint", "version")
_AT_ONCE = 1000
"""Documents asked for in one request."""
_PAGE = 5000


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the index knows of an image."""

    id: str
    uri: str
    sha256: str
    fingerprint: str
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A document that is in the index."""

    id: str
    uri: str
    source: str


def by_id(client: OpenSearch, connection: Connection, index: str, ids: Sequence[str]) -> dict[str, Stored]:
    """`{_id: what is stored}` of those among `ids` that the index holds, in real time: what was written a moment ago, too.

    Raises:
        ClusterError: The cluster failed the request.
    """
    found = {}
    for some in _portions(ids):
        found.update({doc["_id"]: _stored(doc) for doc in get_documents_by_id(client, connection, index, some, _STORED)})
    return found


def by_uri(client: OpenSearch, connection: Connection, index: str, uris: Sequence[str]) -> dict[str, Stored]:
    """`{uri: what is stored}` of those among `uris` that the index holds; of several documents of one URI the newest.

    A search: it sees what was written before the last refresh.

    Raises:
        ClusterError: The cluster failed the request, or could answer for a part of the index only.
    """
    found = {}
    for some in _portions(uris):
        body = {
            "size": len(some),
            "query": {"terms": {"uri": some}},
            "collapse": {"field": "uri"},
            "sort": [{"ingested_at": {"order": "desc", "unmapped_type": "date"}}],
            "_source": list(_STORED),
            "track_total_hits": False,
        }
        for hit in whole(client, connection, index, body):
            stored = _stored(hit)
            found[stored.uri] = stored
    return found


def entries(
    client: OpenSearch, connection: Connection, index: str, *, sources: Sequence[str] | None = None, before: str = ""
) -> Iterator[Entry]:
    """Every document, or those found under `sources` and ingested before `before`, in the order of their URIs, page by page.

    Pages go on after the last URI, so that a repeated request can't skip one, nothing is held open in the cluster, and every
    engine can do it. Sees what was written before the last refresh; not a document without a URI, or one of 8 KiB and more.

    Raises:
        ClusterError: The cluster failed a request, or could answer for a part of the index only.
    """
    scope: list[dict[str, Any]] = [{"exists": {"field": "uri"}}]
    if sources is not None:
        scope.append({"terms": {"source": list(sources)}})
    body = {
        "query": {"bool": {"filter": scope, "must_not": [{"range": {"ingested_at": {"gte": before}}}] if before else []}},
        "_source": False,
        "docvalue_fields": ["uri", "source"],
    }
    for hits in pages(client, connection, index, body, size=_PAGE):
        for hit in hits:
            fields = hit["fields"]
            yield Entry(id=hit["_id"], uri=fields["uri"][0], source=fields.get("source", [""])[0])


def _stored(doc: Mapping[str, Any]) -> Stored:
    source = doc["_source"]
    return Stored(
        id=doc["_id"],
        uri=source.get("uri", ""),
        sha256=source.get("sha256", ""),
        fingerprint=source.get("fingerprint", ""),
        version=source.get("version"),
    )


def _portions(names: Sequence[str]) -> Iterator[list[str]]:
    return (list(names[start : start + _AT_ONCE]) for start in range(0, len(names), _AT_ONCE))
