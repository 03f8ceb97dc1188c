"""Notices about tokens of a query that were not sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .console import print_notice

if TYPE_CHECKING:
    from stair_es.search.dsl.select import QueryType
    from stair_es.types import SparseVector

_MAX_TOKENS = 8
_PHRASE = re.compile(r'"[^"]+"')


def note_plain_operators(query_string: str) -> None:
    """Print a notice if the query looks like a query string, since its operators are read as text."""
    operators = [word for word in ("AND", "OR", "NOT") if word in query_string.split()]
    if operators and not query_string.isupper():
        names = ", ".join(operators)
        print_notice(f"{names} is read as a word; use +word and -word, or --filter, which supports AND, OR and NOT")
    if _PHRASE.search(query_string):
        print_notice("quotes are read as text, not as a phrase (--filter 'caption:\"red car\"' finds a phrase in captions)")


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
