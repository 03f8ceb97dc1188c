"""Search results: hits, and what each token contributes to a score. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.cluster.documents.document import LABELS_FIELD, parse_token_vector
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature, unescape_feature
from stair_es.search.dsl.pagination import Cursor, build_cursor
from stair_es.search.query import EMPTY_VECTOR
from stair_es.search.request import CAPTION_WORD
from stair_es.sources.io.uris import split_page_uri
from stair_es.types import QueryType

if TYPE_CHECKING:
    from stair_es.model.vocabularies.unknown_words import UnknownWord
    from stair_es.search.dsl.understanding import TextCondition
    from stair_es.search.query import MatchCut
    from stair_es.search.request import SearchRequest
    from stair_es.types import SparseVector

_LINEAR = re.compile(r"Linear function on the tokens field for the (?P<feature>.*) feature, computed as w \* S", re.DOTALL)
_TERM = re.compile(r"weight\(impacts:(?P<feature>.*) in \d+\)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class TokenContribution:
    """The contribution of one matching token to a score."""

    token: str
    """The token, not escaped."""
    query_weight: float
    document_weight: float
    """The weight in the document's `_source`; the engine scores with a copy of 9 significant bits, up to 0.39 % smaller."""
    contribution: float
    """The product of both weights, which is what the token adds to the score."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A document that was found."""

    id: str
    uri: str
    score: float
    """The score of the engine, less what a cluster adds; without a caption at most 0.39 % below the sum of the contributions."""
    contributions: tuple[TokenContribution, ...]
    """The matching tokens, by the stored weights."""
    source: Mapping[str, Any]
    """The `_source` of the document, without its thumbnail."""
    index: str = ""
    """The concrete index, where an alias points to several."""
    engine_scores: Mapping[str, float] = field(default_factory=dict)
    """Token -> its contribution by the explanation of the engine, if that was requested."""
    weak: bool = False
    """Whether it is a neighbor of what was searched for, rather than a match (`SearchResult.weak_below`)."""
    caption_words: tuple[str, ...] = ()
    """The words of the query that its caption has, or its labels."""
    labels: Mapping[str, float] = field(default_factory=dict)
    """Its labels that are searched -> their weights."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """`tokens` and `caption` -> the rank in that ranking, where two were fused."""
    cursor: Cursor | None = None
    """The cursor of the hits after this one; None if hits have no total order."""
    duplicates: tuple[Hit, ...] = ()
    """Hits that show the same picture, if they were folded: see `SearchOptions.fold_duplicates`."""

    @property
    def document_uri(self) -> str | None:
        """The URI of the document of which it is a page; None for an image."""
        return get_document_uri(self.source)

    @property
    def text_score(self) -> float:
        """The part of the score that is not from matching tokens: that of the caption and the labels."""
        return self.score - sum(contribution.contribution for contribution in self.contributions)


def get_document_uri(source: Mapping[str, Any]) -> str | None:
    """Return the URI of the document of which a hit is a page; None for an image, whatever a field `parent` of its own says."""
    uri, parent = source.get("uri"), source.get("parent")
    is_page = isinstance(uri, str) and isinstance(parent, str) and split_page_uri(uri)[0] == parent != uri
    return str(parent) if is_page else None


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The result of a search."""

    hits: tuple[Hit, ...]
    """Best first. Empty if no document has a token of the query."""
    took_ms: int
    """Time in the engine, in milliseconds."""
    truncated: SparseVector
    """The tokens of the query that exceed the clause limit of the cluster."""
    pruned: SparseVector
    """The tokens that pruning left out."""
    query_type: QueryType
    after: Cursor | None = None
    """The cursor of the next page; None if there is none."""
    weak_below: float | None = None
    """Score below which hits are weak matches, unless they have each word of the query; None if there is no cut."""
    conditions: tuple[TextCondition, ...] = ()
    """The parts of the text that were read as conditions on fields."""
    unknown_words: tuple[UnknownWord, ...] = ()
    remarks: tuple[str, ...] = ()
    """Notes for the user: how the query was read and sent, and why nothing was found."""


