"""The writer of the built-in sink: how workers look up and write documents."""

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
    """Return the client of this process. Clients aren't picklable, so each worker builds its own."""
    client = connection.client()
    atexit.register(client.close)
    return client


@dataclass(frozen=True, kw_only=True)
class ClusterWriter:
    """The `SinkWriter` of one index."""

    connection: Connection
    index: str
    policy: BulkPolicy

    def stored_by_id(self, ids: Sequence[str]) -> dict[str, Stored]:
        """Look up documents by `_id`."""
        return ledger.by_id(client_of(self.connection), self.connection, self.index, ids)

    def stored_by_uri(self, uris: Sequence[str]) -> dict[str, Stored]:
        """Look up documents by the URI of their image."""
        return ledger.by_uri(client_of(self.connection), self.connection, self.index, uris)

    def write(self, documents: Documents, chunk_bytes: int) -> Written:
        """Index documents with bulk requests of about `chunk_bytes`."""
        return self._bulk.write(documents, chunk_bytes)

    def update(self, documents: Documents) -> Written:
        """Update fields of documents with bulk requests."""
        return self._bulk.update(documents)

    def delete(self, ids: Sequence[str]) -> Written:
        """Delete documents with bulk requests."""
        return self._bulk.delete(ids)

    @property
    def _bulk(self) -> BulkWriter:
        return BulkWriter(client=client_of(self.connection), connection=self.connection, index=self.index, policy=self.policy)
