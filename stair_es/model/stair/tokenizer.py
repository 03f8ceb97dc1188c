"""The tokenizer of a STAIR model and its features: the tokens, or the whole words, that may have a weight. No torch.

Shape suffixes: B batch, L tokens of the longest text, V tokens of the tokenizer, F features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import BertPreTokenizer

from stair_es.errors import CheckpointError
from stair_es.model.vocabularies.readable import detect_tokenizer_style, make_readable_tokens
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary, list_singulars, list_uncovered_words

IdArray = NDArray[np.int64]
_UNUSED_TOKEN = re.compile(r"\[unused\d+\]|<unused\d+>|<extra_id_\d+>|<\|reserved_special_token_\d+\|>")


@dataclass(frozen=True)
class TokenizedTexts:
    """Input of the text tower."""

    ids_BL: IdArray
    mask_BL: NDArray[np.bool_]
    """False at padding."""
    features_BL: IdArray
    """Feature of each token that can represent the text, else -1."""


class StairTokenizer:
    """A tokenizer with the features of a model."""

    def __init__(self, tokenizer: Tokenizer, features: IdArray | WholeWordVocabulary, max_tokens: int) -> None:
        """Check the features and configure the tokenizer.

        Args:
            tokenizer: Tokenizer whose post-processor adds the special tokens that the text tower expects.
            features: Ids of the tokens that are features, ascending; or whole words.
            max_tokens: Maximum length with special tokens; longer texts are truncated.

        Raises:
            ModelError: If a feature isn't a token of the vocabulary, or is a special or unused one.
        """
        self.word_vocabulary = features if isinstance(features, WholeWordVocabulary) else None
        """The vocabulary, if features are whole words."""
        self.feature_ids_F: IdArray = np.empty(0, np.int64) if isinstance(features, WholeWordVocabulary) else features
        """Ids of the tokens that are features; empty with whole words."""
        if len(invalid := np.setdiff1d(self.feature_ids_F, list_candidate_tokens(tokenizer))):
            raise CheckpointError(
                f"the tokenizer has no token for {len(invalid)} of the model's features, such as token {invalid[0]}",
                "Get the checkpoint again: its files don't belong together.",
            )
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Return the features as readable tokens, in their order, all different."""
        if self.word_vocabulary is not None:
            return self.word_vocabulary.words
        names = [self.tokenizer.id_to_token(int(token)) for token in self.feature_ids_F]
        tokens = [token for token in names if token is not None]  # all exist, as checked in `__init__`
        return make_readable_tokens(tokens, detect_tokenizer_style(self.tokenizer.to_str()))

    @cached_property
    def index_of_token(self) -> dict[str, int]:
        """Return the index of each feature."""
        if self.word_vocabulary is not None:
            return self.word_vocabulary.index_of_word
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def feature_of_V(self) -> IdArray:  # noqa: N802  the suffix is its shape
        """Return the feature of each token, or -1."""
        features_V = np.full(self.tokenizer.get_vocab_size(with_added_tokens=True), -1, np.int64)
        features_V[self.feature_ids_F] = np.arange(len(self.feature_ids_F))
        return features_V

    @cached_property
    def own_feature_of_V(self) -> IdArray:  # noqa: N802
        """Return the feature of each token that can represent a text it occurs in, or -1: no stop words, no punctuation."""
        stop_words = load_stop_words()
        is_content_F = np.array([is_content_token(token, stop_words) for token in self.tokens], bool)
        features_V = self.feature_of_V.copy()
        features_V[self.feature_ids_F[~is_content_F]] = -1
        return features_V

    def encode(self, texts: Sequence[str]) -> TokenizedTexts:
        """Encode texts with special tokens, padded to the longest."""
        return self._pad_rows(self.tokenizer.encode_batch(list(texts)), texts)

    def encode_batches(self, texts: Sequence[str], size: int) -> Iterator[tuple[IdArray, TokenizedTexts]]:
        """Encode texts in batches of similar length, to reduce padding; yields the indices of the texts with each batch."""
        rows = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
        for begin in range(0, len(order), size):
            indices = order[begin : begin + size]
            yield (
                np.array(indices, np.int64),
                self._pad_rows([rows[index] for index in indices], [texts[index] for index in indices]),
            )

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word as users write it; a token of the vocabulary is returned unchanged."""
        if self.word_vocabulary is not None:
            index = self.word_vocabulary.find_word(word)
            indices = [index] if index >= 0 else [match.word_index for match in self.word_vocabulary.match_words(word)]
            return tuple(dict.fromkeys(self.tokens[index] for index in indices))
        feature = self.index_of_token.get(word)
        if feature is not None and self.own_feature_of_V[self.feature_ids_F[feature]] >= 0:
            return (word,)
        features = (int(self.own_feature_of_V[token]) for token in self.tokenizer.encode(word, add_special_tokens=False).ids)
        return tuple(dict.fromkeys(self.tokens[index] for index in features if index >= 0))

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text without a feature; pieces count as features."""
        if self.word_vocabulary is not None:
            words = list_uncovered_words(text, self.word_vocabulary.match_words(text))
        else:
            words = [word for word in list_uncovered_words(text, ()) if not self.tokenize_word(word)]
        stop_words = load_stop_words()
        return tuple(word for word in words if word not in stop_words)

    def list_token_ids(self) -> list[list[int]]:
        """List the token ids of each feature: of a token, its own id."""
        if self.word_vocabulary is None:
            return [[int(token)] for token in self.feature_ids_F]
        return [row.ids for row in self.tokenizer.encode_batch(list(self.word_vocabulary.words), add_special_tokens=False)]

    def _pad_rows(self, rows: Sequence[Encoding], texts: Sequence[str]) -> TokenizedTexts:
        length = max((len(row.ids) for row in rows), default=0)
        ids_BL = np.zeros((len(rows), length), np.int64)
        mask_BL = np.zeros((len(rows), length), bool)
        features_BL = np.full((len(rows), length), -1, np.int64)
        for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
            count = len(row.ids)
            ids_BL[number, :count], mask_BL[number, :count] = row.ids, True
            if self.word_vocabulary is not None:
                features_BL[number, :count] = self.word_vocabulary.match_tokens(text, row.offsets)
        if self.word_vocabulary is None:
            features_BL = np.where(mask_BL, self.own_feature_of_V[ids_BL], -1)
        return TokenizedTexts(ids_BL, mask_BL, features_BL)


