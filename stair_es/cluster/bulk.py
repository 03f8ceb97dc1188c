"""The bulk path: documents in, one outcome each out.

Own code because the clients' helpers can't: opensearch-py's `streaming_bulk` retries 429 only, and zero times by default,
`parallel_bulk` never retries, and neither splits on 413. Every operation names its `_id`, so sending it twice stores it once:
whatever leaves open whether the cluster did the work (a lost answer, a time-out, a gateway's page) is sent again.

The rules. A document is dead only by a fault of its own; what is wrong with the cluster stops the run, which can be continued.

=========================================  =====================================================================================
the cluster says                           then
=========================================  =====================================================================================
stored; deleted or missing (`delete`)      done
stored in another index                    the run stops: somebody moved the alias that the index is written through
4xx for one document                       that one is dead; but 404, a closed index, a missing pipeline, 401 and 403 stop the run
429, 409, 5xx, a block, no word of it      that one is sent again after a wait, the others go on
429, 5xx, lost, time-out, no JSON          all of the request are sent again after a wait: through another node, if there are
                                           several; in smaller requests after 429 and time-outs
413                                        the rest goes in smaller requests; a document that is refused alone is dead
400 for the whole request                  bisected: the culprit is dead; if a request without documents fails too, the run stops
401, 403, 404 ...                          the run stops
=========================================  =====================================================================================

A block is what an index gets on a full disk (403 or 429, `cluster_block_exception`): it holds for all documents, and passes.

Waiting ends after `attempts` failures in a row, or `patience_s` seconds, without a single document settled. Then either the
run stops, or, if only a few documents are left that are refused one by one, they stand trial: each is sent together with the
deletion of a document that doesn't exist, routed to the same shard. Where that is taken and the document isn't, in the same
request, the document is to blame (one that breaks a script or a mapper, say), and dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.cluster.bulk_lines import Lines, Sent, deletion, operation, update
from stair_es.cluster.bulk_load import Load
from stair_es.cluster.connect import Connection
from stair_es.cluster.retry import RetryPolicy
from stair_es.cluster.stop import pause

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

__all__ = ["BulkPolicy", "BulkWriter", "Sent", "Written"]


@dataclass(frozen=True, kw_only=True)
class BulkPolicy(RetryPolicy):
    """How much at once, and how hard to try: by default for five minutes without any progress."""

    attempts: int = 40
    patience_s: float = 300.0
    """Seconds of failures in a row after which the run stops, however few attempts these were."""
    min_chunk_bytes: int = 256 * 1024
    max_chunk_bytes: int = 8 * 1024 * 1024
    max_chunk_docs: int = 1000
    max_concurrency: int = 8
    """Requests under way at the same time, of all workers together; see `pace`."""


@dataclass
class Written:
    """What became of the documents of one call."""

    outcomes: dict[str, str | None] = field(default_factory=dict)
    """`{_id: None}` for each that is stored, `{_id: reason}` for each that the cluster refuses for good."""
    sent: list[Sent] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BulkWriter:
    """Writes documents into one index, and into no other. Calls may run in several threads at once."""

    client: OpenSearch
    connection: Connection
    index: str
    """Its own name. It is written through `identity.write_alias`, and each answer has to name it."""
    policy: BulkPolicy = BulkPolicy()
    sleep: Callable[[float], None] = pause
    clock: Callable[[], float] = time.monotonic

    def write(self, documents: Sequence[tuple[str, Mapping[str, Any]]], chunk_bytes: int | None = None) -> Written:
        """Store documents, in requests of about `chunk_bytes`. Of several with the same `_id` the last one counts.

        Raises:
            ClusterError: The cluster as a whole can't be written to (unreachable or busy for too long, login refused,
                alias gone). What was stored stays stored.
            IndexMismatch: Documents arrived in another index.
        """
        return self._run(operation, documents, chunk_bytes)

    def update(self, documents: Sequence[tuple[str, Mapping[str, Any]]], chunk_bytes: int | None = None) -> Written:
        """Merge fields into documents that are there; one that isn't counts as done.

        Raises:
            ClusterError: As for `write`.
        """
        return self._run(update, documents, chunk_bytes)

    def delete(self, ids: Sequence[str]) -> Written:
        """Remove documents; a missing one counts as removed.

        Raises:
            ClusterError: As for `write`.
        """
        return self._run(deletion, [(id_, {}) for id_ in ids], None)

    def _run(
        self,
        serialised: Callable[[str, Mapping[str, Any]], Lines],
        documents: Iterable[tuple[str, Mapping[str, Any]]],
        chunk_bytes: int | None,
    ) -> Written:
        written, lines = Written(), []
        for id_, source in dict(documents).items():
            try:
                lines.append(serialised(id_, source))
            except TypeError as error:  # not JSON: a lone surrogate, a number of more than 64 bits, a foreign type
                written.outcomes[id_] = f"not JSON: {error}"
        Load(self, written, lines, min(chunk_bytes or self.policy.max_chunk_bytes, self.policy.max_chunk_bytes)).run()
        return written
