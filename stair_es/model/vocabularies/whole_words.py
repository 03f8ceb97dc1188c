"""A vocabulary of whole words, and the matching of texts to it: plurals, joined neighbors and other spellings count."""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from stair_es.errors import CheckpointError
from stair_es.system.user_files import read_json_file

WHOLE_WORDS_FILE = "words.json"
_COMBINING_MARKS = "\u0300-\u036f"
"""Combining accents, in texts with decomposed letters."""
_LETTERS = rf"(?:[^\W\d_][{_COMBINING_MARKS}]*)+"
_WORD = re.compile(rf"{_LETTERS}(?:['’-]{_LETTERS})*")
_PART = re.compile(_LETTERS)
_BREAK = re.compile("['’-]")
_GAP = re.compile(r"\s+|['’-]")
"""Separators allowed within a joined pair: no comma, no full stop."""
NEVER_JOINED = frozenset(
    ("a", "an", "the", "and", "or", "for", "to", "as", "his", "her", "my", "our", "your", "its", "their", "no", "is", "be")
)
"""Words that don't begin a joined pair: `her ring` isn't a herring, `a live band` isn't alive."""
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
"""Regular plural endings and their singular endings, tried in this order. Irregular plurals are spellings."""
_NO_PLURALS = frozenset(("does", "news"))
"""Words that look like a plural of another word: `does` aren't deer."""
_MIN_SINGULAR_LENGTH = 3


class WordMatch(NamedTuple):
    """An occurrence of a vocabulary word in a text."""

    word_index: int
    """Index of the word in the vocabulary."""
    begin: int
    """Offset of its first character."""
    end: int
    """Offset after its last character."""