def load_tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer in a `tokenizer.json`."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise CheckpointError(f"can't read the tokenizer {path}: {error}", "Get the checkpoint again.") from error


def build_word_tokenizer() -> Tokenizer:
    """Build a tokenizer that only splits texts at spaces and punctuation, for a model whose text network has another one."""
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def collect_whole_words(texts: Iterable[Iterable[str]], min_images: int) -> WholeWordVocabulary:
    """Collect the words of texts that can represent an image; a regular plural counts as its singular if that occurs, too."""
    stop_words = load_stop_words()
    counts = Counter(word for each in texts for word in {word for text in each for word in list_uncovered_words(text, ())})
    frequent = {word for word, count in counts.items() if count >= min_images and is_content_token(word, stop_words)}
    words = [word for word in sorted(frequent) if not frequent.intersection(list_singulars(word))]
    return WholeWordVocabulary([word for word in words if len(word) > 1])


def list_candidate_tokens(tokenizer: Tokenizer) -> IdArray:
    """List the ids of all tokens that may be features: neither special nor unused, ascending."""
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ids = sorted(token for word, token in vocabulary.items() if token not in special and not _UNUSED_TOKEN.fullmatch(word))
    return np.array(ids, np.int64)


def list_tokens_in_texts(tokenizer: Tokenizer, texts: Iterable[str]) -> IdArray:
    """List the ids of the candidate tokens that occur in texts, ascending."""
    seen = {token for row in tokenizer.encode_batch(list(texts), add_special_tokens=False) for token in row.ids}
    return np.array([token for token in list_candidate_tokens(tokenizer) if int(token) in seen], np.int64)
