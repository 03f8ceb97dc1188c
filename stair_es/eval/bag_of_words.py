"""Bags of words: a text as the words in it, without expansion, as a baseline for the encoder. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Sequence

from stair_es.model.base import WordTokenizer
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.types import SparseVector


def build_word_bags(texts: Sequence[str], speller: WordTokenizer | None) -> list[SparseVector]:
    """Return each text's tokens with weight 1, without (English) stop words and punctuation.

    Args:
        texts: Texts as people write them.
        speller: Tokenizer of the vocabulary; None if tokens are lower-case words.
    """
    return [SparseVector.from_pairs((feature, 1.0) for feature in tokenize_words(text, speller)) for text in texts]


def tokenize_words(text: str, speller: WordTokenizer | None) -> tuple[str, ...]:
    """Return the distinct tokens of the words in a text, in order.

    Args:
        text: The text.
        speller: Tokenizer of the vocabulary; None if tokens are lower-case words.
    """
    stop = load_stop_words()
    words = [word for written in text.split() if (word := _strip_punctuation(written)) and word.lower() not in stop]
    pieces = (speller.tokenize_word(word) if speller else (word.lower(),) for word in words)
    return tuple(dict.fromkeys(feature for word in pieces for feature in word))


def _strip_punctuation(written: str) -> str:
    """Return a word without surrounding punctuation."""
    kept = [place for place, letter in enumerate(written) if unicodedata.category(letter)[0] not in "PSZC"]
    return written[kept[0] : kept[-1] + 1] if kept else ""


def weigh_by_idf(bags: Sequence[SparseVector]) -> list[SparseVector]:
    """Return the bags as documents: tokens weighted by `1 + log((1 + N) / (1 + df))`, then scaled to length 1.

    Without the scaling, long texts would win.
    """
    count = Counter(word for bag in bags for word in bag.tokens)
    rarity = {word: 1 + math.log((1 + len(bags)) / (1 + df)) for word, df in count.items()}
    return [normalize_vector(SparseVector.from_pairs((word, rarity[word]) for word in bag.tokens)) for bag in bags]


def normalize_vector(vector: SparseVector) -> SparseVector:
    """Return the vector scaled to length 1; an empty one unchanged."""
    length = math.sqrt(math.fsum(weight * weight for weight in vector.weights))
    return SparseVector.from_pairs((word, scaled) for word, weight in vector if (scaled := weight / length) > 0)
