"""Token fields of an index: their layout, and ids for `token_ids`, since OpenSearch's `sparse_vector` has numeric keys.

The table of ids is stored in the index, in `_meta.stair_es.token_ids`: a list of tokens whose position is the id. It is written
when the index is created and never changes, so that concurrent runs agree on it, and snapshots contain it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import get_index_meta
from stair_es.errors import IndexMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.token_policy import TokenPolicy

IDS_FIELD = "token_ids"
"""The field of the documents, and the key of the table in `_meta.stair_es`."""
MAX_IDS = 32_768
"""The plugin stores an id as a signed 16-bit number: larger ones would collide or be negative."""


@dataclass(frozen=True)
class TokenIds:
    """The id of each token of an index."""

    ids: Mapping[str, int]

    @classmethod
    def from_tokens(cls, tokens: Sequence[str]) -> TokenIds:
        """Build the table in which the position of a token is its id."""
        return cls({token: position for position, token in enumerate(tokens)})

    def extend_for_policy(self, policy: TokenPolicy | None) -> TokenIds:
        """Return the ids that documents under a policy have.

        A new name that the table lacks gets the lowest id of the tokens that it replaces, since no document under the policy has
        those any more. So a policy requires no change of the table.
        """
        added: dict[str, int] = {}
        for token, target in (policy.replacements if policy else {}).items():
            if token in self.ids and target not in self.ids:
                added[target] = min(self.ids[token], added.get(target, MAX_IDS))
        return TokenIds({**self.ids, **added}) if added else self

    def convert_weights(self, weights: Iterable[tuple[str, float]]) -> dict[str, float]:
        """Convert token weights to weights by id, as JSON keys; tokens without an id are left out."""
        return {str(self.ids[token]): weight for token, weight in weights if token in self.ids}

    def list_unknown(self, tokens: Iterable[str]) -> list[str]:
        """List the tokens that have no id."""
        return [token for token in tokens if token not in self.ids]


def parse_token_table(index: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Parse the table from a GET mapping response; None without a valid one."""
    tokens = get_index_meta(index).get(IDS_FIELD)
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    return tuple(tokens) if len(set(tokens)) == len(tokens) <= MAX_IDS else None


@dataclass(frozen=True, kw_only=True)
class TokenFieldLayout:
    """Layout of the token fields of an index."""

    vector: str
    """Field type of `tokens`."""
    top_token_count: int
    """Length of `top_tokens`."""
    max_clauses: int
    """Maximum number of clauses per query."""
    token_ids: TokenIds | None = None
    """Ids of an index with the field `token_ids`, without a policy."""

    @classmethod
    def from_index(cls, index: Mapping[str, Any], max_clauses: int) -> TokenFieldLayout:
        """Build the layout from a GET index response."""
        tokens = index.get("mappings", {}).get("properties", {}).get("tokens", {})
        settings = get_index_meta(index).get("settings", {})
        top_token_count = settings.get("top_token_count", DocumentSettings().top_token_count)
        table = parse_token_table(index)
        return cls(
            vector=tokens.get("type", "rank_features"),
            top_token_count=int(top_token_count),
            max_clauses=max_clauses,
            token_ids=None if table is None else TokenIds.from_tokens(table),
        )


def read_token_ids(cluster: Cluster, name: str) -> TokenIds:
    """Read the table of an index.

    Raises:
        IndexMismatch: If it has none.
        ClusterError: If the request fails.
    """
    found = cluster.call(cluster.client.indices.get_mapping, index=name)
    tokens = parse_token_table(found[name])
    if tokens is None:
        raise build_no_table_error(name)
    return TokenIds.from_tokens(tokens)


def build_no_table_error(name: str) -> IndexMismatch:
    """Build the error for an index without a table of ids."""
    return IndexMismatch(
        f"index {name!r} has no table of token ids (`_meta.stair_es.{IDS_FIELD}`)",
        "Build a new index: stair-es ingest SOURCE --vector seismic --index NEW",
    )
