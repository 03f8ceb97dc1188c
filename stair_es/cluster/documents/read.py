"""Read documents: hits page by page, their count, documents by id, and what is stored of an image.

A ClusterError is raised if a request fails, or if shards of the index are unavailable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from stair_es._itertools import batched
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.products import get_read_method
from stair_es.cluster.documents.document import LABEL_FIELDS
from stair_es.errors import UnsupportedTarget
from stair_es.store import IndexedDocument, StoredVersion

DOCUMENT_ORDER: Sequence[Mapping[str, Any]] = [{"uri": "asc"}, {"sha256": "asc"}]
"""The content, too: a URI may have a document for each content that it had."""
_STATUS_BY_ERROR = {"not_found": 404, "index_closed_exception": 400, "security_exception": 403}
"""HTTP status by a part of the error's type. All other errors are retryable."""


@dataclass(frozen=True)
class WriteVersion:
    """The version of a stored document: the cluster numbers each write."""

    seq_no: int
    primary_term: int

    @classmethod
    def from_hit(cls, doc: Mapping[str, Any]) -> WriteVersion:
        """Build the version from a hit or a document of a GET response."""
        return cls(int(doc["_seq_no"]), int(doc["_primary_term"]))

    @property
    def options(self) -> dict[str, int]:
        """Options of a bulk action that changes this version of the document, and no later one."""
        return {"if_seq_no": self.seq_no, "if_primary_term": self.primary_term}


def paginate_hits(
    cluster: Cluster,
    index: str,
    body: Mapping[str, Any],
    *,
    size: int,
    sort: Sequence[Mapping[str, Any]] = DOCUMENT_ORDER,
    preference: str = "",
) -> Iterator[list[dict[str, Any]]]:
    """Paginate the hits of a search in the order of their URIs, `size` per page; the last page may be empty or shorter.

    Paging by `search_after` means that a retried request can't skip a document, nothing is held open in the cluster, and every
    engine supports it. Documents with equal URI and content may be missed if a page ends between them. Its query should exclude
    documents without a URI, and with another `sort` equal documents may be missed. `preference` selects the shards to search.
    """
    request: dict[str, Any] = {**body, "size": size, "sort": list(sort), "track_total_hits": False}
    search = partial(cluster.search, index, preference=preference) if preference else partial(cluster.search, index)
    while True:
        hits: list[dict[str, Any]] = search(request)["hits"]["hits"]
        yield hits
        if len(hits) < size:
            return
        request = {**request, "search_after": hits[-1]["sort"]}


def count_matches(cluster: Cluster, index: str, query: Mapping[str, Any]) -> int:
    """Count the documents that match a query, as of the last refresh."""
    response = cluster.call(cluster.client.count, index=index, body={"query": dict(query)})
    return int(response["count"])


