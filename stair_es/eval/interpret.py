"""What words mean: whether those of an image are the ones that people use for it, among all words of the vocabulary. Pure.

The protocol follows STAIR (Chen et al., 2023): every token of the vocabulary is scored for an image (by its weight,
or by the cosine with the dense vector of that token), a class by the best of its tokens, and it is found at k if fewer than
k tokens of the others are as good. Captions are judged in the same way, by the best of their words that are no stop words.

Shape suffixes: V words of the vocabulary, D dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import numpy as np

from stair_es.eval.metrics import Doubles
from stair_es.types import Floats, SparseVector

CUTS = (1, 5, 20, 100)
_ROUNDS = 10


class Ranking(Protocol):
    """All words of the vocabulary, as one image ranks them."""

    def rank(self, own: Collection[str]) -> int | None:
        """The rank of the best of some words among all others, those of the same score before it; None without a known one."""


class ByWeight:
    """The words of a vector; those that it hasn't have the score 0."""

    def __init__(self, vector: SparseVector, vocabulary: Collection[str]) -> None:
        """The weights.

        Args:
            vector: Of an image.
            vocabulary: All words that a vector can have.
        """
        self._weights, self._vocabulary = vector.to_dict(), vocabulary
        self._weights_N = np.array(vector.weights)

    def rank(self, own: Collection[str]) -> int | None:
        """See `Ranking`."""
        known = [word for word in own if word in self._vocabulary]
        if not known:
            return None
        weights = [self._weights.get(word, 0.0) for word in known]
        best = max(weights)
        if not best:
            return len(self._vocabulary) - len(known) + 1
        return int(np.count_nonzero(self._weights_N >= best)) - sum(weight >= best for weight in weights) + 1


class ByCosine:
    """Dense vectors of all words against that of an image."""

    def __init__(self, scores_V: Doubles, places: dict[str, int]) -> None:
        """The scores of the words, and the place of each among them."""
        self._scores_V, self._places = scores_V, places

    def rank(self, own: Collection[str]) -> int | None:
        """See `Ranking`."""
        known = [self._places[word] for word in own if word in self._places]
        if not known:
            return None
        mine = self._scores_V[known]
        best = mine.max()
        return int(np.count_nonzero(self._scores_V >= best) - np.count_nonzero(mine >= best)) + 1


def by_cosine(images_ND: Floats, words: Sequence[str], words_VD: Floats) -> Iterator[ByCosine]:
    """The rankings of images by dense vectors, one after another."""
    places = {word: place for place, word in enumerate(words)}
    wide_VD = words_VD.astype(np.float64)
    for image_D in images_ND.astype(np.float64):
        yield ByCosine(wide_VD @ image_D, places)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Shares of the images, 0..1."""

    images: int
    unknown: int
    """Images of which no word is in the vocabulary: never found."""
    at: dict[int, float]
    """Cut -> images with one of their own words among so many."""
    chance: dict[int, float] | None
    """The same for the words of other images, drawn; None where all images have the same words."""


def found(rankings: Iterator[Ranking], own: Sequence[Collection[str]]) -> Found:
    """How often an image's own words are among its first, and those of others.

    Args:
        rankings: One an image.
        own: For each image what should be found.
    """
    others = strangers(own)
    hits: list[int | None] = []
    misses: list[int | None] = []
    for image, ranking in enumerate(rankings):
        hits.append(ranking.rank(own[image]))
        misses += [ranking.rank(own[other]) for other in others[image]]
    return Found(images=len(hits), unknown=hits.count(None), at=_shares(hits), chance=_shares(misses) if misses else None)


def strangers(own: Sequence[Collection[str]]) -> list[list[int]]:
    """For each image some others, drawn, that should be found by other words."""
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(len(own)).tolist() for _ in range(_ROUNDS)]
    sets = [frozenset(words) for words in own]
    return [[each[image] for each in rounds if sets[each[image]] != sets[image]] for image in range(len(own))]


def _shares(ranks: Sequence[int | None]) -> dict[int, float]:
    return {cut: fmean(rank is not None and rank <= cut for rank in ranks) for cut in CUTS}
