"""Word <-> number, for fields whose keys must be numbers (OpenSearch's `sparse_vector`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

from stair_es.errors import QueryError, ResourceError

MAX_IDS = 32_768
"""OpenSearch folds larger numbers onto smaller ones: two words would be one."""


@dataclass(frozen=True)
class Vocabulary:
    """Words, each with its place as its number. The same file must serve documents and queries."""

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {word: number for number, word in enumerate(self.words)}
        if len(self.words) > MAX_IDS:
            raise ResourceError(f"a vocabulary of {len(self.words):,} words: OpenSearch tells only {MAX_IDS:,} numbers apart")
        if len(ids) != len(self.words):
            raise ResourceError("a vocabulary has a word twice")
        object.__setattr__(self, "_ids", ids)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def id(self, word: str) -> int:
        """The number of a word.

        Raises:
            QueryError: The vocabulary doesn't have it.
        """
        return self.ids([word])[0]

    def ids(self, words: Sequence[str]) -> list[int]:
        """The numbers of words.

        Raises:
            QueryError: The vocabulary doesn't have one of them.
        """
        unknown = [word for word in words if word not in self._ids]
        if unknown:
            named = ", ".join(repr(word) for word in unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
            raise QueryError(
                f"the vocabulary has no number for {named}",
                "Take the vocabulary of the model that wrote the vectors, one word a line.",
            )
        return [self._ids[word] for word in words]

    def word(self, number: int) -> str:
        """The word of a number.

        Raises:
            QueryError: There is none.
        """
        if not 0 <= number < len(self.words):
            raise QueryError(f"the vocabulary of {len(self.words):,} words has no number {number}")
        return self.words[number]


@cache
def load(path: Path | None = None) -> Vocabulary:
    """The vocabulary in a file, one word a line, the first one number 0; without a file BERT's, which comes with the package.

    Raises:
        ResourceError: It can't be read, has a word twice, or too many.
    """
    source = path or files("stair_es.model") / "data" / "vocab.txt"
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ResourceError(f"vocabulary: can't read {source}: {error}") from error
    return Vocabulary(tuple(text.removesuffix("\n").split("\n")))
