"""A temporary index: written, searched in batches, and deleted whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.bulk import BulkWriter
from stair_es.cluster.connect import Connection
from stair_es.cluster.index import Identity, open_index, refresh
from stair_es.cluster.retry import RetryPolicy, persistently
from stair_es.errors import ClusterError
from stair_es.ingest.parts import in_parts

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.eval.methods import Clause, Corpus

_QUERIES_AT_ONCE = 50
_ANSWER = "responses.hits.hits._id,responses.hits.hits._score,responses.error,responses._shards.failed"
_AFTER_FAILURE = RetryPolicy(attempts=4)


@dataclass(frozen=True)
class Hits:
    """What the engine answered to one query."""

    items: tuple[int, ...]
    """Positions in the gallery, best first."""
    scores: tuple[float, ...]


NOTHING = Hits((), ())


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An index with the documents of a corpus."""

    client: OpenSearch
    connection: Connection
    index: str

    def search(self, clauses: Sequence[Clause | None], depth: int) -> list[Hits]:
        """The `depth` best of each query; nothing for None.

        Raises:
            ClusterError: The cluster refused one, or answered for a part of the index only.
        """
        asked = [(position, clause) for position, clause in enumerate(clauses) if clause is not None]
        found = dict.fromkeys(range(len(clauses)), NOTHING)
        for part in in_parts(asked, _QUERIES_AT_ONCE):
            lines: list[dict[str, Any]] = []
            for _, clause in part:
                lines += [{}, {"size": depth, "track_total_hits": False, "_source": False, "query": clause}]
            call = partial(self.client.msearch, body=lines, index=self.index, params={"filter_path": _ANSWER})
            answers = persistently(call, self.connection)["responses"]
            for (position, _), answer in zip(part, answers, strict=True):
                found[position] = _hits(answer)
        return [found[position] for position in range(len(clauses))]


@contextmanager
def trial(
    client: OpenSearch,
    connection: Connection,
    corpus: Corpus,
    *,
    run: str,
    identity: Identity,
    keep: bool,
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """The index of a corpus, within.

    Args:
        client: Of the cluster.
        connection: Of that client.
        corpus: What is written.
        run: Name of the run: indices are called `<run>-<corpus>`.
        identity: What stands in the index about itself.
        keep: Whether it stays.
        say: Is told what couldn't be deleted.

    Raises:
        ClusterError: The cluster refused the index or a document.
    """
    alias = f"{run}-{corpus.name}"
    try:
        opened = open_index(client, connection, alias, corpus.body, identity, say)
        documents = [(str(position), document) for position, document in enumerate(corpus.documents)]
        written = BulkWriter(client=client, connection=connection, alias=alias).write(documents)
        refused = {id_: reason for id_, reason in written.outcomes.items() if reason is not None}
        if refused:
            id_, reason = next(iter(refused.items()))
            raise ClusterError(f"the cluster refused {len(refused)} of {len(documents)} documents, number {id_}: {reason}")
        refresh(client, connection, opened.name)
        yield Trial(client=client, connection=connection, index=opened.name)
    finally:
        if not keep:
            _delete(client, connection, alias, say)


def _delete(client: OpenSearch, connection: Connection, alias: str, say: Callable[[str], None]) -> None:
    """All that begins with the name of the run: an index whose creation was interrupted, too."""
    try:
        found = persistently(partial(client.indices.get, index=f"{alias}-*"), connection, _AFTER_FAILURE)
        for name in found:
            persistently(partial(client.indices.delete, index=name, ignore=[404]), connection, _AFTER_FAILURE)
    except ClusterError as error:
        say(f"temporary indices {alias}-* could not be deleted: {error.message}")


def _hits(answer: dict[str, Any]) -> Hits:
    if answer.get("error") or answer.get("_shards", {}).get("failed"):
        error = answer.get("error") or "a part of the index couldn't be searched"
        raise ClusterError(f"a query failed: {str(error)[:500]}")
    hits = answer.get("hits", {}).get("hits", [])
    return Hits(tuple(int(hit["_id"]) for hit in hits), tuple(float(hit["_score"]) for hit in hits))
