"""The words of a text that a model doesn't know, and known words that are spelled like them."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from stair_es.model.base import Encoder
from stair_es.model.vocabularies.stop_words import list_content_words

_MAX_WORDS = 8
_MAX_SUGGESTIONS = 3
_MIN_LIKENESS = 0.75
"""Minimum ratio of `difflib`: two letters of eight may differ."""
_MIN_LENGTH = 3


@dataclass(frozen=True, kw_only=True)
class UnknownWord:
    """A word that the model doesn't know."""

    word: str
    """The word in lower case."""
    suggestions: tuple[str, ...] = ()
    """Tokens of the model with a similar spelling, the nearest first."""

    def __str__(self) -> str:
        """Return the message to the user."""
        suggestion = f"; did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        return f"{self.word!r} is not a word of this model{suggestion}"


def find_unknown_words(encoder: Encoder, text: str) -> tuple[UnknownWord, ...]:
    """Find the words of a text that the model doesn't know, with suggestions; none if the model can't tell."""
    words = encoder.list_unknown_words(text)[:_MAX_WORDS]
    return tuple(UnknownWord(word=word, suggestions=suggest_words(encoder, word)) for word in words)


def has_known_word(encoder: Encoder, text: str) -> bool:
    """Return whether the model knows a word of a text, other than stop words; True if it can't tell."""
    unknown = encoder.list_unknown_words(text)
    return not unknown or bool(list_content_words(text) - set(unknown))


def suggest_words(encoder: Encoder, word: str) -> tuple[str, ...]:
    """Suggest tokens of the model that are spelled like a word."""
    if len(word) < _MIN_LENGTH:
        return ()
    return _find_similar(word.lower(), tuple(encoder.tokens))


@lru_cache(maxsize=256)
def _find_similar(word: str, tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Find the most similar tokens: 0.1 s for 30,000 tokens, and each page of a search needs the same."""
    similar_lengths = range(len(word) - _MIN_LENGTH, len(word) + _MIN_LENGTH + 1)
    candidates = {_fold(token): token for token in tokens if len(token) in similar_lengths and token.isalpha()}
    similar = get_close_matches(_fold(word), candidates, n=_MAX_SUGGESTIONS, cutoff=_MIN_LIKENESS)
    return tuple(candidates[spelling] for spelling in similar)


def _fold(word: str) -> str:
    """Return a word as it sounds: other languages write `elefant`, `delfin` and `foto`."""
    return word.replace("ph", "f")
