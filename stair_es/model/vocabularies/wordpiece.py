"""BERT's uncased WordPiece vocabulary and tokenizer, from the shipped `vocab.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from stair_es.model.vocabularies.stop_words import MODEL_DATA, read_packaged_lines

UNKNOWN_TOKEN = "[UNK]"
WORDPIECE_FILE = "vocab.txt"


class EncodedText(NamedTuple):
    """A tokenized text with `[CLS]` and `[SEP]`."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    """Begin and end of each token's characters; the same number twice for the two special tokens."""


class WordPieceVocabulary:
    """A WordPiece vocabulary, in the order of its ids, with its tokenizer."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tuple(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Return `{token: id}`."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(WordPiece(self.ids, unk_token=UNKNOWN_TOKEN, max_input_chars_per_word=100))
        tokenizer.normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text without [CLS] and [SEP]; text without pieces is `[UNK]`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def add_special_tokens(self, ids: Sequence[int], max_tokens: int) -> list[int]:
        """Add special tokens: `[CLS] ids [SEP]`, truncated to `max_tokens` in total."""
        return [self.ids["[CLS]"], *ids[: max_tokens - 2], self.ids["[SEP]"]]

    def encode_with_offsets(self, text: str, max_tokens: int) -> EncodedText:
        """Encode a text for the text network.

        Args:
            text: The text.
            max_tokens: Maximum number of tokens, with the special ones.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = encoding.offsets[: max_tokens - 2]
        return EncodedText(self.add_special_tokens(encoding.ids, max_tokens), [(0, 0), *offsets, (len(text), len(text))])


def load_wordpiece_vocabulary() -> WordPieceVocabulary:
    """Load BERT's vocabulary.

    Raises:
        ModelError: If the packaged file is missing.
    """
    return WordPieceVocabulary(read_packaged_lines(MODEL_DATA / WORDPIECE_FILE))
