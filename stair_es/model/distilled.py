"""Distilled models, which `stair-es distill` writes: a dense model, and a dictionary that turns its vectors into words.

A folder has `model.safetensors` (the words' vectors and the two means), `words.json`, a model card, and in `dense/` a copy of the
dense model, so that it also works on another machine. None of the files can contain code.

Shape suffixes: B batch, V words, D dimensions.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stair_es.errors import CheckpointError
from stair_es.model.base import Encoder, EncoderOverDense, ModelCard
from stair_es.model.decomposition import center_vectors, decompose_images, select_similar_words
from stair_es.model.sparse_rows import SparseRowBuilder
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.types import Floats, Pixels, SparseVector

DISTILLED_FORMAT = "stair-es-distilled"
DISTILLED_VERSION = 1
DICTIONARY_FILE = "model.safetensors"
MAX_TEXT_TOKENS = 128
"""Upper limit of tokens per text: each is a clause of the query."""
RECREATE_HINT = "Get the checkpoint again, or write it again with stair-es distill."
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class DistilledConfig:
    """The contents of `config.json`."""

    name: str
    dense_model: str
    """Model id of the dense model."""
    image_tokens: int
    """Maximum number of tokens per image."""
    text_tokens: int
    """Maximum number of tokens per text."""
    l1: float
    """Penalty of the decomposition, as a share of the image's largest correlation with a word."""
    prompts: tuple[str, ...]
    """Texts with `{}`, which the dense model read for each word."""

    def __post_init__(self) -> None:
        """Check the values."""
        counts = {"image_tokens": (self.image_tokens, None), "text_tokens": (self.text_tokens, MAX_TEXT_TOKENS)}
        for name, (count, limit) in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1 or (limit is not None and count > limit):
                top = "" if limit is None else f" to {limit}"
                raise CheckpointError(f"{name} must be a whole number from 1{top or ' on'}, got {count!r}", RECREATE_HINT)
        if not isinstance(self.l1, (int, float)) or not 0 <= self.l1 < 1:
            raise CheckpointError(f"l1 must be from 0 to below 1, got {self.l1!r}", RECREATE_HINT)

    def to_json(self) -> str:
        """Return the contents of `config.json`."""
        return json.dumps({"format": DISTILLED_FORMAT, "version": DISTILLED_VERSION, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """The words of a distilled model, and their vectors in the space of the dense model."""

    vocabulary: WholeWordVocabulary
    words_VD: Floats
    """Vectors of the words without their mean, of length 1."""
    image_mean_D: Floats
    """Mean dense vector of images."""
    text_mean_D: Floats
    """Mean dense vector of texts."""

    def to_tensors(self) -> dict[str, Floats]:
        """Return the arrays by their names in the file."""
        return {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _TENSORS}


_TENSORS = ("words_VD", "image_mean_D", "text_mean_D")


def parse_distilled_config(values: Mapping[str, Any], folder: Path) -> DistilledConfig:
    """Parse the contents of a `config.json`."""
    if (version := values.get("version")) != DISTILLED_VERSION:
        raise CheckpointError(
            f"the config.json in {folder} has version {version!r} of the format {DISTILLED_FORMAT!r}, but this stair-es reads "
            f"{DISTILLED_VERSION}",
            "Update stair-es, or write the checkpoint again with stair-es distill.",
        )
    found = {name: value for name, value in values.items() if name not in ("format", "version")}
    names = {field.name for field in fields(DistilledConfig)}
    if set(found) != names or not isinstance(found["name"], str) or not isinstance(found["prompts"], list):
        wrong = sorted(set(found) ^ names) or ["name", "prompts"]
        raise CheckpointError(
            f"the config.json in {folder} has missing, unknown or invalid fields: {', '.join(wrong)}", RECREATE_HINT
        )
    return DistilledConfig(**{**found, "prompts": tuple(map(str, found["prompts"]))})


def read_dictionary(folder: Path) -> Dictionary:
    """Read the words of a checkpoint and their vectors."""
    vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
    path = folder / DICTIONARY_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"can't read {path}: {error}", RECREATE_HINT) from error
    shape = tensors["words_VD"].shape if "words_VD" in tensors else ()
    expected = {"words_VD": (len(vocabulary), *shape[1:]), "image_mean_D": shape[1:], "text_mean_D": shape[1:]}
    if len(shape) != 2 or {name: tensor.shape for name, tensor in tensors.items()} != expected:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise CheckpointError(f"{path} doesn't fit its {len(vocabulary):,} words: {shapes or 'it has no tensors'}", RECREATE_HINT)
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise CheckpointError(f"{path} has values that aren't finite", RECREATE_HINT)
    return Dictionary(vocabulary=vocabulary, **{name: tensors[name].astype(np.float32) for name in _TENSORS})


class DistilledEncoder(EncoderOverDense):
    """An encoder whose dense vectors are those of the dense model. Each part is loaded once, when it is first used."""

    def __init__(self, folder: Path, config: DistilledConfig, dense: Encoder, card: ModelCard) -> None:
        """Create the encoder without loading the dictionary."""
        self._folder, self._config, self._dense, self.card = folder, config, dense, card
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all words that a vector can contain."""
        return self._get_dictionary().vocabulary.words

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the words of the dictionary in a word as users write it: itself, its singular, or its hyphenated parts."""
        vocabulary = self._get_dictionary().vocabulary
        return tuple(dict.fromkeys(vocabulary.words[match.word_index] for match in vocabulary.match_words(word)))

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the dense model."""
        dense_BD = self._dense.encode_images_dense(pixels_BHWC)
        return self.weigh_images(dense_BD), dense_BD

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the dense model."""
        dense_BD = self._dense.encode_texts_dense(texts)
        return self.weigh_texts(texts, dense_BD), dense_BD

    def weigh_images(self, dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of images that the dense model has already encoded."""
        dictionary, vectors = self._get_dictionary(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            images_BD = self._center(dense_BD[begin : begin + _BATCH_SIZE], dictionary.image_mean_D)
            weights_BV = decompose_images(
                images_BD, dictionary.words_VD, l1=self._config.l1, max_tokens=self._config.image_tokens
            )
            vectors += self._rows.build_rows(weights_BV)
        return vectors

    def weigh_texts(self, texts: Sequence[str], dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of texts that the dense model has already encoded."""
        dictionary, vectors = self._get_dictionary(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            chunk = texts[begin : begin + _BATCH_SIZE]
            texts_BD = self._center(dense_BD[begin : begin + _BATCH_SIZE], dictionary.text_mean_D)
            own_words = [[match.word_index for match in dictionary.vocabulary.match_words(text)] for text in chunk]
            weights_BV = select_similar_words(texts_BD, dictionary.words_VD, own_words, max_tokens=self._config.text_tokens)
            weights_BV[[not any(map(str.isalnum, text)) for text in chunk]] = 0.0
            vectors += self._rows.build_rows(weights_BV)
        return vectors

    def _center(self, dense_BD: Floats, mean_D: Floats) -> Floats:
        if dense_BD.shape[1:] != mean_D.shape:
            raise CheckpointError(
                f"the dense model in {self._folder} has {dense_BD.shape[1]} dimensions, its dictionary {len(mean_D)}",
                RECREATE_HINT,
            )
        return center_vectors(dense_BD, mean_D)

    def _get_dictionary(self) -> Dictionary:
        with self._lock:
            return self._dictionary

    @cached_property
    def _dictionary(self) -> Dictionary:
        return read_dictionary(self._folder)

    @cached_property
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self.tokens)
