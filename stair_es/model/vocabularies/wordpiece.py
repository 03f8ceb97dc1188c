"""WordPiece vocabularies and their tokenizer: BERT's uncased one, which is shipped, and those of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from stair_es.errors import CheckpointError
from stair_es.model.vocabularies.stop_words import MODEL_DATA, read_packaged_lines
from stair_es.system.user_files import read_text_file

UNKNOWN_TOKEN = "[UNK]"
WORDPIECE_FILE = "vocab.txt"
_SHIPPED_TOKENIZERS = frozenset({"bert-base-uncased", "distilbert-base-uncased"})
_REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


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
        """Encode a text for the text network."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = encoding.offsets[: max_tokens - 2]
        return EncodedText(self.add_special_tokens(encoding.ids, max_tokens), [(0, 0), *offsets, (len(text), len(text))])


@lru_cache(maxsize=1)
def load_wordpiece_vocabulary() -> WordPieceVocabulary:
    """Return BERT's vocabulary; the file is read once per process."""
    return WordPieceVocabulary(read_packaged_lines(MODEL_DATA / WORDPIECE_FILE))


def read_vocabulary(folder: Path, base: str) -> WordPieceVocabulary:
    """Return the vocabulary in the folder's `vocab.txt`; without it, the shipped uncased BERT vocabulary if `base` names it."""
    path = folder / WORDPIECE_FILE
    if not path.is_file():
        if base.rpartition("/")[2] in _SHIPPED_TOKENIZERS:
            return load_wordpiece_vocabulary()
        raise CheckpointError(
            f"{folder} has no {WORDPIECE_FILE}, and its tokenizer {base!r} isn't shipped", "Put that tokenizer's vocab.txt there."
        )
    try:
        vocabulary = WordPieceVocabulary(read_text_file(path).removesuffix("\n").split("\n"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}", "It must be UTF-8 with one token per line.") from error
    missing = [token for token in _REQUIRED_TOKENS if token not in vocabulary.ids]
    if missing or len(vocabulary.ids) != len(vocabulary):
        raise CheckpointError(
            f"{path} isn't a BERT vocabulary: it lacks {missing}" if missing else f"{path} contains a token twice"
        )
    return vocabulary


def split_word(word: str, vocabulary: WordPieceVocabulary, token_indices: Mapping[str, int]) -> tuple[str, ...]:
    """Split a word into tokens: the word itself if it is a token, else those of its pieces that are in the vocabulary."""
    if word in token_indices:
        return (word,)
    pieces = dict.fromkeys(vocabulary.tokens[token] for token in vocabulary.encode(word))
    return tuple(piece for piece in pieces if piece in token_indices)


def is_special_token(token: str) -> bool:
    """Return whether a token represents no text: `[CLS]`, `[unused7]` and the like."""
    return len(token) > 2 and token.startswith("[") and token.endswith("]")
