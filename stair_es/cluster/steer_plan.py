"""Preview of a policy: reads the vectors of all documents that it may change, and changes nothing."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.documents import stored_words, undo_of
from stair_es.cluster.pages import count_of
from stair_es.cluster.policy_state import missing_fields
from stair_es.cluster.retry import persistently
from stair_es.cluster.steer import Place
from stair_es.cluster.steer_body import affected
from stair_es.policy import WordPolicy
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_PAGE = 1000
_KEEP = "5m"
_FIELDS = ["uri", "tokens", "policy", "policy_undo"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A document that would change."""

    id: str
    uri: str
    before: SparseVector
    """The vector in the index."""
    after: SparseVector
    rules: tuple[str, ...]
    """Rules that would apply; none for a document that would only lose another policy."""

    @property
    def words(self) -> dict[str, tuple[float | None, float | None]]:
        """Token -> weight before and after, for tokens that differ; None if the token is missing."""
        before, after = self.before.to_dict(), self.after.to_dict()
        names = [*before, *(word for word in after if word not in before)]
        return {word: (before.get(word), after.get(word)) for word in names if before.get(word) != after.get(word)}

    @cached_property
    def difference(self) -> float:
        """Sum of the weight differences of all tokens."""
        return sum(abs((after or 0.0) - (before or 0.0)) for before, after in self.words.values())


@dataclass(kw_only=True)
class Plan:
    """Counts of the documents that a policy would change, complete after all of `preview_changes` has been read."""

    examined: int = 0
    changed: int = 0
    emptied: int = 0
    """Changed documents that would have no token left."""
    losing: int = 0
    """Changed documents without a matching rule: they would only lose another policy."""
    rules: Counter[str] = field(default_factory=Counter)
    """Documents per rule; a document may be counted for several rules."""


def changes(
    client: OpenSearch,
    connection: Connection,
    place: Place,
    policy: WordPolicy | None,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Change]:
    """Compare each document with what `policy`, or its removal, would make of it, and yield those that would change.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        place: The index.
        policy: The policy; None for a rollback.
        plan: Counts to update.
        progress: Called with the number of documents read so far, and of all.

    Raises:
        IndexMismatch: If documents have columns with the names of policy fields.
        ClusterError: If a request fails.
    """
    missing_fields(place.properties, f"index {place.name!r}")
    query = affected(policy, place.layout)
    total = count_of(client, connection, place.name, query)
    for hit in _documents(client, connection, place.name, query):
        plan.examined += 1
        change = _change(hit, policy)
        if change is not None:
            plan.changed += 1
            plan.emptied += not change.after
            plan.losing += not change.rules
            plan.rules.update(change.rules)
            yield change
        progress(plan.examined, total)


def add_sample(samples: list[Change], change: Change, most: int) -> None:
    """Add a change to the samples, which keep the `most` changes with the largest difference (ties by id)."""
    insort(samples, change, key=lambda each: (-each.difference, each.id))
    del samples[most:]


def _change(hit: Mapping[str, Any], policy: WordPolicy | None) -> Change | None:
    source = hit["_source"]
    tokens = source.get("tokens")
    if not isinstance(tokens, dict):
        return None
    before = SparseVector.from_mapping(stored_words(tokens))
    original = undo_of(source).restore(before)
    steered = policy.apply(original) if policy else None
    after = steered.vector if steered else original
    digest = policy.digest if policy and steered and steered.undo else None
    if after == before and source.get("policy") == digest:
        return None
    return Change(id=hit["_id"], uri=source.get("uri", ""), before=before, after=after, rules=steered.rules if steered else ())


def _documents(client: OpenSearch, connection: Connection, index: str, query: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Scroll over the documents: one snapshot of the index, unaffected by concurrent changes.

    A page whose response is lost can't be requested again.
    """
    body = {"size": _PAGE, "query": dict(query), "sort": ["_doc"], "_source": _FIELDS}
    params = {"scroll": _KEEP, "allow_partial_search_results": "false"}
    answer = persistently(partial(client.search, index=index, body=body, params=params), connection)
    try:
        while answer["hits"]["hits"]:
            yield from answer["hits"]["hits"]
            with translated(connection):
                answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": _KEEP})
    finally:
        with suppress(exceptions.TransportError):  # the scroll also expires, and an earlier error says more
            client.clear_scroll(body={"scroll_id": [answer["_scroll_id"]]}, ignore=[404])
