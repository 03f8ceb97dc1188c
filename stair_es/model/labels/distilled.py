"""Distilled models: a dense model, and scored words, by which its vectors become token weights without training.

A folder that `stair-es distill` writes has `model.safetensors` (the words' vectors, two means and the noise of each word),
`words.json`, a model card, and in `dense/` a copy of the dense model, so that it also works on another machine. None of the files
can contain code.

Shape suffixes: B batch, N sample images, T texts, V words, D dimensions.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stair_es.errors import CheckpointError, ModelError
from stair_es.model.base import Encoder, EncoderOverDense, MatchThresholds, ModelCard
from stair_es.model.labels.scoring import center_vectors, measure_noise, score_images, score_texts
from stair_es.model.labels.word_list import WordKind, build_word_vocabulary
from stair_es.model.sparse_rows import SparseRowBuilder
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.types import Floats, Pixels, SparseVector

DISTILLED_FORMAT = "stair-es-distilled"
DISTILLED_VERSION = 2
SCORED_WORDS_FILE = "model.safetensors"
MAX_TEXT_TOKENS = 128
"""Upper limit of tokens per text: each is a clause of the query."""
RECREATE_HINT = "Get the checkpoint again, or write it again with stair-es distill."
MATCH_THRESHOLDS = MatchThresholds(weak_cosine=0.3, weak_image_cosine=0.5, named_weight=0.25)
"""Relative to the noise floor of each word; `docs/distill.md` says on which dense model they were chosen."""
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
    prompts: Mapping[WordKind, Sequence[str]]
    """Texts with `{}`, which the dense model read for the words of each kind."""

    def __post_init__(self) -> None:
        """Check the values."""
        counts = {"image_tokens": (self.image_tokens, None), "text_tokens": (self.text_tokens, MAX_TEXT_TOKENS)}
        for name, (count, limit) in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1 or (limit is not None and count > limit):
                top = "" if limit is None else f" to {limit}"
                raise CheckpointError(f"{name} must be a whole number from 1{top or ' on'}, got {count!r}", RECREATE_HINT)

    def to_json(self) -> str:
        """Return the contents of `config.json`."""
        return json.dumps({"format": DISTILLED_FORMAT, "version": DISTILLED_VERSION, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class ScoredWords:
    """The words of a distilled model, and what is known of them in the space of the dense model."""

    vocabulary: WholeWordVocabulary
    words_VD: Floats
    """Vectors of the words without their mean, of length 1."""
    floors_V: Floats
    """Noise floors: similarities with images up to this are usual for the word."""
    spreads_V: Floats
    """Standard deviations of the similarities with images."""
    image_mean_D: Floats
    """Mean dense vector of images."""
    text_mean_D: Floats
    """Mean dense vector of texts."""

    def __post_init__(self) -> None:
        """Check the values, built or read: what can't be read must not be written."""
        if not all(np.isfinite(getattr(self, name)).all() for name in _TENSORS):
            raise CheckpointError(
                "the vectors of the words have values that aren't finite",
                "Check the weights of the dense model.",
                code="weight-not-finite",
            )
        if (self.spreads_V <= 0).any():
            raise CheckpointError("a spread of the words isn't above 0", "Check the weights of the dense model.")

    def weigh_images(self, dense_BD: Floats, max_tokens: int) -> Floats:
        """Return the token weights [B, V] of images, given their dense vectors."""
        images_BD = center_vectors(dense_BD, self.image_mean_D)
        return score_images(images_BD, self.words_VD, self.floors_V, self.spreads_V, max_tokens=max_tokens)

    def write(self, folder: Path) -> None:
        """Write the two files that `read_scored_words` reads."""
        tensors = {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _TENSORS}
        save_file(tensors, folder / SCORED_WORDS_FILE)
        (folder / SCORED_WORDS_FILE).chmod(0o644)
        (folder / WHOLE_WORDS_FILE).write_text(self.vocabulary.to_json(), encoding="utf-8")


_TENSORS = ("words_VD", "floors_V", "spreads_V", "image_mean_D", "text_mean_D")


