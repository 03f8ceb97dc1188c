"""The writer of the built-in sink: how workers look up and write documents."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from stair_es.cluster.bulk.writer import BulkPolicy, BulkResult, BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import state
from stair_es.cluster.documents.state import IndexedDocument, StoredVersion
from stair_es.ingest.sinks.base import Documents


@lru_cache(maxsize=4)
def get_shared_cluster(connection: Connection) -> Cluster:
    """Return the cluster of this process. Clients aren't picklable, so each worker opens its own."""
    cluster = Cluster(connection)
    atexit.register(cluster.close)
    return cluster


@dataclass(frozen=True, kw_only=True)
class ClusterSinkWriter:
    """The `SinkWriter` of one index."""

    connection: Connection
    index: str
    policy: BulkPolicy

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Look up documents by `_id`."""
        return state.get_stored_by_id(get_shared_cluster(self.connection), self.index, ids)

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """Look up documents by the URI of their image."""
        return state.get_stored_by_uri(get_shared_cluster(self.connection), self.index, uris)

    def write(self, documents: Documents, chunk_bytes: int) -> BulkResult:
        """Index documents with bulk requests of about `chunk_bytes`."""
        return self._bulk.write(documents, chunk_bytes)

    def update(self, documents: Documents) -> BulkResult:
        """Update fields of documents with bulk requests."""
        return self._bulk.update(documents)

    def delete(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete documents with bulk requests, in the version that was read."""
        options = {document.id: document.delete_options for document in documents}
        return self._bulk.delete(list(options), options)

    @property
    def _bulk(self) -> BulkWriter:
        return BulkWriter(cluster=get_shared_cluster(self.connection), index=self.index, policy=self.policy)
