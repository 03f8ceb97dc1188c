"""All documents that a query finds, page by page, however many they are; or only their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection
from stair_es.cluster.retry import persistently

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

ORDER: Sequence[Mapping[str, Any]] = [{"uri": "asc"}, {"sha256": "asc"}]
"""By content, too: a URI may have a document for each content that it had."""
_STATUS = {"not_found": 404, "index_closed_exception": 400, "security_exception": 403}
"""By what the type of an error contains. Everything else passes."""


def pages(
    client: OpenSearch,
    connection: Connection,
    index: str,
    body: Mapping[str, Any],
    *,
    size: int,
    sort: Sequence[Mapping[str, Any]] = ORDER,
) -> Iterator[list[dict[str, Any]]]:
    """The hits of a search in the order of their URIs, `size` at a time; the last page may be empty or shorter.

    Pages go on after the last document, so that a repeated request can't skip one, nothing is held open in the cluster, and every
    engine can do it. Of documents of one URI and one content in one answer, some may be missed where a page ends among them.

    Args:
        client: Of the cluster.
        connection: Of that client.
        index: An index or alias.
        body: Of the search: its query should leave out documents without a URI.
        size: Of a page.
        sort: Another order; documents that are equal by it may be missed.

    Raises:
        ClusterError: The cluster failed a request, or could answer for a part of the index only.
    """
    asked: dict[str, Any] = {**body, "size": size, "sort": list(sort), "track_total_hits": False}
    while True:
        hits = whole(client, connection, index, asked)
        yield hits
        if len(hits) < size:
            return
        asked = {**asked, "search_after": hits[-1]["sort"]}


def count_of(client: OpenSearch, connection: Connection, index: str, query: Mapping[str, Any]) -> int:
    """How many documents a query finds, as of the last refresh.

    Raises:
        ClusterError: The cluster failed the request.
    """
    answer = persistently(partial(client.count, index=index, body={"query": dict(query)}), connection)
    return int(answer["count"])


def whole(client: OpenSearch, connection: Connection, index: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hits of one search, repeated while it fails with what passes.

    Raises:
        ClusterError: The cluster failed the request, or could answer for a part of the index only.
    """
    hits: list[dict[str, Any]] = answer_of(client, connection, index, body)["hits"]["hits"]
    return hits


def answer_of(client: OpenSearch, connection: Connection, index: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """All of the answer, as for `whole`.

    Raises:
        ClusterError: As for `whole`.
    """
    params = {"allow_partial_search_results": "false"}
    answer: dict[str, Any] = persistently(partial(client.search, index=index, body=dict(body), params=params), connection)
    return answer


def by_id(
    client: OpenSearch, connection: Connection, index: str, ids: Sequence[str], fields: Sequence[str]
) -> list[dict[str, Any]]:
    """The documents among `ids` that are there, each with some of its fields.

    Args:
        client: Of the cluster.
        connection: Of that client.
        index: An index or an alias of one.
        ids: No more than one request should ask for.
        fields: Of `_source`; none for what the cluster says of a document besides.

    Raises:
        ClusterError: The cluster failed the request, or could answer for a part of the index only.
    """
    return persistently(partial(_mget, client, index, list(ids), fields), connection)


def _mget(client: OpenSearch, index: str, ids: list[str], fields: Sequence[str]) -> list[dict[str, Any]]:
    params = {"_source_includes": ",".join(fields)} if fields else {"_source": "false"}
    docs = client.mget(body={"ids": ids}, index=index, params=params)["docs"]
    failed = next((doc["error"] for doc in docs if doc.get("error")), None)
    if failed is not None:  # a shard that can't be asked isn't as if the documents weren't there
        kind = str(failed.get("type"))
        status = next((status for sign, status in _STATUS.items() if sign in kind), 503)
        error = exceptions.TransportError(status, failed.get("type"), {"error": failed})
        error.request = f"POST /{index}/_mget"  # type: ignore[attr-defined]
        raise error
    return [doc for doc in docs if doc.get("found")]