def build_scored_words(
    encode_texts: Callable[[Sequence[str]], Floats],
    words: Mapping[str, WordKind],
    prompts: Mapping[WordKind, Sequence[str]],
    images_ND: Floats,
    texts: Sequence[str] = (),
) -> ScoredWords:
    """Build scored words: the vector of a word is the mean over the prompts of its kind, minus the mean of all words.

    Args:
        encode_texts: Returns the dense vectors [T, D] of texts.
        words: The words and their kinds.
        prompts: Texts with `{}` for each kind.
        images_ND: Dense vectors of sample images.
        texts: Texts like the queries, whose mean is removed from texts; the bare words if there are none.

    Raises:
        ModelError: If the dense model gives vectors that aren't finite.
    """
    lines = [[prompt.replace("{}", word) for prompt in prompts[kind]] for word, kind in words.items()]
    distinct = list(dict.fromkeys((*(line for group in lines for line in group), *(texts or words))))
    vector_of = dict(zip(distinct, encode_texts(distinct), strict=True))
    words_VD = np.stack([np.mean([vector_of[line] for line in group], axis=0) for group in lines])
    words_VD = center_vectors(words_VD, words_VD.mean(axis=0))
    image_mean_D = images_ND.mean(axis=0)
    floors_V, spreads_V = measure_noise(center_vectors(images_ND, image_mean_D), words_VD)
    return ScoredWords(
        vocabulary=build_word_vocabulary(words),
        words_VD=words_VD,
        floors_V=floors_V,
        spreads_V=spreads_V,
        image_mean_D=image_mean_D,
        text_mean_D=np.mean([vector_of[text] for text in texts or words], axis=0),
    )


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
    if set(found) != names or not isinstance(found["name"], str) or not isinstance(found["prompts"], dict):
        wrong = sorted(set(found) ^ names) or ["name", "prompts"]
        raise CheckpointError(
            f"the config.json in {folder} has missing, unknown or invalid fields: {', '.join(wrong)}", RECREATE_HINT
        )
    return DistilledConfig(**found)


def read_scored_words(folder: Path) -> ScoredWords:
    """Read the scored words in a folder."""
    vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
    path = folder / SCORED_WORDS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"can't read {path}: {error}", RECREATE_HINT) from error
    shape = tensors["words_VD"].shape if "words_VD" in tensors else ()
    count, size = (len(vocabulary),), shape[1:]
    expected = {"words_VD": (*count, *size), "floors_V": count, "spreads_V": count, "image_mean_D": size, "text_mean_D": size}
    if len(shape) != 2 or {name: tensor.shape for name, tensor in tensors.items()} != expected:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise CheckpointError(f"{path} doesn't fit its {len(vocabulary):,} words: {shapes or 'it has no tensors'}", RECREATE_HINT)
    try:
        return ScoredWords(vocabulary=vocabulary, **{name: tensors[name].astype(np.float32) for name in _TENSORS})
    except CheckpointError as error:
        raise CheckpointError(f"{path} can't be used: {error.message}", RECREATE_HINT) from error


class DistilledEncoder(EncoderOverDense):
    """An encoder whose dense vectors are those of the dense model. Each part is loaded once, when it is first used."""

    def __init__(
        self,
        config: DistilledConfig,
        load_vocabulary: Callable[[], WholeWordVocabulary],
        load_words: Callable[[], ScoredWords],
        dense: Encoder,
        card: ModelCard,
    ) -> None:
        """Create the encoder without loading the words. Their list is loaded without their vectors if it suffices."""
        self._config, self._load_vocabulary, self._load_words = config, load_vocabulary, load_words
        self._dense, self.card = dense, card
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all words that a vector can contain."""
        return self._vocabulary.words

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the words of the list in a word as users write it: itself, its singular, or its hyphenated parts."""
        vocabulary = self._vocabulary
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
        words, vectors = self._get_words(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            self._check_vectors(images_BD := dense_BD[begin : begin + _BATCH_SIZE], words.image_mean_D)
            vectors += self._rows.build_rows(words.weigh_images(images_BD, self._config.image_tokens))
        return vectors

    def weigh_texts(self, texts: Sequence[str], dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of texts that the dense model has already encoded."""
        words, vectors = self._get_words(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            chunk = texts[begin : begin + _BATCH_SIZE]
            self._check_vectors(texts_BD := dense_BD[begin : begin + _BATCH_SIZE], words.text_mean_D)
            texts_BD = center_vectors(texts_BD, words.text_mean_D)
            own_words = [[match.word_index for match in words.vocabulary.match_words(text)] for text in chunk]
            weights_BV = score_texts(texts_BD, words.words_VD, own_words, max_tokens=self._config.text_tokens)
            weights_BV[[not any(map(str.isalnum, text)) for text in chunk]] = 0.0
            vectors += self._rows.build_rows(weights_BV)
        return vectors

    def _check_vectors(self, dense_BD: Floats, mean_D: Floats) -> None:
        if dense_BD.shape[1:] != mean_D.shape:
            raise CheckpointError(
                f"the dense model of {self.card.name} has {dense_BD.shape[1]} dimensions, its words {len(mean_D)}",
                RECREATE_HINT,
            )
        if not np.isfinite(dense_BD).all():  # the largest weights hide it
            raise ModelError(
                f"the dense model of {self.card.name} computed a vector that isn't finite",
                "Check the model's weights; in fp16, use --precision bf16 or fp32.",
                code="weight-not-finite",
            )

    def _get_words(self) -> ScoredWords:
        with self._lock:
            return self._words

    @cached_property
    def _vocabulary(self) -> WholeWordVocabulary:
        return self._load_vocabulary()

    @cached_property
    def _words(self) -> ScoredWords:
        return self._load_words()

    @cached_property
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self.tokens)