class WholeWordVocabulary:
    """The words that may have a weight, with their spellings."""

    def __init__(self, words: Sequence[str], spellings: Mapping[str, str] | None = None) -> None:
        """Check and index a vocabulary.

        Args:
            words: Words in the order of the features, lower case, all different.
            spellings: `{spelling: word}` for other spellings of a word: `wolves`, `grey`, `anemone fish`.

        Raises:
            ModelError: If there are no words, one is empty, has capitals or occurs twice, or a spelling belongs to none of them.
        """
        self.words, self.spellings = tuple(words), dict(spellings or {})
        self.index_of_word = {word: index for index, word in enumerate(self.words)}
        if not self.words:
            raise CheckpointError("the vocabulary has no words", "Get the model again.")
        if invalid := [word for word in self.words if not word.strip() or word != word.lower()]:
            raise CheckpointError(
                f"the vocabulary has the word {invalid[0]!r}, which is empty or not in lower case", "Get the model again."
            )
        if len(self.index_of_word) != len(self.words):
            raise CheckpointError("the vocabulary has a duplicate word", "Get the model again.")
        for spelling, word in self.spellings.items():
            if word not in self.index_of_word:
                raise CheckpointError(
                    f"the vocabulary spells {spelling!r} as {word!r}, which it doesn't have", "Get the model again."
                )

    def __len__(self) -> int:
        return len(self.words)

    def find_word(self, word: str) -> int:
        """Return the index of a word as users write it: itself, another spelling or its plural; -1 if there is none."""
        if word.isascii():
            return self._find_spelling(word.lower())
        index = self._find_spelling(unicodedata.normalize("NFC", word.lower()))
        return index if index >= 0 else self._find_spelling(strip_accents(word))

    def _find_spelling(self, word: str) -> int:
        for spelling in (word, *list_singulars(word)):
            if (index := self.index_of_word.get(self.spellings.get(spelling, spelling), -1)) >= 0:
                return index
        return -1

    def match_words(self, text: str) -> list[WordMatch]:
        """Match the words of a text, in its order; a joined pair (`clown fish`) comes before its parts."""
        return list(self._match_spans(text, [match.span() for match in _WORD.finditer(text)]))

    def match_tokens(self, text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
        """Match tokens to words: for each token the index of the word that begins there, or -1.

        If two words begin at the same token, the first one that `match_words` returns is used.

        Args:
            text: The text.
            offsets: Begin and end of each token's characters, ascending; the same number twice for special tokens.
        """
        return assign_words_to_tokens(self.match_words(text), offsets)

    def _match_spans(self, text: str, spans: Sequence[tuple[int, int]]) -> Iterator[WordMatch]:
        for number, (begin, end) in enumerate(spans):
            if number + 1 < len(spans) and _GAP.fullmatch(text, end, spans[number + 1][0]):
                yield from self._match_pair(text, (begin, end), spans[number + 1])
            yield from self._match_parts(text, begin, end)

    def _match_pair(self, text: str, first: tuple[int, int], second: tuple[int, int]) -> Iterator[WordMatch]:
        """Yield two neighbors if they form one word of the vocabulary."""
        left, right = text[slice(*first)], text[slice(*second)]
        joined = () if left.lower() in NEVER_JOINED else (left + right,)
        for pair in (f"{left} {right}", *joined):
            if (index := self.find_word(pair)) >= 0:
                yield WordMatch(index, first[0], second[1])
                return

    def _match_parts(self, text: str, begin: int, end: int) -> Iterator[WordMatch]:
        """Yield a word, or the parts of a hyphenated word that are in the vocabulary."""
        word = text[begin:end]
        is_hyphenated = _BREAK.search(word) is not None
        for spelling in (word, _BREAK.sub("", word)) if is_hyphenated else (word,):
            if (index := self.find_word(spelling)) >= 0:
                yield WordMatch(index, begin, end)
                return
        if is_hyphenated:
            yield from self._match_spans(text, [part.span() for part in _PART.finditer(text, begin, end)])

    def to_json(self) -> str:
        """Return the JSON that `from_file` reads."""
        return json.dumps({"words": self.words, "spellings": self.spellings}, ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> WholeWordVocabulary:
        """Return the vocabulary in a file."""
        try:
            content = read_json_file(path)
            words, spellings = content["words"], content.get("spellings", {}).items()
            if not isinstance(words, list):
                raise TypeError("words isn't a list")
            return cls([str(word) for word in words], {str(spelling): str(word) for spelling, word in spellings})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the vocabulary {path} can't be read: {error}", "Get the model again.") from error


def list_uncovered_words(text: str, matches: Sequence[WordMatch]) -> list[str]:
    """Return the words of a text that no match covers, in lower case, each once; stop words among them."""
    begins = [match.begin for match in matches]  # ascending
    max_ends = list(accumulate((match.end for match in matches), max, initial=0))  # end of the first 0, 1, 2, ... of them
    words = (match[0].lower() for match in _PART.finditer(text) if match.end() > max_ends[bisect_right(begins, match.start())])
    return list(dict.fromkeys(words))


def assign_words_to_tokens(matches: Sequence[WordMatch], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Assign words to tokens: for each token the index of the word that begins there, or -1.

    Args:
        matches: Occurrences of words, as `match_words` returns them.
        offsets: Begin and end of each token's characters.
    """
    word_indices, token = [-1] * len(offsets), 0
    for match in matches:
        while token < len(offsets) and (offsets[token][1] <= match.begin or offsets[token][0] == offsets[token][1]):
            token += 1
        if token < len(offsets) and offsets[token][0] < match.end and word_indices[token] < 0:
            word_indices[token] = match.word_index
    return word_indices


def strip_accents(word: str) -> str:
    """Return a word in lower case without accents."""
    letters = unicodedata.normalize("NFD", word.lower())
    return unicodedata.normalize("NFC", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def list_singulars(word: str) -> Iterator[str]:
    """List the possible singulars of a word, by the regular plural endings."""
    if word.endswith(("ss", "us", "is")) or word in _NO_PLURALS:
        return
    for ending, singular in _PLURALS:
        if word.endswith(ending) and len(word) - len(ending) + len(singular) >= _MIN_SINGULAR_LENGTH:
            yield word[: len(word) - len(ending)] + singular


def list_plurals(word: str) -> Iterator[str]:
    """List the words of which `list_singulars` may list this one."""
    for ending, singular in _PLURALS:
        if word.endswith(singular):
            yield word[: len(word) - len(singular)] + ending
