"""Rankings: leave out what a cluster adds to scores, fold copies of an image, and fuse two rankings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stair_es.cluster.documents.document import IMPACT_SCALE
from stair_es.errors import QueryError
from stair_es.search.dsl.pagination import Cursor
from stair_es.search.query import SearchQuery
from stair_es.search.results import Hit, SearchResult, get_document_uri

_ROUNDING = 1e-5
"""Relative error of a sum in float32, with a margin. Stored weights are truncated, which only makes a score smaller."""
_REPLACED = 2.0**-48
"""A smaller share of a score is left only if a search pipeline of the index replaces scores, which ignores the scale."""


class AddedScores:
    """What is known of the scores that the cluster adds for one index and user. Thread safe.

    OpenSearch's document-level security adds 1 to the score of a document for each role of the user that permits it. This
    changes weak matches, `min_score` and, since the sums differ between documents, the order of hits.
    """

    def __init__(self) -> None:
        """Begin without knowledge."""
        self._found: bool | None = None
        """Whether the same hits had higher scores without amplification; None if they were never compared."""
        self._looks_plain = False
        """Whether a search by tokens had the expected scores."""

    @property
    def are_found(self) -> bool:
        """Whether the cluster adds to scores, as far as it is known."""
        return bool(self._found)

    def exclude(self, query: SearchQuery) -> SearchQuery:
        """Return the query so that added scores don't count, if there are any, or if it isn't known and `min_score` needs it."""
        is_unknown = self._found is None and not self._looks_plain
        return query.amplify() if self._found or (is_unknown and query.min_score is not None) else query

    def search(
        self, query: SearchQuery, send: Callable[[SearchQuery], SearchResult], *, by_tokens: bool, is_first: bool
    ) -> SearchResult:
        """Search, and search again with amplified scores if the cluster seems to add to them.

        Scores are dot products of tokens alone if `by_tokens`. After the first page, raised scores can also leave no hits.
        """
        found = self._found  # read once: another thread may find out in between
        result = send(query.amplify() if found else query)
        if found is not None or (self._looks_plain and not by_tokens):
            return result
        if not self._is_suspicious(result, by_tokens=by_tokens, is_first=is_first):
            self._looks_plain |= bool(result.hits) and by_tokens
            return result
        return self._compare(result, send(query.amplify()))

    def _is_suspicious(self, result: SearchResult, *, by_tokens: bool, is_first: bool) -> bool:
        if not result.hits:
            return not is_first and not self._looks_plain
        raised = [_is_raised(hit) for hit in result.hits if not hit.caption_words] or [True]  # captions raise the others
        return any(raised) if by_tokens else all(raised)

    def _compare(self, result: SearchResult, exact: SearchResult) -> SearchResult:
        """Return the result whose scores count."""
        scores = {(hit.index, hit.id): hit.score for hit in result.hits}
        common = [(scores[key], hit.score) for hit in exact.hits if (key := (hit.index, hit.id)) in scores]
        if any(score < raised * _REPLACED for raised, score in common):
            self._found = False
            return result
        if common:
            self._found = any(raised > score * (1 + _ROUNDING) for raised, score in common)
        elif exact.hits and not scores:
            self._found = True
        return exact


def _is_raised(hit: Hit) -> bool:
    """Check whether a score is above the dot product; that of `impacts` may be, by a thousandth of each weight of the query."""
    slack = sum(each.query_weight for each in hit.contributions) / IMPACT_SCALE
    return hit.text_score > _ROUNDING * hit.score + slack


MAX_BITS = 4
"""Number of differing bits, of 64, up to which two perceptual hashes may belong to the same picture.

