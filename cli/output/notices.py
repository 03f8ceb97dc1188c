"""Notices about a query: words that the model doesn't know, tokens that were not sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .console import print_notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.model.vocabularies.unknown_words import UnknownWord
    from stair_es.types import QueryType, SparseVector

_MAX_TOKENS = 8


def print_query_notices(unknown_words: Sequence[UnknownWord], remarks: Sequence[str]) -> None:
    """Print which words of a query are unknown, and the remarks on it."""
    for word in unknown_words:
        print_notice(str(word))
    for remark in remarks:
        print_notice(remark)


def print_removed_tokens(truncated: SparseVector, pruned: SparseVector, query_type: QueryType, limit: str) -> None:
    """Print which tokens were not sent, and why.

    Args:
        truncated: Tokens that the query type doesn't support, or that exceed the limit.
        pruned: Tokens removed by pruning.
        query_type: Query type.
        limit: Name of the limit.
    """
    from stair_es.cluster.documents.document import is_single_term

    unsupported = [token for token in truncated.tokens if query_type == "impacts" and not is_single_term(token)]
    if unsupported:
        print_notice(f"`impacts` has no word pieces and symbols; not sent: {', '.join(unsupported[:_MAX_TOKENS])}")
    if len(truncated) > len(unsupported):
        print_notice(f"{limit} is exceeded: the {len(truncated) - len(unsupported)} lightest words of the query were not sent")
    if len(pruned):
        print_notice(f"pruned: {len(pruned)} words of the query were not sent ({', '.join(pruned.tokens[:_MAX_TOKENS])})")
