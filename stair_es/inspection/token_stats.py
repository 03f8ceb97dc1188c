"""Token statistics, computed by adding up images, and stop words. Pure functions.

**Uniformity.** A query token adds its weight in the query times its weight `w` in the image to the score. A contribution that is
the same for every image changes no ranking. So take the weights of a token in all `N` images, 0 if an image lacks it, and split
their sum of squares into the part that a constant explains and the rest:

    uniformity = (sum of w)^2 / (N x sum of w^2) = p / (1 + v^2)

with `p` the share of images that have the token and `v` the coefficient of variation of its weight among those. It is the
squared cosine between the token and a constant: 1 for a token with one weight in every image, at most `p` for any other. A token
that is in every image but much heavier in some keeps a low uniformity, as does a rare token: a plain limit on `p` (or on idf, its
logarithm) would remove the first, and a limit on the variation alone the second.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from stair_es.config.defaults import DEFAULT_UNIFORMITY
from stair_es.feature_names import unescape_feature
from stair_es.token_policy import TokenPolicy
from stair_es.types import StatsOrder

MIN_IMAGES = 20
"""Minimum number of images to find stop words in: with two images, each token that one of them has would be flat."""


@dataclass(frozen=True, kw_only=True)
class TokenStats:
    """Statistics of one token."""

    token: str
    images: int
    image_share: float
    mean_weight: float
    """Mean weight in the images that have it."""
    max_weight: float
    weight_share: float
    """Share of the total weight of all tokens."""
    uniformity: float
    """0 to 1: how uniform its weight is over all images."""
    example: str
    """URI of the image with its largest weight."""


class StatsAccumulator:
    """Accumulates token statistics over images. Memory grows with the vocabulary, not with the number of images."""

    def __init__(self) -> None:
        self.images = 0
        self.empty = 0
        """Images without tokens."""
        self.occurrences = 0
        """Number of tokens of all images together."""
        self._sums: dict[str, _TokenSums] = {}
        self._names: dict[str, str] = {}

    def add_image(self, tokens: object, uri: str) -> None:
        """Add one image with its stored tokens; values that aren't positive numbers are ignored."""
        self.images += 1
        before = self.occurrences
        if isinstance(tokens, Mapping):
            self._add_tokens(tokens, uri)
        self.empty += before == self.occurrences

    def _add_tokens(self, tokens: Mapping[str, object], uri: str) -> None:
        names, sums_by_token = self._names, self._sums
        for key, value in tokens.items():
            weight = value if type(value) is float else _parse_number(value)
            if not 0.0 < weight < math.inf:
                continue
            self.occurrences += 1
            if key not in names:
                names[key] = unescape_feature(key)
                sums_by_token.setdefault(names[key], _TokenSums())
            sums = sums_by_token[names[key]]
            sums.images += 1
            sums.weight += weight
            sums.square += weight * weight
            if weight > sums.max:
                sums.max, sums.example = weight, uri

    def compute_stats(self) -> tuple[TokenStats, ...]:
        """Compute the statistics of each token, the most frequent token first."""
        total = math.fsum(sums.weight for sums in self._sums.values())
        stats = (
            TokenStats(
                token=token,
                images=sums.images,
                image_share=sums.images / self.images,
                mean_weight=sums.weight / sums.images,
                max_weight=sums.max,
                weight_share=sums.weight / total,
                uniformity=min(1.0, sums.weight * sums.weight / (self.images * sums.square)) if sums.square else 0.0,
                example=sums.example,
            )
            for token, sums in self._sums.items()
        )
        return sort_token_stats(stats, "df")


class _TokenSums:
    __slots__ = ("example", "images", "max", "square", "weight")

    def __init__(self) -> None:
        self.images, self.weight, self.square, self.max, self.example = 0, 0.0, 0.0, 0.0, ""


def sort_token_stats(stats: Iterable[TokenStats], order: StatsOrder) -> tuple[TokenStats, ...]:
    """Sort statistics in descending order; ties by frequency, then by name."""
    fields = {"df": "images", "mean": "mean_weight", "max": "max_weight", "share": "weight_share", "uniformity": "uniformity"}
    name = fields[order]
    return tuple(sorted(stats, key=lambda row: (-getattr(row, name), -row.images, row.token)))


def match_tokens(tokens: Iterable[str], pattern: str) -> set[str]:
    """Return the tokens that match a pattern with `*`, `?` or `[...]`, or that begin with a text without them."""
    if any(sign in pattern for sign in "*?["):
        return {token for token in tokens if fnmatch.fnmatchcase(token, pattern)}
    return {token for token in tokens if token.startswith(pattern)}


def _parse_number(value: object) -> float:
    if isinstance(value, (int, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return 0.0
    return 0.0


def find_stop_words(stats: Sequence[TokenStats], images: int, threshold: float = DEFAULT_UNIFORMITY) -> tuple[TokenStats, ...]:
    """Find the tokens that don't distinguish images, the flattest first; none if there are too few images."""
    if images < MIN_IMAGES:
        return ()
    return sort_token_stats((row for row in stats if row.uniformity >= threshold), "uniformity")


def build_stop_word_policy(tokens: Iterable[str], policy: TokenPolicy | None, name: str) -> tuple[TokenPolicy, tuple[str, ...]]:
    """Build a policy that mutes `tokens` in addition to the policy of the index; also return the tokens it can't mute.

    A new policy replaces the previous one, so the existing rules are kept. A token that is source or target of a rename or
    merge rule can't also be muted.
    """
    base = policy or TokenPolicy()
    moved = {*base.replacements, *base.replacements.values()}
    new = [token for token in dict.fromkeys(tokens) if token not in base.mute]
    muted = [token for token in new if token not in moved]
    floor, cap = ({token: limit for token, limit in kind.items() if token not in muted} for kind in (base.floor, base.cap))
    rejected = tuple(token for token in new if token in moved)
    return replace(base, name=name, mute=(*base.mute, *muted), floor=floor, cap=cap), rejected
