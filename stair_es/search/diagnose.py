"""Explain the rank of a document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stair_es.errors import QueryError
from stair_es.feature_names import unescape_feature
from stair_es.search.options import SearchOptions, prune_vector
from stair_es.search.query import CaptionWord, SearchQuery, TokenGroup, join_pieces
from stair_es.search.request import build_text_condition, choose_min_weight, quantize_weight
from stair_es.search.results import Hit, TokenContribution, build_document_filter, explain_score
from stair_es.search.searcher import Searcher
from stair_es.types import SparseVector

_MAX_LISTED = 8


@dataclass(frozen=True, kw_only=True)
class RankExplanation:
    """The explanation of the rank of one document for one query."""

    id: str
    uri: str
    score: float | None
    """The score of the engine; None if it doesn't find the document."""
    rank: int | None
    """1 + the number of documents with a higher score."""
    cutoff_score: float | None
    """The score of the last requested hit; None if there are fewer hits."""
    contributions: tuple[TokenContribution, ...]
    labels: Mapping[str, float]
    """The labels of the document that are searched -> their weights."""
    missing_tokens: SparseVector
    """The tokens of the query that the document lacks."""
    extra_tokens: SparseVector
    """The tokens of the document that the query lacks."""
    failed_conditions: tuple[str, ...]
    """The conditions that the document fails, as text."""


def explain_rank(
    searcher: Searcher, query: SearchQuery, reference: str, *, k: int = 10, options: SearchOptions | None = None
) -> RankExplanation:
    """Explain the rank of the document with an `_id` or URI, or why it is not among the `k` best hits.

    Raises:
        QueryError: If there is no such document, if ranks are fused, or as for `Searcher.search`.
    """
    options = options or SearchOptions()
    if options.fusion == "rrf":
        raise QueryError(
            "explain does not support --hybrid rrf", "Use --hybrid sum, or omit the caption.", code="rrf-not-explainable"
        )
    pruned_vector = prune_vector(query.vector, options.weight_mass)
    options = replace(options, weight_mass=None)
    query = searcher.refine_query(searcher.apply_policy(replace(query, vector=pruned_vector.kept)), options)
    document = searcher.find_document(reference)
    if document is None:
        raise QueryError(
            f"the index has no document with the id or URI {reference!r}",
            "`stair-es search --json` prints both.",
            code="no-such-image",
        )
    tokens = document.source.get("tokens") or {}
    hits = searcher.search(
        replace(query, filters=[*query.filters, build_document_filter(document)], min_score=None), 1, options=options
    ).hits
    top_hits = searcher.search(query, k, options=options).hits
    score = hits[0].score if hits else None
    failed_conditions = list_failed_tokens(query, tokens)
    failed_conditions += _list_failed_words(searcher, query, document)
    for clause in (*query.filters, *(condition.clause for condition in query.conditions)):
        if not searcher.is_match(document, clause):
            failed_conditions.append(f"it doesn't match the filter {json.dumps(clause, ensure_ascii=False)}")
    if score is not None and query.min_score is not None and score < np.float32(query.min_score):
        failed_conditions.append(f"its score {score:.5g} is below the minimum score {query.min_score:g}")
        score = None
    common, missing, extra = compare_tokens(query, tokens)
    if score is None and not failed_conditions:
        failed_conditions.append(_explain_no_match(bool(common), explain_score(pruned_vector.pruned, tokens)))
    rank = None
    if score is not None:
        next_score = float(np.nextafter(np.float32(score), np.float32(np.inf)))  # in float32, as the engine compares
        rank = 1 + searcher.count(replace(query, min_score=next_score), options=options)
    return RankExplanation(
        id=document.id,
        uri=document.uri,
        score=score,
        rank=rank,
        cutoff_score=top_hits[-1].score if len(top_hits) == k else None,
        contributions=common,
        labels=hits[0].labels if hits else {},
        missing_tokens=missing,
        extra_tokens=extra,
        failed_conditions=tuple(failed_conditions),
    )


def _explain_no_match(common: bool, pruned: Sequence[TokenContribution]) -> str:
    """Explain why a document that fails no condition is not found."""
    if common:
        return "its matching tokens were not used to find documents: `impacts` or the clause limit leave some out"
    if pruned:
        tokens = ", ".join(contribution.token for contribution in pruned[:_MAX_LISTED])
        return f"it has none of the tokens that were sent, only tokens that pruning left out: {tokens}"
    return "it has no token of the query"


def compare_tokens(
    query: SearchQuery, tokens: Mapping[str, float]
) -> tuple[tuple[TokenContribution, ...], SparseVector, SparseVector]:
    """Compare a query with the stored `tokens` of a document: common, missing and extra tokens."""
    document_vector = SparseVector.from_pairs((unescape_feature(token), float(weight)) for token, weight in tokens.items())
    query_vector = query.vector
    missing = SparseVector.from_pairs(pair for pair in query_vector if pair[0] not in set(document_vector.tokens))
    extra = SparseVector.from_pairs(pair for pair in document_vector if pair[0] not in set(query_vector.tokens))
    return explain_score(query_vector, tokens), missing, extra


def _list_failed_words(searcher: Searcher, query: SearchQuery, document: Hit) -> Iterator[str]:
    """List the required words that neither caption, labels nor tokens of a document have, and the excluded words that one has."""
    weights = _read_weights(document.source.get("tokens") or {})

    def has_word(word: CaptionWord) -> bool:
        by_tokens = bool(word.tokens) and _has_tokens(word.tokens, weights, choose_min_weight(word.tokens, query))
        return by_tokens or searcher.is_match(document, build_text_condition(word, query))

    yield from (f"it lacks the required word {word.text}" for word in query.required_words if not has_word(word))
    yield from (f"it has the excluded word {word.text}" for word in query.excluded_words if has_word(word))


def list_failed_tokens(query: SearchQuery, tokens: Mapping[str, float]) -> list[str]:
    """List the required tokens that a document lacks, and the excluded tokens that it has."""
    weights, threshold = _read_weights(tokens), query.min_weight
    at_least = f" of {threshold:g} or more" if threshold else ""

    def has_word(group: TokenGroup) -> bool:
        return _has_tokens(group, weights, choose_min_weight(group, query))

    missing = [group for group in query.required if not has_word(group)]
    present = [group for group in query.excluded if has_word(group)]
    return [
        *(
            f"it lacks the required word {join_pieces(group)}{at_least} (weight {_get_lowest_weight(group, weights):g})"
            for group in missing
        ),
        *(f"it has the excluded word {join_pieces(group)} (weight {_get_lowest_weight(group, weights):g})" for group in present),
    ]


def _read_weights(tokens: Mapping[str, float]) -> dict[str, float]:
    return {unescape_feature(token): float(weight) for token, weight in tokens.items()}


def _has_tokens(group: Sequence[str], weights: Mapping[str, float], threshold: float) -> bool:
    return all(token in weights and quantize_weight(weights[token]) >= quantize_weight(threshold) for token in group)


def _get_lowest_weight(group: Sequence[str], weights: Mapping[str, Any]) -> float:
    return min((float(weights.get(token, 0.0)) for token in group), default=0.0)
