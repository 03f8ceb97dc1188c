"""The starter model: an ImageNet classifier whose answers are rewritten as word weights, and texts expanded the same way.

The image side follows ConSE (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014),
with words instead of a dense embedding. `docs/starter.md` has the numbers and the blind spots.

Shape suffixes: see `starter_data`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stair_es.config import Home
from stair_es.errors import ModelError
from stair_es.model import minilm_files, starter_data
from stair_es.model.efficientnet import CLASSES
from stair_es.model.encoder import ModelSpec, OfCard, check_known
from stair_es.model.image_network import ImageNetwork, load_network
from stair_es.model.minilm import MAX_TOKENS, MiniLM
from stair_es.model.starter_data import ClassWords, Doubles, TokenTable
from stair_es.model.starter_kind import KIND
from stair_es.model.wordpiece import Vocabulary
from stair_es.types import Floats, Pixels, SparseVector

_CARD = KIND.card
MODEL_ID, IMAGE_SPEC = _CARD.model_id, _CARD.image_spec
IMAGE_WORDS = 64
EXPANSION_WORDS = 24
_GAIN = 30.0
_TEMPERATURE = 0.05
_EXPANSION = 0.5
_DECIMALS = 5


class Expansion(Protocol):
    """Which classes a text is about."""

    def classes(self, text_ids: list[int], word_ids: list[int]) -> Doubles:
        """Weights [K] of the classes for a text.

        Args:
            text_ids: All tokens of the text.
            word_ids: Those that carry meaning.
        """


class FullExpansion:
    """The text network: its embedding of the text against those of the classes."""

    def __init__(self, network: MiniLM, words: ClassWords, vocabulary: Vocabulary) -> None:
        self._network, self._words, self._vocabulary = network, words, vocabulary

    def classes(self, text_ids: list[int], word_ids: list[int]) -> Doubles:
        """See `Expansion`."""
        return nearest(self._network.embed(self._vocabulary.with_ends(text_ids, MAX_TOKENS)), self._words)


class TableExpansion:
    """The static table: the same comparison made once for every word on its own, summed over the words of the text."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table

    def classes(self, text_ids: list[int], word_ids: list[int]) -> Doubles:
        """See `Expansion`."""
        excess_K = self._table.excess(word_ids, CLASSES)
        return np.where(excess_K > 0, softmax(excess_K / _TEMPERATURE), 0.0)


class NoExpansion:
    """A text is its own words and nothing else: what the benchmark compares with."""

    def classes(self, text_ids: list[int], word_ids: list[int]) -> Doubles:
        """See `Expansion`."""
        return np.zeros(CLASSES)


