"""Bags of words: a text as the words that are written in it, unexpanded, to see what the encoder adds. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

from stair_es.model.encoder import Speller
from stair_es.model.stop_words import load_stop_words
from stair_es.types import SparseVector


def own_words(texts: Sequence[str], speller: Speller | None) -> list[SparseVector]:
    """Each text's words as the vocabulary writes them, weight 1 each; no (English) stop words, no punctuation.

    Args:
        texts: As people write them.
        speller: The vocabulary's; None where a word, in lower case, is a feature of its own name.
    """
    return [SparseVector.from_pairs((feature, 1.0) for feature in spelt(text, speller)) for text in texts]


def spelt(text: str, speller: Speller | None) -> tuple[str, ...]:
    """The features of the words in a text, each once, in their order."""
    stop = load_stop_words()
    words = [word for written in text.split() if (word := _bare(written)) and word.lower() not in stop]
    pieces = (speller.spell(word) if speller else (word.lower(),) for word in words)
    return tuple(dict.fromkeys(feature for word in pieces for feature in word))


def _bare(written: str) -> str:
    """A word without the punctuation around it."""
    kept = [place for place, letter in enumerate(written) if unicodedata.category(letter)[0] not in "PSZC"]
    return written[kept[0] : kept[-1] + 1] if kept else ""


def weighted_by_rarity(bags: Sequence[SparseVector]) -> list[SparseVector]:
    """The bags as documents: words by `1 + log((1 + N) / (1 + df))`, scaled to length 1, so that long texts don't win."""
    count = Counter(word for bag in bags for word in bag.features)
    rarity = {word: 1 + math.log((1 + len(bags)) / (1 + df)) for word, df in count.items()}
    return [unit(SparseVector.from_pairs((word, rarity[word]) for word in bag.features)) for bag in bags]


def unit(vector: SparseVector) -> SparseVector:
    """The vector, scaled to length 1; the empty one as it is."""
    length = math.sqrt(math.fsum(weight * weight for weight in vector.weights))
    return SparseVector.from_pairs((word, scaled) for word, weight in vector if (scaled := weight / length) > 0)
