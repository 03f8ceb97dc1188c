"""All documents that a query finds, page by page, however many they are; or only their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection
from stair_es.cluster.retry import persistently

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

ORDER: Sequence[Mapping[str, Any]] = [{"uri": "asc"}, {"sha256": "asc"}]
"""By content, too: a URI may have a document for each content that it had."""


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
