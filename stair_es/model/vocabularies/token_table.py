"""A text tower without a network: a table of words and phrases with their token weights, also as a file for other programs.

The file is what `stair-es export --table` writes. `docs/howto/inference-free.md` has its format, and `examples/clients` has
look-ups in three languages. Weights are integers, so that every language computes the same vectors.
"""

from __future__ import annotations

import gzip
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stair_es.taught_words import TaughtWord, check_word_model
from stair_es.types import SparseVector

TABLE_FORMAT, TABLE_VERSION = "stair-es-table", "1"
TABLE_DECIMALS = 5
_GAPS = frozenset(" \t\r\n'’-")
"""Characters that may separate the words of a phrase; any other non-letter ends it."""
_WORD = re.compile(r"[^\W\d_]+|\.")

TableRow = Sequence[tuple[str, int]]
"""Tokens of a phrase with their weights, integers above 0; none for a phrase that says nothing."""


def split_words(text: str) -> list[str]:
    """Split a text into words in lower case without accents, and `.` for each character that ends a phrase."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in decomposed if not unicodedata.category(letter).startswith("M")).lower()
    return _WORD.findall("".join(each if each.isalpha() or each in _GAPS else "." for each in plain))


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """Phrases with their token weights, and how those of a text are combined."""

    model_id: str
    max_words: int
    """Words of the longest phrase."""
    max_tokens: int
    """Maximum number of tokens of a text."""
    rows: Mapping[str, TableRow]
    """Phrase (words as `split_words` returns them, joined by spaces) -> row."""

    def find_phrases(self, text: str) -> Iterator[str]:
        """Find the phrases of a text, from left to right and the longest one at each word."""
        words = split_words(text)
        begin = 0
        while begin < len(words):
            for end in range(min(len(words), begin + self.max_words), begin, -1):
                phrase = " ".join(words[begin:end])
                if phrase in self.rows:
                    yield phrase
                    break
            begin = end

    def encode_text(self, text: str) -> SparseVector:
        """Return the vector of a text: of each token the largest weight in its phrases, the heaviest ones scaled to length 1."""
        largest: dict[str, int] = {}
        for phrase in self.find_phrases(text):
            for token, weight in self.rows[phrase]:
                largest[token] = max(weight, largest.get(token, 0))
        heaviest = sorted(largest.items(), key=lambda pair: (-pair[1], pair[0]))[: self.max_tokens]
        length = math.sqrt(sum(weight * weight for _, weight in heaviest))
        return SparseVector.from_pairs((token, round(weight / length, TABLE_DECIMALS)) for token, weight in heaviest)

    def add_words(self, words: Iterable[TaughtWord]) -> TokenTable:
        """Return the table with taught words, as heavy as the heaviest token. One that has a digit can't be looked up.

        Raises:
            UsageError: If a word was taught from vectors of another model.
        """
        heaviest = max((weight for row in self.rows.values() for _, weight in row), default=1)
        rows = dict(self.rows)
        for word in words:
            check_word_model(word, self.model_id)
            parts = split_words(word.word)
            if parts and "." not in parts:
                phrase = " ".join(parts)
                is_other = phrase != word.word  # without its accents it may be another word
                others = rows.get(phrase, ()) if is_other or word.mode == "add" else ()
                rows[phrase] = ((word.token, heaviest), *others)
        longest = max((len(phrase.split()) for phrase in rows), default=0)
        return replace(self, rows=rows, max_words=max(self.max_words, longest))

    def list_lines(self) -> Iterator[str]:
        """List the lines of the file: a header of names and values, an empty line, and a line per phrase, in order."""
        header = {
            TABLE_FORMAT: TABLE_VERSION,
            "model": self.model_id,
            "max_words": str(self.max_words),
            "max_tokens": str(self.max_tokens),
        }
        yield from (f"{name}\t{value}" for name, value in header.items())
        yield ""
        for phrase in sorted(self.rows):
            yield f"{phrase}\t" + "\t".join(f"{token}\t{weight}" for token, weight in self.rows[phrase])


def write_token_table(table: TokenTable, path: Path) -> int:
    """Write the file of a table, compressed if its name ends in `.gz`; the same table gives the same bytes.

    Returns:
        The number of bytes written.

    Raises:
        OSError: If the file can't be written.
    """
    content = "".join(f"{line}\n" for line in table.list_lines()).encode()
    return path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