Chosen on the bundled photos and 120 of Tux Paint: copies of half the size or lower quality are within 4 (98 to 100 %), those with
2 % cut off each side in 56 to 65 %, and none of 7,920 pairs of different pictures. 6 would find 80 % of the cut ones, and would
also fold three times as many frames of bursts that zoom.
"""
MIN_COSINE = 0.5
"""Cosine of the token weights from which two hits with such hashes show the same picture. Low, since a model sees other words in
a smaller copy: for pictures of Tux Paint in half the size the median is 0.9, in a quarter 0.53."""
MAX_ASPECT_DIFFERENCE = 0.05
MAX_EXTRA_REQUESTS = 16
"""Requests for further hits instead of folded ones: a folder of 1,000 copies isn't read to its end."""
_HASH_DIGITS = 16
_BANDS = 8
"""Two hashes that differ in fewer bits than there are bands have one in common."""


def collect_pictures(fetch: Callable[[Cursor | None], SearchResult], k: int, after: Cursor | None = None) -> SearchResult:
    """Fetch pages of hits until there are `k` different pictures, and fold them.

    The cursor is that of the last hit that was folded or kept, so that no picture is skipped. A copy that ranks further down
    begins a separate hit on a later page: a caller that shows several pages folds again.
    """
    page = first = fetch(after)
    hits, took_ms = list(page.hits), page.took_ms
    kept = fold_duplicates(hits)
    for _ in range(MAX_EXTRA_REQUESTS):
        if len(kept) >= k or page.after is None:
            break
        page = fetch(page.after)
        hits += page.hits
        took_ms += page.took_ms
        kept = fold_duplicates(hits)
    if len(kept) <= k:
        return replace(first, hits=kept, took_ms=took_ms, after=page.after)
    end = next(place for place, hit in enumerate(hits) if (hit.id, hit.index) == (kept[k].id, kept[k].index))
    return replace(first, hits=fold_duplicates(hits[:end]), took_ms=took_ms, after=hits[end - 1].cursor)


