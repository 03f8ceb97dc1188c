"""What a policy would change in an index, found out by reading: the vectors of all documents that it may change."""

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
    """As it is in the index."""
    after: SparseVector
    rules: tuple[str, ...]
    """Those that would hold for it; none for one that would only lose another policy."""

    @property
    def words(self) -> dict[str, tuple[float | None, float | None]]:
        """Word -> weight before and after, of those that differ; None where it isn't there."""
        before, after = self.before.to_dict(), self.after.to_dict()
        names = [*before, *(word for word in after if word not in before)]
        return {word: (before.get(word), after.get(word)) for word in names if before.get(word) != after.get(word)}

    @cached_property
    def difference(self) -> float:
        """How much weight the words that differ lose or gain, added up."""
        return sum(abs((after or 0.0) - (before or 0.0)) for before, after in self.words.values())


@dataclass(kw_only=True)
class Plan:
    """The documents that a policy would change, counted while `changes` is read to its end."""

    examined: int = 0
    changed: int = 0
    emptied: int = 0
    """Of those, the ones that would have no word left."""
    losing: int = 0
    """Of those, the ones that no rule holds for: they would only lose another policy."""
    rules: Counter[str] = field(default_factory=Counter)
    """Documents that each rule would hold for; one may be there several times."""


def changes(
    client: OpenSearch,
    connection: Connection,
    place: Place,
    policy: WordPolicy | None,
    plan: Plan,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Change]:
    """Each document that `policy`, or taking away what there is, would change.

    Args:
        client: Of the cluster.
        connection: Of that client.
        place: The index.
        policy: None for a rollback.
        plan: Is filled in.
        progress: Is called with the number of documents read so far, and of all.

    Raises:
        IndexMismatch: Documents have columns that are called like the fields of a policy.
        ClusterError: The cluster failed a request.
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
    """Keep, of all changes that are added, the `most` with the largest difference; those that are equal, by their ids."""
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
    """By a scroll: one state of the index, however it changes meanwhile. A page whose answer was lost can't be had again."""
    body = {"size": _PAGE, "query": dict(query), "sort": ["_doc"], "_source": _FIELDS}
    params = {"scroll": _KEEP, "allow_partial_search_results": "false"}
    answer = persistently(partial(client.search, index=index, body=body, params=params), connection)
    try:
        while answer["hits"]["hits"]:
            yield from answer["hits"]["hits"]
            with translated(connection):
                answer = client.scroll(body={"scroll_id": answer["_scroll_id"], "scroll": _KEEP})
    finally:
        with suppress(exceptions.TransportError):  # it ends by itself, too, and what went wrong before says more
            client.clear_scroll(body={"scroll_id": [answer["_scroll_id"]]}, ignore=[404])