class Starter(OfCard):
    """The encoder. Each tower is loaded when it is first used, once, whichever thread comes first."""

    _card = KIND.card

    def __init__(self, spec: ModelSpec, expansion: Expansion | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            spec: Backend, threads and text tower.
            expansion: Takes the place of the spec's text tower.

        Raises:
            ModelError: The spec names an unknown text tower or backend, or a negative number of threads.
        """
        check_known(spec)
        self._spec = spec
        self._given_expansion = expansion
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """At most 64 words an image, at least one.

        Raises:
            ModelError: The pixels have another shape or type than `image_spec` says, or the network can't be loaded.
            MissingExtra: The torch backend was asked for and isn't installed.
        """
        want = (IMAGE_SPEC.size_px, IMAGE_SPEC.size_px, 3)
        if pixels_BHWC.dtype != np.uint8 or pixels_BHWC.shape[1:] != want:
            raise ModelError(
                f"{self._card.name} wants uint8 pixels of shape (B, *{want}), got {pixels_BHWC.dtype} {pixels_BHWC.shape}",
                "Use stair_es.sources.decode with the image_spec of the encoder.",
            )
        seen = self.image_network.see(pixels_BHWC)
        return [self._sparse(self._image(*rows)) for rows in zip(seen.logits_BK, seen.features_BD, strict=True)]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """The words of each text and up to 24 related ones; of a long text, the first 254 tokens count.

        Raises:
            ModelError: The text network can't be fetched or loaded.
        """
        return [self._sparse(self._text(text)) for text in texts]

    def spell(self, word: str) -> tuple[str, ...]:
        """See `Speller`: stop words and punctuation have no weight in any vector. A feature as it stands in one is itself."""
        if word in self._vocabulary.ids and self._is_meaningful[self._vocabulary.ids[word]]:
            return (word,)
        ids = dict.fromkeys(self._vocabulary.encode(word))
        return tuple(self._vocabulary.words[token] for token in ids if self._is_meaningful[token])

    @property
    def image_features(self) -> tuple[str, ...]:
        """All words that an image's vector may have."""
        return tuple(self._vocabulary.words[i] for i in np.flatnonzero(self._may_be_seen()))

    @property
    def image_network(self) -> ImageNetwork:
        """The network behind `encode_images`."""
        with self._lock:
            return self._image_network

    def _image(self, logits_K: Floats, features_D: Floats) -> Doubles:
        """Of what the network makes of one image, the words' weights [V]."""
        return self._words_of_classes(softmax(logits_K.astype(np.float64)))

    def _words_of_classes(self, classes_K: Doubles) -> Doubles:
        """Weights [V] of length 1 for an image of which the classes are known."""
        words_V = self._words.words(classes_K)
        centred_V = words_V - self._words.mean
        weights_V = np.log1p(_GAIN * np.maximum(centred_V, 0)) * self._words.rarity
        if not (weights_V > 0).any():
            # Every class equally likely: nothing stands out, so say what all classes have in common rather than nothing.
            weights_V = np.log1p(_GAIN * words_V) * self._words.rarity
        return unit(keep_top(weights_V, IMAGE_WORDS))

    def _may_be_seen(self) -> NDArray[np.bool_]:
        """[V]: the words of the classes, but for one that they all have."""
        return (self._words.mean > 0) & (self._words.rarity > 0)

    def _text(self, text: str) -> Doubles:
        """The weights [V] of a text; all 0 without a known word."""
        text_ids, word_ids = self._read(text)
        if not word_ids:
            return np.zeros(len(self._vocabulary))
        with self._lock:
            expansion = self._expansion
        return self._words_of_text(word_ids, expansion.classes(text_ids, word_ids))

    def _read(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text, without the special ones, and those that carry meaning, each once."""
        text_ids = self._vocabulary.encode(text)[: MAX_TOKENS - 2]
        return text_ids, [token for token in dict.fromkeys(text_ids) if self._is_meaningful[token]]

    def _words_of_text(self, word_ids: list[int], classes_K: Doubles) -> Doubles:
        """Weights [V] of length 1 for a text of which the classes are known: its own words, and theirs."""
        own_V = np.zeros(len(self._vocabulary))
        own_V[word_ids] = 1.0
        related_V = keep_top(self._words.words(classes_K), EXPANSION_WORDS)
        peak = float(related_V.max())
        if peak > 0:
            own_V += _EXPANSION / peak * related_V
        return unit(own_V * self._words.rarity)

    def _sparse(self, weights_V: Doubles) -> SparseVector:
        """The words that have a weight, rounded; what rounds to 0 is dropped."""
        ids = np.flatnonzero(weights_V)
        rounded = np.round(weights_V[ids], _DECIMALS)
        return SparseVector.from_pairs((self._vocabulary.words[i], float(w)) for i, w in zip(ids, rounded, strict=True) if w > 0)

    @cached_property
    def _image_network(self) -> ImageNetwork:
        return load_network(self._spec.backend, self._spec.threads, self._spec.precision)

    @cached_property
    def _expansion(self) -> Expansion:
        if self._given_expansion:
            return self._given_expansion
        if self._spec.text_tower == "table":
            return TableExpansion(starter_data.load_token_table())
        return FullExpansion(self._text_network, self._words, self._vocabulary)

    @cached_property
    def _text_network(self) -> MiniLM:
        return MiniLM(minilm_files.ensure(Home.from_env().models) / minilm_files.WEIGHTS)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return starter_data.load_vocabulary()

    @cached_property
    def _words(self) -> ClassWords:
        return starter_data.load_class_words(len(self._vocabulary))

    @cached_property
    def _is_meaningful(self) -> list[bool]:
        """Which tokens a query searches for: no stop words, no punctuation, no `[UNK]` and the like."""
        stop = starter_data.load_stop_words()
        return [meaningful(word, stop) for word in self._vocabulary.words]


def meaningful(word: str, stop_words: frozenset[str]) -> bool:
    """Whether a token of the vocabulary may be a feature of a text."""
    special = word.startswith("[") and word.endswith("]") and len(word) > 2
    return not special and word not in stop_words and any(map(str.isalnum, word))


def nearest(embedding_D: Floats, words: ClassWords) -> Doubles:
    """Weights [K] of the classes for a text of this embedding, by cosine."""
    return softmax((words.embeddings @ embedding_D).astype(np.float64) / _TEMPERATURE)


def softmax(x: Doubles) -> Doubles:
    """Of one row."""
    powers = np.exp(x - x.max())
    y: Doubles = powers / powers.sum()
    return y


def unit(weights_V: Doubles) -> Doubles:
    """Scaled to length 1, so that a dot product is a cosine; zeros stay zeros."""
    kept = weights_V[weights_V > 0]
    return weights_V / np.linalg.norm(kept) if len(kept) else weights_V


def keep_top(weights_V: Doubles, count: int) -> Doubles:
    """The `count` largest, ties by id; zero elsewhere."""
    ids = np.flatnonzero(weights_V > 0)
    if len(ids) <= count:
        return weights_V * (weights_V > 0)
    kept = ids[np.argsort(-weights_V[ids], kind="stable")[:count]]
    only_V = np.zeros_like(weights_V)
    only_V[kept] = weights_V[kept]
    return only_V
