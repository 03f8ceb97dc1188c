"""State of stored documents, read from the index itself: what is stored, and whether it is up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.read import get_documents_by_id as get_documents_by_id
from stair_es.cluster.documents.read import paginate_hits

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster

_STORED_FIELDS = ("uri", "sha256", "fingerprint", "version")
_BATCH_SIZE = 1000
"""Documents per request."""
_PAGE_SIZE = 5000


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """The stored state of an image."""

    id: str
    uri: str
    sha256: str
    fingerprint: str
    version: str | None


@dataclass(frozen=True, kw_only=True)
class IndexedDocument:
    """A document in the index."""

    id: str
    uri: str
    source: str


def get_stored_by_id(cluster: Cluster, index: str, ids: Sequence[str]) -> dict[str, StoredVersion]:
    """Get `{_id: StoredVersion}` of the given ids that the index contains, in real time, including unrefreshed writes.

    Raises:
        ClusterError: If the request fails.
    """
    found = {}
    for batch in _split_batches(ids):
        found.update({doc["_id"]: _parse_stored(doc) for doc in get_documents_by_id(cluster, index, batch, _STORED_FIELDS)})
    return found


def get_stored_by_uri(cluster: Cluster, index: str, uris: Sequence[str]) -> dict[str, StoredVersion]:
    """Get `{uri: StoredVersion}` of the given URIs that the index contains; of several documents with one URI the newest.

    This is a search: it sees the state of the last refresh.

    Raises:
        ClusterError: If the request fails, or shards of the index are unavailable.
    """
    found = {}
    for batch in _split_batches(uris):
        body = {
            "size": len(batch),
            "query": {"terms": {"uri": batch}},
            "collapse": {"field": "uri"},
            "sort": [{"ingested_at": {"order": "desc", "unmapped_type": "date"}}],
            "_source": list(_STORED_FIELDS),
            "track_total_hits": False,
        }
        for hit in cluster.search(index, body)["hits"]["hits"]:
            stored = _parse_stored(hit)
            found[stored.uri] = stored
    return found


def scan_documents(
    cluster: Cluster, index: str, *, sources: Sequence[str] | None = None, ingested_before: str = ""
) -> Iterator[IndexedDocument]:
    """Scan all documents, or those under `sources` and ingested before `ingested_before`, page by page in the order of URIs.

    Paging by `search_after` means that a retried request can't skip a document, nothing is held open in the cluster, and every
    engine supports it. Sees the state of the last refresh; omits documents without a URI, or with one of 8 KiB and more.

    Raises:
        ClusterError: If a request fails, or shards of the index are unavailable.
    """
    scope: list[dict[str, Any]] = [{"exists": {"field": "uri"}}]
    if sources is not None:
        scope.append({"terms": {"source": list(sources)}})
    body = {
        "query": {
            "bool": {
                "filter": scope,
                "must_not": [{"range": {"ingested_at": {"gte": ingested_before}}}] if ingested_before else [],
            }
        },
        "_source": False,
        "docvalue_fields": ["uri", "source"],
    }
    for hits in paginate_hits(cluster, index, body, size=_PAGE_SIZE):
        for hit in hits:
            fields = hit["fields"]
            yield IndexedDocument(id=hit["_id"], uri=fields["uri"][0], source=fields.get("source", [""])[0])


def _parse_stored(doc: Mapping[str, Any]) -> StoredVersion:
    source = doc["_source"]
    return StoredVersion(
        id=doc["_id"],
        uri=source.get("uri", ""),
        sha256=source.get("sha256", ""),
        fingerprint=source.get("fingerprint", ""),
        version=source.get("version"),
    )


def _split_batches(names: Sequence[str]) -> Iterator[list[str]]:
    return (list(names[start : start + _BATCH_SIZE]) for start in range(0, len(names), _BATCH_SIZE))
