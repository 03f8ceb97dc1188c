"""The index is the ledger: which documents are up to date is asked of the index itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stair_es.cluster.connect import Connection
from stair_es.cluster.retry import persistently

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def stored_fingerprints(client: OpenSearch, connection: Connection, index: str, ids: Sequence[str]) -> dict[str, str]:
    """`{_id: fingerprint}` of those among `ids` that the index holds.

    Raises:
        ClusterError: The cluster failed the request.
    """
    if not ids:
        return {}
    params = {"_source_includes": "fingerprint"}
    answer = persistently(lambda: client.mget(body={"ids": list(ids)}, index=index, params=params), connection)
    return {doc["_id"]: doc["_source"].get("fingerprint", "") for doc in answer["docs"] if doc.get("found")}
