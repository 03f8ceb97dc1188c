"""Bags of words: a text as the words in it, without expansion, as a baseline for the encoder. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.types import SparseVector

WordSplitter: TypeAlias = Callable[[str], tuple[str, ...]]
"""Function that returns the tokens of a word, such as `Encoder.tokenize_word`."""


def lower_word(word: str) -> tuple[str, ...]:
    """Return the word in lower case, for a vocabulary whose tokens are words."""
    return (word.lower(),)


def build_word_bags(texts: Sequence[str], split_word: WordSplitter) -> list[SparseVector]:
    """Return each text's tokens with weight 1, without (English) stop words and punctuation."""
    return [SparseVector.from_pairs((token, 1.0) for token in tokenize_words(text, split_word)) for text in texts]


def tokenize_words(text: str, split_word: WordSplitter) -> tuple[str, ...]:
    """Return the distinct tokens of the words in a text, in order."""
    stop_words = load_stop_words()
    words = [word for chunk in text.split() if (word := _strip_punctuation(chunk)) and word.lower() not in stop_words]
    return tuple(dict.fromkeys(token for word in words for token in split_word(word)))


def _strip_punctuation(word: str) -> str:
    """Return a word without surrounding punctuation."""
    indices = [index for index, letter in enumerate(word) if unicodedata.category(letter)[0] not in "PSZC"]
    return word[indices[0] : indices[-1] + 1] if indices else ""


def weigh_by_idf(bags: Sequence[SparseVector]) -> list[SparseVector]:
    """Return the bags as documents: tokens weighted by `1 + log((1 + N) / (1 + df))`, then scaled to length 1.

    Without the scaling, long texts would win.
    """
    document_counts = Counter(token for bag in bags for token in bag.tokens)
    idf = {token: 1 + math.log((1 + len(bags)) / (1 + df)) for token, df in document_counts.items()}
    return [normalize_vector(SparseVector.from_pairs((token, idf[token]) for token in bag.tokens)) for bag in bags]


def normalize_vector(vector: SparseVector) -> SparseVector:
    """Return the vector scaled to length 1; an empty one unchanged."""
    length = math.sqrt(math.fsum(weight * weight for weight in vector.weights))
    return SparseVector.from_pairs((token, scaled) for token, weight in vector if (scaled := weight / length) > 0)
