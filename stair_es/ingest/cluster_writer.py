"""How workers write into the built-in sink, and ask what is there."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from stair_es.cluster import index as indices
from stair_es.cluster import ledger
from stair_es.cluster.bulk import BulkPolicy, BulkWriter, Written
from stair_es.cluster.connect import Connection
from stair_es.cluster.ledger import Stored
from stair_es.cluster.retry import RetryPolicy
from stair_es.errors import ClusterError
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
    alias: str
    write_alias: str
    """`alias`, or the build alias of an index that isn't in use yet."""
    policy: BulkPolicy

    def stored_by_id(self, ids: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_id(client_of(self.connection), self.connection, self.index, ids)

    def stored_by_uri(self, uris: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_uri(client_of(self.connection), self.connection, self.index, uris)

    def write(self, documents: Documents, chunk_bytes: int) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.write(documents, chunk_bytes))

    def update(self, documents: Documents) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.update(documents))

    def delete(self, ids: Sequence[str]) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.delete(ids))

    def _through(self, call: Callable[[BulkWriter], Written]) -> Written:
        """Through the build alias; once a run beside this one has finished the same build, through the alias itself."""
        try:
            return call(self._bulk(self.write_alias))
        except ClusterError:
            if self.write_alias == self.alias or not self._is_live():
                raise
        return call(self._bulk(self.alias))

    def _is_live(self) -> bool:
        try:
            return indices.stands_for(client_of(self.connection), self.connection, self.alias, RetryPolicy(attempts=1)) == [
                self.index
            ]
        except ClusterError:  # the first error says more
            return False

    def _bulk(self, alias: str) -> BulkWriter:
        return BulkWriter(client=client_of(self.connection), connection=self.connection, alias=alias, policy=self.policy)
