"""Preview of a policy: reads the vectors of all documents that it may change, and changes nothing."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import parse_policy_undo, parse_token_weights
from stair_es.cluster.documents.read import WRITE_ORDER, count_matches, paginate_hits
from stair_es.cluster.metadata.policy_state import check_policy_fields
from stair_es.cluster.policy.manager import PolicyTarget
from stair_es.cluster.policy.script import build_affected_query
from stair_es.token_policy import TokenPolicy
from stair_es.types import ProgressCallback, SparseVector

_PAGE_SIZE = 1000
_FIELDS = ["uri", "tokens", "policy", "policy_undo"]


@dataclass(frozen=True, kw_only=True)
class DocumentChange:
    """A document that would change."""

    id: str
    uri: str
    before: SparseVector
    after: SparseVector
    rules: tuple[str, ...]
    """Rules that would apply; none for a document that would only lose another policy."""

    @property
    def token_changes(self) -> dict[str, tuple[float | None, float | None]]:
        """Token -> weight before and after, for tokens that differ; None if the token is missing."""
        before, after = self.before.to_dict(), self.after.to_dict()
        names = [*before, *(token for token in after if token not in before)]
        return {token: (before.get(token), after.get(token)) for token in names if before.get(token) != after.get(token)}

    @cached_property
    def difference(self) -> float:
        """Sum of the weight differences of all tokens."""
        return sum(abs((after or 0.0) - (before or 0.0)) for before, after in self.token_changes.values())


@dataclass(kw_only=True)
class PolicyPreview:
    """Counts of the documents that a policy would change, complete after all of `preview_changes` has been read."""

    examined: int = 0
    changed: int = 0
    emptied: int = 0
    """Changed documents that would have no token left."""
    only_reverted: int = 0
    """Changed documents without a matching rule: they would only lose another policy."""
    rules: Counter[str] = field(default_factory=Counter)
    """Documents per rule; a document may be counted for several rules."""


def preview_changes(
    cluster: Cluster,
    target: PolicyTarget,
    policy: TokenPolicy | None,
    preview: PolicyPreview,
    progress: ProgressCallback = lambda done, total: None,
) -> Iterator[DocumentChange]:
    """Compare each document with what `policy`, or its removal, would make of it, and yield those that would change.

    `preview` gets the counts, `progress` the number of documents read so far, and of all.

    Raises:
        IndexMismatch: If documents have columns with the names of policy fields.
    """
    check_policy_fields(target.properties, f"index {target.name!r}")
    query = build_affected_query(policy, target.layout)
    total = count_matches(cluster, target.name, query)
    pages = paginate_hits(cluster, target.name, {"query": query, "_source": _FIELDS}, size=_PAGE_SIZE, sort=WRITE_ORDER)
    for hit in chain.from_iterable(pages):
        preview.examined += 1
        change = _compute_change(hit, policy)
        if change is not None:
            preview.changed += 1
            preview.emptied += not change.after
            preview.only_reverted += not change.rules
            preview.rules.update(change.rules)
            yield change
        progress(preview.examined, total)


def add_change_sample(samples: list[DocumentChange], change: DocumentChange, max_samples: int) -> None:
    """Add a change to the samples, which keep the `max_samples` changes with the largest difference (ties by id)."""
    insort(samples, change, key=lambda sample: (-sample.difference, sample.id))
    del samples[max_samples:]


def _compute_change(hit: Mapping[str, Any], policy: TokenPolicy | None) -> DocumentChange | None:
    source = hit["_source"]
    tokens = source.get("tokens")
    if not isinstance(tokens, dict):
        return None
    try:
        before = SparseVector.from_mapping(parse_token_weights(tokens))
        original = parse_policy_undo(source).restore(before)
    except (TypeError, ValueError):  # of a document that another program has written: apply counts it as failed
        return None
    applied = policy.apply(original) if policy else None
    after = applied.vector if applied else original
    digest = policy.digest if policy and applied and applied.undo else None
    if after == before and source.get("policy") == digest:
        return None
    return DocumentChange(
        id=hit["_id"], uri=source.get("uri", ""), before=before, after=after, rules=applied.rules if applied else ()
    )
