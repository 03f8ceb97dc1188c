"""How workers write into the built-in sink, and ask what is there."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from stair_es.cluster import ledger
from stair_es.cluster.bulk import BulkPolicy, BulkWriter, Written
from stair_es.cluster.connect import Connection
from stair_es.cluster.ledger import Stored
from stair_es.ingest.sink import Documents

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


@lru_cache(maxsize=4)
def client_of(connection: Connection) -> OpenSearch:
    """One client a process: workers build their own, clients don't travel."""
    client = connection.client()
    atexit.register(client.close)
    return client


@dataclass(frozen=True, kw_only=True)
class ClusterWriter:
    """See `Writer`."""

    connection: Connection
    index: str
    policy: BulkPolicy

    def stored_by_id(self, ids: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_id(client_of(self.connection), self.connection, self.index, ids)

    def stored_by_uri(self, uris: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_uri(client_of(self.connection), self.connection, self.index, uris)

    def write(self, documents: Documents, chunk_bytes: int) -> Written:
        """See `Writer`."""
        return self._bulk.write(documents, chunk_bytes)

    def update(self, documents: Documents) -> Written:
        """See `Writer`."""
        return self._bulk.update(documents)

    def delete(self, ids: Sequence[str]) -> Written:
        """See `Writer`."""
        return self._bulk.delete(ids)

    @property
    def _bulk(self) -> BulkWriter:
        return BulkWriter(client=client_of(self.connection), connection=self.connection, index=self.index, policy=self.policy)