def fold_duplicates(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Fold hits that show the same picture, or pages of the same document, into the best of them, as its `duplicates`.

    The order stays.

    The `source` of hits needs `sha256`, `perceptual_hash`, `width`, `height`, `tokens` and `colors`, and of pages `uri` and
    `parent`; without these fields, except `colors`, nothing is folded.
    """
    kept: list[Hit] = []
    copies: list[list[Hit]] = []
    places: dict[object, list[int]] = {}
    for hit in hits:
        keys = _list_keys(hit.source)
        candidates = sorted({place for key in keys for place in places.get(key, ())})
        document = get_document_uri(hit.source)
        place = next(
            (
                place
                for place in candidates
                if is_same_picture(kept[place].source, hit.source)
                or (document is not None and document == get_document_uri(kept[place].source))
            ),
            None,
        )
        if place is not None:
            copies[place].append(hit)
            continue
        for key in keys:
            places.setdefault(key, []).append(len(kept))
        kept.append(hit)
        copies.append([])
    return tuple(replace(hit, duplicates=tuple(more)) if more else hit for hit, more in zip(kept, copies, strict=True))


def is_same_picture(source: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Check whether two documents show the same picture: the same bytes, or nearly the same pixels, shape, colors and tokens.

    Pages of text look alike: only the same bytes count for them.
    """
    if source.get("sha256") and source.get("sha256") == other.get("sha256"):
        return True
    if get_document_uri(source) or get_document_uri(other):
        return False
    hashes = [_parse_hash(each.get("perceptual_hash")) for each in (source, other)]
    if hashes[0] is None or hashes[1] is None or (hashes[0] ^ hashes[1]).bit_count() > MAX_BITS:
        return False
    aspects = [_compute_aspect(each) for each in (source, other)]
    if not aspects[0] or not aspects[1] or abs(math.log(aspects[0] / aspects[1])) > MAX_ASPECT_DIFFERENCE:
        return False
    if not share_main_colors(source.get("colors"), other.get("colors")):
        return False
    return _compute_cosine(source.get("tokens"), other.get("tokens")) >= MIN_COSINE


def share_main_colors(colors: object, others: object) -> bool:
    """Check whether each of two pictures has the main color of the other; True if one lists no colors.

    A difference hash sees no colors: a red shirt and a blue one in the same pose have the same.
    """
    if not (isinstance(colors, list | tuple) and isinstance(others, list | tuple) and colors and others):
        return True
    return colors[0] in others and others[0] in colors


def _list_keys(source: Mapping[str, Any]) -> list[object]:
    """List keys of which two documents of the same picture have at least one in common."""
    digest, value = source.get("sha256"), _parse_hash(source.get("perceptual_hash"))
    keys: list[object] = [digest] if isinstance(digest, str) and digest else []
    if document := get_document_uri(source):
        return [*keys, document]
    return keys if value is None else [*keys, *((band, value >> (8 * band) & 0xFF) for band in range(_BANDS))]


def _parse_hash(value: object) -> int | None:
    if not isinstance(value, str) or len(value) != _HASH_DIGITS:
        return None
    try:
        return int(value, 16)
    except ValueError:
        return None


def _compute_aspect(source: Mapping[str, Any]) -> float:
    width, height = source.get("width"), source.get("height")
    is_size = isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0
    return width / height if is_size else 0.0  # type: ignore[operator]  # checked


def _compute_cosine(tokens: object, other: object) -> float:
    if not isinstance(tokens, Mapping) or not isinstance(other, Mapping):
        return 0.0
    try:
        norm = math.hypot(*tokens.values()) * math.hypot(*other.values())
        return sum(weight * other.get(token, 0.0) for token, weight in tokens.items()) / norm if norm else 0.0
    except TypeError:  # a weight that is not a number: the document isn't ours
        return 0.0


RRF_RANK_CONSTANT = 60


def check_fusion(query: SearchQuery, after: Cursor | None) -> None:
    """Check that a query has two rankings that can be fused."""
    if not query.caption.strip():
        raise QueryError(
            "rank fusion requires words that are searched in captions, and documents that have some",
            "Omit rrf, or pass the text of a caption.",
            code="rrf-without-inputs",
        )
    if after is not None or query.min_score is not None:
        raise QueryError(
            "rank fusion supports neither pagination nor min_score", "Use a larger k instead.", code="rrf-not-pageable"
        )
    if query.caption_weight == 0:
        raise QueryError(
            "rank fusion with a caption weight of 0 is a search by tokens alone", "Omit rrf.", code="rrf-without-caption"
        )


def fuse_rankings(by_tokens: SearchResult, by_caption: SearchResult, caption_weight: float, k: int) -> SearchResult:
    """Fuse two rankings to the `k` best hits, with the scores and ranks of the fusion.

    `caption_weight` is the weight of the caption's ranks; that of the tokens is 1. Contributions, truncated and pruned tokens
    are those of `by_tokens`.
    """
    rankings = [[_build_key(hit) for hit in result.hits] for result in (by_tokens, by_caption)]
    ranks = [{key: rank for rank, key in enumerate(ranking, start=1)} for ranking in rankings]
    by_key: dict[str, Hit] = {_build_key(hit): hit for hit in (*by_caption.hits, *by_tokens.hits)}
    hits = []
    for key, score in fuse_reciprocal_ranks(rankings, [1.0, caption_weight])[:k]:
        ranks_of_hit = {name: of[key] for name, of in zip(("tokens", "caption"), ranks, strict=True) if key in of}
        hits.append(replace(by_key[key], score=score, weak=False, ranks=ranks_of_hit, cursor=None))
    took_ms = by_tokens.took_ms + by_caption.took_ms
    return replace(by_tokens, hits=tuple(hits), took_ms=took_ms, after=None, weak_below=None)  # scores are of ranks


def fuse_reciprocal_ranks(rankings: Sequence[Sequence[str]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Return ids with the sum of `weight / (RRF_RANK_CONSTANT + rank)` over the rankings that have them, best first (ties by id).

    Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009; ranks count from 1.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] += weight / (RRF_RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def _build_key(hit: Hit) -> str:
    """Return a key that is unique where an alias points to several indices with the same ids."""
    return f"{hit.id} {hit.index}"
