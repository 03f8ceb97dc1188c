"""Models under comparison: which of token weights and dense vectors each of them offers.

Shape suffixes: B batch, H height, W width, C channels, K classes, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from stair_es.errors import MissingExtra, ModelError, UsageError
from stair_es.model import registry
from stair_es.model.base import DenseEncoder, Encoder, ModelSpec, VocabularyProvider, WordTokenizer, get_own_dense_encoder
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.encoder import ImageOutputs, StairMiniEncoder, TextOutputs
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary as WordPieces
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.types import Floats, Pixels, SparseVector

CONSE_CLASSES = 10
logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class ConseEncoder:
    """Dense baseline from the networks of stair-mini: ConSE (Norouzi et al., 2014) for images, text embeddings for texts."""

    def __init__(self, encoder: StairMiniEncoder) -> None:
        """Wrap an encoder; its networks are loaded lazily."""
        self._encoder = encoder

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the mean embeddings of each image's 10 most likely classes, weighted by probability, of length 1."""
        return self._compute_image_vectors(self._encoder.run_image_network(pixels_BHWC))

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the text network's embeddings."""
        return _stack_embeddings(self._encoder.run_text_network(texts))

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return token weights and dense vectors of images, from one run of the image network."""
        outputs = self._encoder.run_image_network(pixels_BHWC)
        return self._encoder.encode_image_outputs(outputs), self._compute_image_vectors(outputs)

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return token weights and dense vectors of texts, from one run of the text network."""
        outputs = self._encoder.run_text_network(texts)
        return self._encoder.encode_text_outputs(texts, outputs), _stack_embeddings(outputs)

    def _compute_image_vectors(self, outputs: ImageOutputs) -> Floats:
        return np.stack([_compute_conse(logits_K, self._class_embeddings) for logits_K in outputs.classifier_output.logits_BK])

    @cached_property
    def _class_embeddings(self) -> Floats:
        return artifacts.read_mini_artifacts().arrays["embeddings.classes_KD"]


def get_dense_encoder(encoder: Encoder) -> DenseEncoder | None:
    """Return the dense encoder of a model: its own, or ConSE for stair-mini; None if there is none."""
    return ConseEncoder(encoder) if isinstance(encoder, StairMiniEncoder) else get_own_dense_encoder(encoder)


def _stack_embeddings(outputs: Sequence[TextOutputs]) -> Floats:
    return np.stack([output.embedding_D for output in outputs])


def _compute_conse(logits_K: Floats, embeddings_KD: Floats) -> Floats:
    best = np.argsort(-logits_K, kind="stable")[:CONSE_CLASSES]
    mean_D = compute_softmax(logits_K)[best] @ embeddings_KD[best]
    unit_D: Floats = mean_D / np.linalg.norm(mean_D)
    return unit_D


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A loaded model."""

    spec: ModelSpec
    encoder: Encoder
    dense: DenseEncoder | None
    """Its dense encoder, if it has one."""
    has_tokens: bool = True
    """False for models with dense vectors only, such as CLIP."""

    @property
    def label(self) -> str:
        """Label of the model in reports."""
        return self.encoder.model_id

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """Tokens that its vectors can have; None if the encoder doesn't list them."""
        return tuple(self.encoder.tokens) if isinstance(self.encoder, VocabularyProvider) else None

    @property
    def tokenizer(self) -> WordTokenizer | None:
        """Tokenizer of its vocabulary, if it has one."""
        return self.encoder if isinstance(self.encoder, WordTokenizer) else None


def build_evaluated_model(encoder: Encoder, spec: ModelSpec) -> EvaluatedModel:
    """Wrap a loaded encoder. An encoder with the attribute `dense_only` has no token weights.

    Raises:
        ModelError: If it has neither token weights nor dense vectors.
    """
    has_tokens = not getattr(encoder, "dense_only", False)
    skips_dense = isinstance(encoder, StairMiniEncoder) and spec.text_tower == "table"  # doesn't load the text network
    dense = None if skips_dense else get_dense_encoder(encoder)
    if dense is None and not has_tokens:
        raise ModelError(f"the model {spec.name!r} has neither token weights nor dense vectors", "Use another model.")
    return EvaluatedModel(spec=spec, encoder=encoder, dense=dense, has_tokens=has_tokens)


def load_models(specs: Sequence[ModelSpec]) -> list[EvaluatedModel]:
    """Load models in order. All names are resolved before the first model is loaded.

    Raises:
        UsageError: If a model is given twice.
        ModelError: If a model is unknown or broken.
    """
    plugins = [(registry.get_encoder_plugin(spec.name, spec.fit, spec.settings), spec) for spec in specs]
    # The same model with another fit is allowed.
    ids = [(registry.make_portable_name(spec.name), plugin.card.model_id) for plugin, spec in plugins]
    if duplicates := sorted({name for name, label in ids if ids.count((name, label)) > 1}):
        raise UsageError(f"the model {duplicates[0]!r} is given twice", "Specify each model once, with --model or --compare.")
    return [build_evaluated_model(plugin.load(spec), spec) for plugin, spec in plugins]


def run_for_each_model(
    models: Sequence[EvaluatedModel], measure: Callable[[EvaluatedModel], Sequence[_T]], problems: list[str]
) -> list[_T]:
    """Run a function for one model after another and concatenate the results. If a later model fails, a problem is added instead.

    Args:
        models: Models in order.
        measure: Measures one model.
        problems: Gets the failures of later models.

    Raises:
        StairError: If the first model failed, or something other than a model.
    """
    results: list[_T] = []
    for number, model in enumerate(models, 1):
        if len(models) > 1:
            logger.info("model %s of %s: %s", number, len(models), model.label)
        try:
            results += measure(model)
        except (ModelError, MissingExtra) as error:
            if number == 1:
                raise
            problems.append(f"model {model.label}: {error.message}")
    return results


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Competing tokens, and the tokenizer that maps text to them."""

    tokens: tuple[str, ...]
    tokenizer: WordTokenizer | None


def choose_label_space(models: Sequence[EvaluatedModel]) -> LabelSpace:
    """Return the vocabulary of the first model that lists its own; BERT's if none does."""
    for model in models:
        if model.has_tokens and (tokens := model.tokens) is not None:
            return LabelSpace(tokens=tokens, tokenizer=model.tokenizer)
    return LabelSpace(tokens=load_reference_tokens(), tokenizer=WordPieceTokenizer(load_wordpiece_vocabulary()))


def load_reference_tokens() -> tuple[str, ...]:
    """Return the meaningful tokens of the BERT vocabulary: the label space of models without a vocabulary."""
    stop_words = load_stop_words()
    return tuple(token for token in load_wordpiece_vocabulary().tokens if is_content_token(token, stop_words))


class WordPieceTokenizer:
    """Tokenizer for the BERT vocabulary."""

    def __init__(self, tokens: WordPieces) -> None:
        self._tokens, self._stop = tokens, load_stop_words()

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the token of a word, or its pieces; none for stop words and punctuation."""
        pieces = (self._tokens.tokens[token] for token in dict.fromkeys(self._tokens.encode(word)))
        return tuple(token for token in pieces if is_content_token(token, self._stop))
