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
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BREAK = re.compile("['’-]")
_PLURALS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("oes", "o"), ("s", ""))
"""Regular plural endings and what the singular has instead; irregular plurals are spellings of the vocabulary."""
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
            ModelError: A word comes twice, or a spelling stands for a word that isn't there.
        """
        self.words, self.spellings = tuple(words), dict(spellings or {})
        self.place_of = {word: place for place, word in enumerate(self.words)}
        if len(self.place_of) != len(self.words):
            raise ModelError("a word comes twice in the vocabulary", "Get the model again.")
        for spelling, word in self.spellings.items():
            if word not in self.place_of:
                raise ModelError(f"the vocabulary spells {spelling!r} as {word!r}, which it doesn't have", "Get the model again.")

    def __len__(self) -> int:
        return len(self.words)

    def find(self, word: str) -> int:
        """Return the index of a word as people write it, or -1: itself, another spelling of it, or its plural."""
        word = _plain(word)
        for each in (word, self.spellings.get(word, ""), *_singulars(word)):
            if (place := self.place_of.get(self.spellings.get(each, each), -1)) >= 0:
                return place
        return -1

    def spot(self, text: str) -> list[Spotted]:
        """Return the words that a text says, in its order; a joined pair (`clown fish`) before its parts.

        Args:
            text: Of any case. Offsets are those of `text.lower()`, which has the same length for all but a few letters.
        """
        return list(self._spot([(found[0], found.start(), found.end()) for found in _WORD.finditer(text.lower())]))

    def _spot(self, written: list[tuple[str, int, int]]) -> Iterator[Spotted]:
        for number, (word, begin, end) in enumerate(written):
            if number + 1 < len(written):
                after, _, last = written[number + 1]
                for pair in (f"{word} {after}", word + after):
                    if (place := self.find(pair)) >= 0:
                        yield Spotted(place, begin, last)
                        break
            yield from self._parts(word, begin, end)

    def _parts(self, word: str, begin: int, end: int) -> Iterator[Spotted]:
        """Yield a word, or what of a word with a hyphen is one."""
        for each in (word, _BREAK.sub("", word)):
            if (place := self.find(each)) >= 0:
                yield Spotted(place, begin, end)
                return
        if _BREAK.search(word):
            yield from self._spot([(part[0], begin + part.start(), begin + part.end()) for part in re.finditer(r"[^'’-]+", word)])

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
            return cls([str(word) for word in told["words"]], {str(k): str(v) for k, v in told.get("spellings", {}).items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"the vocabulary {path} can't be read: {error}", "Get the model again.") from error

    @cached_property
    def ranks(self) -> list[int]:
        """For each word its place among all in alphabetical order."""
        ranks = [0] * len(self.words)
        for rank, place in enumerate(sorted(range(len(self.words)), key=self.words.__getitem__)):
            ranks[place] = rank
        return ranks


def _plain(word: str) -> str:
    """Return a word in lower case without accents."""
    if word.isascii():
        return word.lower()
    letters = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def _singulars(word: str) -> Iterator[str]:
    """Yield what a word may be the regular plural of."""
    if word.endswith(("ss", "us", "is")):
        return
    for ending, singular in _PLURALS:
        if word.endswith(ending) and len(word) - len(ending) + len(singular) >= _SHORTEST:
            yield word[: len(word) - len(ending)] + singular