def get_documents_by_id(cluster: Cluster, index: str, ids: Sequence[str], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Get the documents that exist among `ids`, with some of their fields, in real time, including unrefreshed writes.

    Without `fields` only their metadata. All ids go into one request.
    """
    return cluster.call(_send_mget, cluster, index, list(ids), fields)


def _send_mget(cluster: Cluster, index: str, ids: list[str], fields: Sequence[str]) -> list[dict[str, Any]]:
    params = {"_source_includes": ",".join(fields)} if fields else {"_source": "false"}
    send, method = cluster.client.transport.perform_request, get_read_method(cluster.product)
    docs = send(method, f"/{quote(index)}/_mget", params=params, body={"ids": ids})["docs"]
    failed = next((doc["error"] for doc in docs if doc.get("error")), None)
    if failed is not None:  # documents of an unavailable shard are not missing
        kind = str(failed.get("type"))
        status = next((status for sign, status in _STATUS_BY_ERROR.items() if sign in kind), 503)
        error = exceptions.TransportError(status, failed.get("type"), {"error": failed})
        error.request = f"{method} /{index}/_mget"  # type: ignore[attr-defined]
        raise error
    return [doc for doc in docs if doc.get("found")]


_STORED_FIELDS = ("uri", "sha256", "fingerprint", "version", *LABEL_FIELDS)
_BATCH_SIZE = 1000
_PAGE_SIZE = 5000
_FIRST_PAGE, _MAX_PAGE, _PAGE_BYTES = 20, 1000, 16 << 20
_HAS_URI: Mapping[str, Any] = {"exists": {"field": "uri"}}
_SCANNED_PARTS: Mapping[str, Any] = {"_source": False, "docvalue_fields": ["uri", "source"], "seq_no_primary_term": True}
WRITE_ORDER = ({"_seq_no": "asc"}, *DOCUMENT_ORDER)
"""Engines skip what a page in this order excludes. In an index that was shrunk, documents of a shard may share a number."""


def get_stored_by_id(cluster: Cluster, index: str, ids: Sequence[str]) -> dict[str, StoredVersion]:
    """Get `{_id: StoredVersion}` of the given ids that the index contains, in real time, including unrefreshed writes."""
    found = {}
    for batch in batched(ids, _BATCH_SIZE):
        found.update({doc["_id"]: _parse_stored(doc) for doc in get_documents_by_id(cluster, index, batch, _STORED_FIELDS)})
    return found


def get_stored_by_uri(cluster: Cluster, index: str, uris: Sequence[str]) -> dict[str, StoredVersion]:
    """Get `{uri: StoredVersion}` of the given URIs that the index contains; of several documents with one URI the newest.

    This is a search: it sees the state of the last refresh.
    """
    found = {}
    for batch in batched(uris, _BATCH_SIZE):
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


def scan_documents(cluster: Cluster, index: str) -> Iterator[IndexedDocument]:
    """Scan all documents in the order of URIs, as of the last refresh; see `paginate_hits`.

    Omits documents without a URI, or with one of 8 KiB and more.
    """
    body = {"query": {"bool": {"filter": [_HAS_URI]}}, **_SCANNED_PARTS}
    for hits in paginate_hits(cluster, index, body, size=_PAGE_SIZE):
        yield from map(_parse_scanned, hits)


def find_last_writes(cluster: Cluster, index: str) -> tuple[WriteVersion | None, ...]:
    """Find the last write of each shard that the last refresh saw; None for an empty shard.

    The number of shards is that of the response, since serverless products don't report it as a setting.

    Raises:
        UnsupportedTarget: If the response doesn't tell it either.
    """
    body = {"size": 1, "sort": [{"_seq_no": "desc"}], "_source": False, "seq_no_primary_term": True, "track_total_hits": False}
    response = cluster.search(index, body)
    shards, hits = int(response["_shards"]["total"]), [response["hits"]["hits"]]
    if shards < 1:
        raise UnsupportedTarget(
            f"{cluster.connection.safe_url} doesn't report how many shards {index} has, so its writes can't be ordered",
            "Use another cluster for this command; an ingest works without --resync.",
            code="shards-unknown",
        )
    if shards > 1:  # of one shard it is the answer already
        hits = [_search_shard(cluster, index, body, shard, shards) for shard in range(shards)]
    return tuple(WriteVersion.from_hit(found[0]) if found else None for found in hits)


def _select_shard(shard: int, shards: int) -> str:
    """Return the preference that restricts a search to a shard, if there are others."""
    return f"_shards:{shard}" if shards > 1 else ""


def _search_shard(cluster: Cluster, index: str, body: Mapping[str, Any], shard: int, shards: int) -> list[dict[str, Any]]:
    selected = _select_shard(shard, shards)
    params = {"preference": selected} if selected else {}
    hits: list[dict[str, Any]] = cluster.search(index, body, retry=None, **params)["hits"]["hits"]
    return hits


def scan_older_documents(
    cluster: Cluster, index: str, last_writes: Sequence[WriteVersion | None], sources: Sequence[str]
) -> Iterator[IndexedDocument]:
    """Scan the documents under `sources` that weren't written after `last_writes` (see `find_last_writes`), page by page.

    Each shard numbers its writes, and a later primary shard has a higher term; no clock is involved. Otherwise as for
    `scan_documents`.
    """
    for shard, last in enumerate(last_writes):
        if last is None:
            continue
        scope = [_HAS_URI, {"terms": {"source": list(sources)}}, {"range": {"_seq_no": {"lte": last.seq_no}}}]
        body = {"query": {"bool": {"filter": scope}}, **_SCANNED_PARTS}
        selected = _select_shard(shard, len(last_writes))
        for hits in paginate_hits(cluster, index, body, size=_PAGE_SIZE, sort=WRITE_ORDER, preference=selected):
            yield from (_parse_scanned(hit) for hit in hits if hit["_primary_term"] <= last.primary_term)


def scan_writes(
    cluster: Cluster, index: str, last_writes: Sequence[WriteVersion | None], fields: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Scan the documents that weren't written after `last_writes` in the order of their writes: hits with some fields.

    For an index of any mapping: no field has to exist. What is written meanwhile leaves the range of numbers, so the scan ends.
    A page has as many documents as `_PAGE_BYTES` hold.
    """
    for shard, last in enumerate(last_writes):
        begin, size, seen = 0, _FIRST_PAGE, set[str]()
        while last is not None:
            body = {
                "size": size,
                "query": {"bool": {"filter": [{"range": {"_seq_no": {"gte": begin, "lte": last.seq_no}}}]}},
                "sort": [{"_seq_no": "asc"}],
                "_source": list(fields),
                "track_total_hits": False,
            }
            hits = _search_shard(cluster, index, body, shard, len(last_writes))
            yield from (hit for hit in hits if hit["_id"] not in seen)
            if len(hits) < size:
                break
            end, hit_bytes = hits[-1]["sort"][0], sum(len(str(hit.get("_source"))) for hit in hits) // size
            size = min(max(_PAGE_BYTES // (hit_bytes + 1), 2), _MAX_PAGE)
            if end == begin:  # in an index that was shrunk, documents may have the same number
                size = max(size, 2 * len(hits))
            begin, seen = end, {hit["_id"] for hit in hits}


def _parse_scanned(hit: Mapping[str, Any]) -> IndexedDocument:
    version, fields = WriteVersion.from_hit(hit), hit["fields"]
    routing = {"routing": hit["_routing"]} if "_routing" in hit else {}
    return IndexedDocument(
        id=hit["_id"],
        uri=fields["uri"][0],
        source=fields.get("source", [""])[0],
        delete_options={**version.options, **routing},
    )


def _parse_stored(doc: Mapping[str, Any]) -> StoredVersion:
    source = doc["_source"]
    return StoredVersion(
        id=doc["_id"],
        uri=source.get("uri", ""),
        sha256=source.get("sha256", ""),
        fingerprint=source.get("fingerprint", ""),
        version=source.get("version"),
        label_fields={name: source[name] for name in LABEL_FIELDS if name in source},
    )
