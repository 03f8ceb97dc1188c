"""BERT's uncased WordPiece vocabulary and tokeniser, from the shipped `vocab.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

UNKNOWN = "[UNK]"


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
        """The ids of a text, without [CLS] and [SEP]; what has no pieces is `[UNK]`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def with_ends(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """`[CLS] ids [SEP]`, cut to `max_tokens` in all."""
        return [self.ids["[CLS]"], *ids[: max_tokens - 2], self.ids["[SEP]"]]
