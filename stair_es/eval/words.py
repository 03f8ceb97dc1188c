"""Bags of words: a text as the WordPieces that are written in it, unexpanded, to see what the encoder adds. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from stair_es.model import starter_data
from stair_es.model.starter import meaningful
from stair_es.types import SparseVector


def own_words(texts: Sequence[str]) -> list[SparseVector]:
    """Each text's WordPieces, weight 1 each; no stop words, no punctuation."""
    vocabulary, stop = starter_data.load_vocabulary(), starter_data.load_stop_words()
    bags = []
    for text in texts:
        words = dict.fromkeys(vocabulary.words[token] for token in vocabulary.encode(text))
        bags.append(SparseVector.from_pairs((word, 1.0) for word in words if meaningful(word, stop)))
    return bags


def weighted_by_rarity(bags: Sequence[SparseVector]) -> list[SparseVector]:
    """The bags as documents: words by `1 + log((1 + N) / (1 + df))`, scaled to length 1, so that long texts don't win."""
    count = Counter(word for bag in bags for word in bag.features)
    rarity = {word: 1 + math.log((1 + len(bags)) / (1 + df)) for word, df in count.items()}
    return [_unit([(word, rarity[word]) for word in bag.features]) for bag in bags]


def _unit(pairs: Sequence[tuple[str, float]]) -> SparseVector:
    length = math.sqrt(math.fsum(weight * weight for _, weight in pairs))
    return SparseVector.from_pairs((word, weight / length) for word, weight in pairs)