def parse_search_response(response: Mapping[str, Any], request: SearchRequest) -> SearchResult:
    """Parse a response of the cluster."""
    raw_hits = response["hits"]["hits"]
    hits = tuple(
        find_labels(parse_hit(hit, request.vector, request.match_cut, request.scale, by_field=request.by_field), request.labels)
        for hit in raw_hits
    )
    if not all(math.isfinite(hit.score) for hit in hits):
        raise QueryError("scores overflow float32, so the ranking is undefined", "Use smaller weights.", code="scores-overflow")
    return SearchResult(
        hits=hits,
        took_ms=int(response["took"]),
        truncated=request.truncated,
        pruned=EMPTY_VECTOR,
        query_type=request.query_type,
        after=hits[-1].cursor if len(raw_hits) == request.body["size"] else None,
        weak_below=request.match_cut.weak_below if request.match_cut else None,
        remarks=request.remarks,
    )


def parse_hit(
    raw_hit: Mapping[str, Any],
    query_vector: SparseVector,
    match_cut: MatchCut | None = None,
    scale: float = 1.0,
    *,
    by_field: bool = False,
) -> Hit:
    """Parse one element of `hits.hits`; its score is `scale` times as high, as is that in its cursor unless it is `by_field`."""
    source, score = raw_hit.get("_source") or {}, _divide_score(float(raw_hit["_score"]), scale)
    tokens = source.get("tokens") or {}
    cursor = build_cursor(raw_hit["sort"]) if raw_hit.get("sort") else None
    contributions = explain_score(query_vector, tokens)
    names = (str(name) for name in raw_hit.get("matched_queries") or ())
    hit = Hit(
        id=raw_hit["_id"],
        index=str(raw_hit.get("_index", "")),
        uri=str(source.get("uri", "")),
        score=score,
        contributions=contributions,
        caption_words=tuple(name.removeprefix(CAPTION_WORD) for name in names if name.startswith(CAPTION_WORD)),
        source=source,
        engine_scores=parse_explanation(raw_hit["_explanation"]) if "_explanation" in raw_hit else {},
        cursor=cursor if cursor is None or scale == 1 or by_field else [score, *cursor[1:]],
    )
    return hit if match_cut is None else judge_hit(hit, match_cut)


def find_labels(hit: Hit, labels: Sequence[str]) -> Hit:
    """Return the hit with those of some labels that it has."""
    weights = parse_token_vector(hit.source.get(LABELS_FIELD)).to_dict() if labels else {}
    return replace(hit, labels={label: weights[label] for label in labels if label in weights}) if weights else hit


def judge_hit(hit: Hit, match_cut: MatchCut) -> Hit:
    """Tell whether a hit is a weak match."""
    has_captions = any(word.text for word in match_cut.words)  # for which the engine adds to the score
    score = sum(each.contribution for each in hit.contributions) if has_captions else hit.score
    return replace(hit, weak=match_cut.is_weak(score, hit.source.get("tokens") or {}, frozenset(hit.caption_words)))


def _divide_score(score: float, scale: float) -> float:
    """Divide a score by a power of two, and return the shortest number that is the same float32: what an engine prints."""
    return score if scale == 1 else float(str(np.float32(score) / np.float32(scale)))


def explain_score(query: SparseVector, document_tokens: Mapping[str, float]) -> tuple[TokenContribution, ...]:
    """Return the matching tokens, largest contribution first (ties by token); their sum is the exact dot product.

    The tokens of the query are not escaped; those of the document are, as they are stored.
    """
    contributions = []
    for token, query_weight in query:
        document_weight = document_tokens.get(escape_feature(token))
        if document_weight is not None:
            contributions.append(
                TokenContribution(
                    token=token,
                    query_weight=query_weight,
                    document_weight=float(document_weight),
                    contribution=query_weight * float(document_weight),
                )
            )
    return tuple(sorted(contributions, key=lambda contribution: (-contribution.contribution, contribution.token)))


def build_document_filter(hit: Hit) -> dict[str, Any]:
    """Build a clause that matches only this document: an alias can point to several indices with the same ids."""
    return {"bool": {"filter": [{"ids": {"values": [hit.id]}}, {"term": {"_index": hit.index}}]}}


def parse_explanation(explanation: Mapping[str, Any]) -> dict[str, float]:
    """Parse an explanation of the engine to token -> contribution; parts that are not about a token are left out."""
    scores: dict[str, float] = {}
    pending = [explanation]
    while pending:
        part = pending.pop()
        description = str(part.get("description", ""))
        match = _LINEAR.search(description) or _TERM.search(description)
        if match:
            token = unescape_feature(match["feature"])
            scores[token] = scores.get(token, 0.0) + float(part["value"])
        else:
            pending += part.get("details", [])
    return scores
