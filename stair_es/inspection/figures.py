"""What is counted of each word of a corpus, and which words don't tell images apart. Pure.

**Flatness.** A query's word adds its weight in the query times its weight `w` in the image to a score. What is the same for every
image changes no ranking. So take the weights of a word in all `N` images, 0 where an image lacks it, and split their sum of
squares into what a constant explains and the rest:

    flatness = (sum of w)^2 / (N x sum of w^2) = p / (1 + v^2)

with `p` the share of images that have the word and `v` the coefficient of variation of its weight among those. It is the squared
cosine between the word and a constant: 1 for a word with one weight in every image, at most `p` for any other. A word that is
everywhere but much heavier in some images keeps a low flatness, as does a word of few images: a plain limit on `p` (or on idf,
its logarithm) would take the first, and a limit on the spread alone the second.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from stair_es.vocab import unescape

Order = Literal["df", "mean", "max", "share", "flat"]


@dataclass(frozen=True, kw_only=True)
class WordFigures:
    """One word in a corpus."""

    word: str
    images: int
    """That have it."""
    share: float
    """Of all images."""
    mean: float
    """Weight in those that have it."""
    max: float
    weight_share: float
    """Of the weight of all words."""
    flatness: float
    """0 to 1: how far its weights over all images are one number."""
    example: str
    """URI of the image in which it is heaviest."""


class Tally:
    """Adds images up. Its memory is that of the vocabulary, however many images there are."""

    def __init__(self) -> None:
        self.images = 0
        self.empty = 0
        """Images without a word."""
        self.occurrences = 0
        """Words of all images together."""
        self._words: dict[str, _Sums] = {}
        self._names: dict[str, str] = {}

    def add(self, tokens: object, uri: str) -> None:
        """Count one image with these words, as they are stored: what is no weight is left out."""
        self.images += 1
        before = self.occurrences
        if isinstance(tokens, Mapping):
            self._add(tokens, uri)
        self.empty += before == self.occurrences

    def _add(self, tokens: Mapping[str, object], uri: str) -> None:
        names, words = self._names, self._words
        for key, given in tokens.items():
            weight = given if type(given) is float else _number(given)
            if not 0.0 < weight < math.inf:
                continue
            self.occurrences += 1
            if key not in names:
                names[key] = unescape(key)
                words.setdefault(names[key], _Sums())
            sums = words[names[key]]
            sums.images += 1
            sums.weight += weight
            sums.square += weight * weight
            if weight > sums.max:
                sums.max, sums.example = weight, uri

    def figures(self) -> tuple[WordFigures, ...]:
        """Of each word, the one that most images have first."""
        total = math.fsum(sums.weight for sums in self._words.values())
        found = (
            WordFigures(
                word=word,
                images=sums.images,
                share=sums.images / self.images,
                mean=sums.weight / sums.images,
                max=sums.max,
                weight_share=sums.weight / total,
                flatness=min(1.0, sums.weight * sums.weight / (self.images * sums.square)) if sums.square else 0.0,
                example=sums.example,
            )
            for word, sums in self._words.items()
        )
        return ordered(found, "df")


class _Sums:
    __slots__ = ("example", "images", "max", "square", "weight")

    def __init__(self) -> None:
        self.images, self.weight, self.square, self.max, self.example = 0, 0.0, 0.0, 0.0, ""


def ordered(figures: Iterable[WordFigures], order: Order) -> tuple[WordFigures, ...]:
    """Largest first; of equal ones the more frequent, then by name."""
    name = {"df": "images", "mean": "mean", "max": "max", "share": "weight_share", "flat": "flatness"}[order]
    return tuple(sorted(figures, key=lambda row: (-getattr(row, name), -row.images, row.word)))


def matching(words: Iterable[str], pattern: str) -> set[str]:
    """The words that a pattern with `*`, `?` or `[...]` describes, or those that begin with a text without them."""
    if any(sign in pattern for sign in "*?["):
        return {word for word in words if fnmatch.fnmatchcase(word, pattern)}
    return {word for word in words if word.startswith(pattern)}


def _number(given: object) -> float:
    """0 for what is no number."""
    if isinstance(given, (int, str)):
        try:
            return float(given)
        except (ValueError, OverflowError):
            return 0.0
    return 0.0
