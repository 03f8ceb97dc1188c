"""Vocabularies of checkpoints that use BERT's WordPiece tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary, load_wordpiece_vocabulary
from stair_es.system.user_files import read_text_file

VOCAB_FILE = "vocab.txt"
_SHIPPED_TOKENIZERS = frozenset({"bert-base-uncased", "distilbert-base-uncased"})
_REQUIRED_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def read_vocabulary(folder: Path, base: str) -> WordPieceVocabulary:
    """Return the vocabulary in the folder's `vocab.txt`; without it, the shipped uncased BERT vocabulary if `base` names it.

    Raises:
        ModelError: If there is no vocabulary, or it lacks the special tokens.
    """
    path = folder / VOCAB_FILE
    if not path.is_file():
        if base.rpartition("/")[2] in _SHIPPED_TOKENIZERS:
            return load_wordpiece_vocabulary()
        raise ModelError(
            f"{folder} has no {VOCAB_FILE}, and its tokenizer {base!r} isn't shipped",
            "Put that tokenizer's vocab.txt there.",
        )
    try:
        vocabulary = WordPieceVocabulary(read_text_file(path).removesuffix("\n").split("\n"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}", "It must be UTF-8 with one token per line.") from error
    missing = [token for token in _REQUIRED_TOKENS if token not in vocabulary.ids]
    if missing or len(vocabulary.ids) != len(vocabulary):
        raise ModelError(f"{path} isn't a BERT vocabulary: it lacks {missing}" if missing else f"{path} contains a token twice")
    return vocabulary


def split_word(word: str, vocabulary: WordPieceVocabulary, token_indices: Mapping[str, int]) -> tuple[str, ...]:
    """Split a word into tokens: the word itself if it is a token, else those of its pieces that are in the vocabulary.

    Args:
        word: Word as users write it.
        vocabulary: WordPiece vocabulary.
        token_indices: Tokens that have a dimension.
    """
    if word in token_indices:
        return (word,)
    pieces = dict.fromkeys(vocabulary.tokens[token] for token in vocabulary.encode(word))
    return tuple(piece for piece in pieces if piece in token_indices)


def is_special_token(token: str) -> bool:
    """Return whether a token represents no text: `[CLS]`, `[unused7]` and the like."""
    return len(token) > 2 and token.startswith("[") and token.endswith("]")
