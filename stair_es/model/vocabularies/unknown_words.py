"""The words of a text that a model doesn't know, and known words that are spelled like them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

from stair_es.model.base import Encoder
from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.model.vocabularies.whole_words import list_singulars
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

_MAX_WORDS = 8
_MAX_SUGGESTIONS = 3
_MIN_LIKENESS = 0.75
"""Minimum ratio of `difflib`: two letters of eight may differ."""
SURE_LIKENESS = 0.85
"""Minimum ratio of a word that is searched without asking, and of one that begins with another letter: one letter of seven."""
_MIN_LENGTH = 3


@dataclass(frozen=True, kw_only=True)
class UnknownWord:
    """A word that the model doesn't know."""

    word: str
    """The word in lower case."""
    suggestions: tuple[str, ...] = ()
    """Other tokens of the model with a similar spelling, the nearest first."""
    searched_for: str = ""
    """The token that is searched instead; empty if the word is left out."""

    def __str__(self) -> str:
        """Return the message to the user."""
        suggestion = f"; did you mean {' or '.join(self.suggestions)}?" if self.suggestions else ""
        if self.searched_for:
            return f"{self.word!r}: searched for {self.searched_for!r}{suggestion}"
        return f"{self.word!r} is not a word of this model{suggestion}"

    def to_dict(self) -> dict[str, Any]:
        """Return the machine-readable form: `{"word", "suggestions", "searched_for"}`."""
        return {"word": self.word, "suggestions": list(self.suggestions), "searched_for": self.searched_for or None}


def find_unknown_words(encoder: Encoder, text: str) -> tuple[UnknownWord, ...]:
    """Find the words of a text that the model doesn't know, with suggestions; none if the model can't tell."""
    words, replaced = encoder.list_unknown_words(text)[:_MAX_WORDS], encoder.read_text(text).replaced
    return tuple(_describe_word(encoder, word, replaced.get(word, "")) for word in words)


def _describe_word(encoder: Encoder, word: str, searched_for: str) -> UnknownWord:
    """Describe a word; one that was translated isn't a spelling error."""
    suggestions = suggest_words(encoder, word)
    if searched_for:
        suggestions = tuple(other for other in suggestions if other != searched_for and searched_for in suggestions)
    return UnknownWord(word=word, suggestions=suggestions, searched_for=searched_for)


def is_rarest_word_known(encoder: Encoder, text: str) -> bool:
    """Return whether the model knows the rarest word of a text as it reads it, other than stop words; True if it can't tell."""
    text = encoder.read_text(text).text
    unknown = set(encoder.list_unknown_words(text))
    words = list_content_words(text)
    return not unknown or get_rarity(words - unknown) > get_rarity(unknown)


def get_rarity(words: Iterable[str]) -> int:
    """Return the rarity of the rarest of some words: its place in BERT's vocabulary, which is in the order of frequency.

    A word that isn't in the vocabulary is as rare as all others that aren't; without words, -1.
    """
    ids = load_wordpiece_vocabulary().ids
    return max((ids.get(word, len(ids)) for word in words), default=-1)


def suggest_words(encoder: Encoder, word: str) -> tuple[str, ...]:
    """Suggest tokens of the model that are spelled like a word."""
    return tuple(token for token, _ in find_similar_tokens(word.lower(), tuple(encoder.tokens))[:_MAX_SUGGESTIONS])


@lru_cache(maxsize=256)
def find_similar_tokens(word: str, tokens: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Find the tokens that are spelled like a word or its singular, with their likeness; of equal ones the most frequent first.

    This takes 0.1 s for 30,000 tokens, and each page of a search needs the same.
    """
    if len(word) < _MIN_LENGTH:
        return ()
    similar_lengths = range(len(word) - _MIN_LENGTH, len(word) + _MIN_LENGTH + 1)
    candidates = {token: _fold(token) for token in tokens if len(token) in similar_lengths and token.isalpha()}
    found: dict[str, float] = {}
    for form in (word, *list_singulars(word)):
        for matcher, is_folded in ((SequenceMatcher(b=form), False), (SequenceMatcher(b=_fold(form)), True)):
            for token, sound in candidates.items():
                # Few typing errors are in the first letter.
                cutoff = _MIN_LIKENESS if sound[0] == _fold(form)[0] else SURE_LIKENESS
                matcher.set_seq1(sound if is_folded else token)
                if matcher.real_quick_ratio() >= cutoff and matcher.quick_ratio() >= cutoff and matcher.ratio() >= cutoff:
                    found[token] = max(matcher.ratio(), found.get(token, 0.0))
    ranks = load_wordpiece_vocabulary().ids  # BERT's vocabulary is in the order of frequency
    return tuple(sorted(found.items(), key=lambda pair: (-pair[1], ranks.get(pair[0], len(ranks)), pair[0])))


def _fold(word: str) -> str:
    """Return a word as it sounds: other languages write `elefant`, `delfin` and `foto`."""
    return word.replace("ph", "f")
