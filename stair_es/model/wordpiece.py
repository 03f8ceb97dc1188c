"""BERT's uncased WordPiece vocabulary and tokenizer, from the shipped `vocab.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from stair_es.model.stop_words import DATA, read_packaged_lines

UNKNOWN = "[UNK]"
VOCABULARY_FILE = "vocab.txt"


class Written(NamedTuple):
    """A text in tokens, with `[CLS]` and `[SEP]`."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Of each token's characters in the text; the same number twice for the two ends."""


class Vocabulary:
    """The words in the order of their ids, and the way from a text to ids."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """`{word: id}`."""
        return {word: index for index, word in enumerate(self.words)}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(WordPiece(self.ids, unk_token=UNKNOWN, max_input_chars_per_word=100))
        tokenizer.normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without [CLS] and [SEP]; what has no pieces is `[UNK]`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def with_ends(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """Return `[CLS] ids [SEP]`, cut to `max_tokens` in all."""
        return [self.ids["[CLS]"], *ids[: max_tokens - 2], self.ids["[SEP]"]]

    def encode_with_offsets(self, text: str, max_tokens: int) -> Written:
        """Return a text as the text network reads it, cut to `max_tokens` in all."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = found.offsets[: max_tokens - 2]
        return Written(self.with_ends(found.ids, max_tokens), [(0, 0), *offsets, (len(text), len(text))])


def load_vocabulary() -> Vocabulary:
    """Return BERT's vocabulary.

    Raises:
        ModelError: The packaged file is missing.
    """
    return Vocabulary(read_packaged_lines(DATA / VOCABULARY_FILE))
