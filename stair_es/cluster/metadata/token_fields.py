"""The layout of the token fields of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import get_index_meta

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class TokenFieldLayout:
    """Layout of the token fields of an index."""

    vector: str
    """Field type of `tokens`."""
    top_token_count: int
    """Length of `top_tokens`."""
    max_clauses: int
    """Maximum number of clauses per query."""

    @classmethod
    def from_index(cls, index: Mapping[str, Any], max_clauses: int) -> TokenFieldLayout:
        """Build the layout from a GET index response."""
        tokens = index.get("mappings", {}).get("properties", {}).get("tokens", {})
        settings = get_index_meta(index).get("settings", {})
        top_token_count = settings.get("top_token_count", DocumentSettings().top_token_count)
        return cls(vector=tokens.get("type", "rank_features"), top_token_count=int(top_token_count), max_clauses=max_clauses)
