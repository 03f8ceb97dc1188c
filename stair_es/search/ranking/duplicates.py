"""Fold the hits of a page that show the same picture: copies of a file, also in another size or quality. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stair_es.search.results import Hit, SearchResult

if TYPE_CHECKING:
    from stair_es.search.dsl.pagination import Cursor

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
MAX_EXTRA_REQUESTS = 4
"""Requests for further hits instead of folded ones: a folder of 1,000 copies isn't read to its end."""
_HASH_DIGITS = 16
_BANDS = 8
"""Two hashes that differ in fewer bits than there are bands have one in common."""


def collect_pictures(fetch: Callable[[Cursor | None], SearchResult], k: int, after: Cursor | None = None) -> SearchResult:
    """Fetch pages of hits until there are `k` different pictures, and fold them.

    The cursor is that of the last hit that was folded or kept, so that no picture is skipped. A copy that ranks further down
    begins a separate hit on a later page: a caller that shows several pages folds again.

    Args:
        fetch: Returns the page of `k` hits after a cursor.
        k: Number of pictures.
        after: The cursor of the previous page.
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
    """Fold hits that show the same picture into the best of them, as its `duplicates`; the order stays.

    Args:
        hits: Hits, best first, with `sha256`, `perceptual_hash`, `width`, `height`, `tokens` and `colors` in `source`; without
            these fields, except `colors`, nothing is folded.
    """
    kept: list[Hit] = []
    copies: list[list[Hit]] = []
    places: dict[object, list[int]] = {}
    for hit in hits:
        keys = _list_keys(hit.source)
        candidates = sorted({place for key in keys for place in places.get(key, ())})
        place = next((place for place in candidates if is_same_picture(kept[place].source, hit.source)), None)
        if place is not None:
            copies[place].append(hit)
            continue
        for key in keys:
            places.setdefault(key, []).append(len(kept))
        kept.append(hit)
        copies.append([])
    return tuple(replace(hit, duplicates=tuple(more)) if more else hit for hit, more in zip(kept, copies, strict=True))


def is_same_picture(source: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Check whether two documents show the same picture: the same bytes, or nearly the same pixels, shape, colors and tokens."""
    if source.get("sha256") and source.get("sha256") == other.get("sha256"):
        return True
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
