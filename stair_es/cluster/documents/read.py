"""Read documents: all hits of a search page by page, their count, or documents by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.opensearch import exceptions

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.opensearch import OpenSearch

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

    Raises:
        ClusterError: If a request fails, or shards of the index are unavailable.
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

    Raises:
        ClusterError: If the request fails, or shards of the index are unavailable.
    """
    return cluster.call(_send_mget, cluster.client, index, list(ids), fields)


def _send_mget(client: OpenSearch, index: str, ids: list[str], fields: Sequence[str]) -> list[dict[str, Any]]:
    params = {"_source_includes": ",".join(fields)} if fields else {"_source": "false"}
    docs = client.mget(body={"ids": ids}, index=index, params=params)["docs"]
    failed = next((doc["error"] for doc in docs if doc.get("error")), None)
    if failed is not None:  # documents of an unavailable shard are not missing
        kind = str(failed.get("type"))
        status = next((status for sign, status in _STATUS_BY_ERROR.items() if sign in kind), 503)
        error = exceptions.TransportError(status, failed.get("type"), {"error": failed})
        error.request = f"POST /{index}/_mget"  # type: ignore[attr-defined]
        raise error
    return [doc for doc in docs if doc.get("found")]
