"""Documents by their ids, in real time: what was written a moment ago, too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection
from stair_es.cluster.retry import persistently

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_STATUS = {"not_found": 404, "index_closed_exception": 400, "security_exception": 403}
"""By what the type of an error contains. Everything else passes."""


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
