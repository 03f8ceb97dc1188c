"""A vocabulary of whole words, and the words of it that a text says: plurals, joined neighbours and other spellings count."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from stair_es.errors import ModelError

WORDS_FILE = "words.json"
_MARKS = "\u0300-\u036f"
"""Combining accents, of texts whose letters come apart from them."""
_LETTERS = rf"(?:[^\W\d_][{_MARKS}]*)+"
_WORD = re.compile(rf"{_LETTERS}(?:['’-]{_LETTERS})*")
_PART = re.compile(_LETTERS)
_BREAK = re.compile("['’-]")
_GAP = re.compile(r"\s+|['’-]")
"""What may stand between the parts of a joined pair: a comma or a full stop may not."""
_NEVER_JOINED = frozenset(
    ("a", "an", "the", "and", "or", "for", "to", "as", "his", "her", "my", "our", "your", "its", "their", "no", "is", "be")
)
"""First words of no pair: `her ring` is no herring, `a live band` isn't alive."""
_PLURALS = (
    ("ies", "y"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("sses", "ss"),
    ("xes", "x"),
    ("oes", "o"),
    ("s", ""),
    ("ses", "s"),
    ("zes", "z"),
)
"""Regular plural endings and what the singular has instead, tried in this order; irregular plurals are spellings."""
_NO_PLURALS = frozenset(("does", "news"))
"""Words that would be taken for several of another: no deer is meant."""
_SHORTEST = 3


class Spotted(NamedTuple):
    """A word of the vocabulary in a text."""

    place: int
    """Its index in the vocabulary."""
    begin: int
    """Offset of its first character in the text."""
    end: int
    """Offset after its last character."""


class WholeWords:
    """The words that may have a weight, and how they are spotted in a text."""

    def __init__(self, words: Sequence[str], spellings: Mapping[str, str] | None = None) -> None:
        """Take a vocabulary over.

        Args:
            words: In the order of the features; lower case, each different.
            spellings: `{spelling: word}` for what isn't a word itself: `wolves`, `grey`, `anemone fish`.

        Raises:
            ModelError: There is no word, one is empty, has capital letters or comes twice, or a spelling stands for none of them.
        """
        self.words, self.spellings = tuple(words), dict(spellings or {})
        self.place_of = {word: place for place, word in enumerate(self.words)}
        if not self.words:
            raise ModelError("the vocabulary has no words", "Get the model again.")
        if odd := [word for word in self.words if not word.strip() or word != word.lower()]:
            raise ModelError(
                f"the vocabulary has the word {odd[0]!r}, which is empty or not in lower case", "Get the model again."
            )
        if len(self.place_of) != len(self.words):
            raise ModelError("a word comes twice in the vocabulary", "Get the model again.")
        for spelling, word in self.spellings.items():
            if word not in self.place_of:
                raise ModelError(f"the vocabulary spells {spelling!r} as {word!r}, which it doesn't have", "Get the model again.")

    def __len__(self) -> int:
        return len(self.words)

    def find(self, word: str) -> int:
        """Return the index of a word as people write it, or -1: itself, another spelling of it, or its plural."""
        if word.isascii():
            return self._find(word.lower())
        place = self._find(unicodedata.normalize("NFC", word.lower()))
        return place if place >= 0 else self._find(_without_accents(word))

    def _find(self, word: str) -> int:
        for each in (word, *list_singulars(word)):
            if (place := self.place_of.get(self.spellings.get(each, each), -1)) >= 0:
                return place
        return -1

    def spot(self, text: str) -> list[Spotted]:
        """Return the words that a text says, in its order; a joined pair (`clown fish`) before its parts.

        Args:
            text: Of any case.
        """
        return list(self._spot(text, [found.span() for found in _WORD.finditer(text)]))

    def places(self, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
        """Return for each token the index of the word that it stands for, or -1.

        A word stands at its first token. Where two begin at the same token, the first that `spot` returns has it.

        Args:
            text: The text.
            offsets: Of the tokens' characters in it, ascending, begin and end; the same number twice for special tokens.
        """
        return place_words(self.spot(text), offsets)

    def _spot(self, text: str, spans: Sequence[tuple[int, int]]) -> Iterator[Spotted]:
        for number, (begin, end) in enumerate(spans):
            if number + 1 < len(spans) and _GAP.fullmatch(text, end, spans[number + 1][0]):
                yield from self._pair(text, (begin, end), spans[number + 1])
            yield from self._parts(text, begin, end)

    def _pair(self, text: str, first: tuple[int, int], second: tuple[int, int]) -> Iterator[Spotted]:
        """Yield two neighbours, if they are one word of the vocabulary."""
        word, after = text[slice(*first)], text[slice(*second)]
        joined = () if word.lower() in _NEVER_JOINED else (word + after,)
        for pair in (f"{word} {after}", *joined):
            if (place := self.find(pair)) >= 0:
                yield Spotted(place, first[0], second[1])
                return

    def _parts(self, text: str, begin: int, end: int) -> Iterator[Spotted]:
        """Yield a word, or what of a word with a hyphen is one."""
        word = text[begin:end]
        broken = _BREAK.search(word) is not None
        for each in (word, _BREAK.sub("", word)) if broken else (word,):
            if (place := self.find(each)) >= 0:
                yield Spotted(place, begin, end)
                return
        if broken:
            yield from self._spot(text, [part.span() for part in _PART.finditer(text, begin, end)])

    def to_json(self) -> str:
        """Return what `read` reads."""
        return json.dumps({"words": self.words, "spellings": self.spellings}, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def read(cls, path: Path) -> WholeWords:
        """Return the vocabulary in a file.

        Raises:
            ModelError: The file is missing or broken.
        """
        try:
            told = json.loads(path.read_bytes())
            words, spellings = told["words"], told.get("spellings", {}).items()
            if not isinstance(words, list):
                raise TypeError("words isn't a list")
            return cls([str(word) for word in words], {str(spelling): str(word) for spelling, word in spellings})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"the vocabulary {path} can't be read: {error}", "Get the model again.") from error

    @cached_property
    def ranks(self) -> list[int]:
        """For each word its place among all in alphabetical order."""
        ranks = [0] * len(self.words)
        for rank, place in enumerate(sorted(range(len(self.words)), key=self.words.__getitem__)):
            ranks[place] = rank
        return ranks


def place_words(spotted: Sequence[Spotted], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each token the index of the word that begins at it, or -1; see `WholeWords.places`."""
    places, token = [-1] * len(offsets), 0
    for word in spotted:
        while token < len(offsets) and (offsets[token][1] <= word.begin or offsets[token][0] == offsets[token][1]):
            token += 1
        if token < len(offsets) and offsets[token][0] < word.end and places[token] < 0:
            places[token] = word.place
    return places


def _without_accents(word: str) -> str:
    """Return a word in lower case without accents."""
    letters = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def list_singulars(word: str) -> Iterator[str]:
    """Yield what a word may be the regular plural of."""
    if word.endswith(("ss", "us", "is")) or word in _NO_PLURALS:
        return
    for ending, singular in _PLURALS:
        if word.endswith(ending) and len(word) - len(ending) + len(singular) >= _SHORTEST:
            yield word[: len(word) - len(ending)] + singular
