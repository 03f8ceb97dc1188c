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
from stair_es.eval.bag_of_words import WordSplitter, lower_word
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MINI_CARD
from stair_es.model.stair_mini.encoder import ImageOutputs, StairMiniEncoder
from stair_es.model.stair_mini.text_encoder import TextOutputs
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary as WordPieces
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.types import Floats, Pixels, SparseVector

CONSE_CLASSES = 10
logger = logging.getLogger(__name__)
_T = TypeVar("_T")


class ConseEncoder(Encoder):
    """stair-mini with dense vectors, as a baseline: ConSE (Norouzi et al., 2014) for images, text embeddings for texts."""

    card = MINI_CARD
    has_dense = True

    def __init__(self, encoder: StairMiniEncoder) -> None:
        """Wrap an encoder; its networks are loaded lazily."""
        self._encoder = encoder

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return the token weights of images."""
        return self._encoder.encode_images(pixels_BHWC)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the token weights of texts."""
        return self._encoder.encode_texts(texts)

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


def get_dense_encoder(encoder: Encoder) -> Encoder | None:
    """Return an encoder that has the dense vectors of a model: itself, or ConSE for stair-mini; None if it has none."""
    if isinstance(encoder, StairMiniEncoder):
        return ConseEncoder(encoder)
    return encoder if encoder.has_dense else None


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
    """Options that it was loaded with; the name is a portable one."""
    encoder: Encoder
    dense: Encoder | None
    """Its encoder for dense vectors, if it has one: itself, or ConSE."""
    has_tokens: bool = True
    """False for models with dense vectors only, such as CLIP."""

    @property
    def label(self) -> str:
        """Label of the model in reports."""
        return self.encoder.model_id

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """Tokens that its vectors can have; None if the encoder doesn't list them."""
        return tuple(self.encoder.tokens) or None

    @property
    def split_word(self) -> WordSplitter:
        """Function that returns the tokens of a word; words in lower case if its encoder doesn't split them."""
        splits_words = type(self.encoder).tokenize_word is not Encoder.tokenize_word
        return self.encoder.tokenize_word if splits_words else lower_word


def build_evaluated_model(encoder: Encoder, spec: ModelSpec) -> EvaluatedModel:
    """Wrap a loaded encoder.

    Raises:
        ModelError: If it has neither token weights nor dense vectors.
    """
    has_tokens = encoder.card.has_tokens
    skips_dense = isinstance(encoder, StairMiniEncoder) and spec.text_tower == "table"  # doesn't load the text network
    dense = None if skips_dense else get_dense_encoder(encoder)
    if dense is None and not has_tokens:
        raise ModelError(
            f"the model {spec.name!r} has neither token weights nor dense vectors", "Use another model.", code="no-vectors"
        )
    return EvaluatedModel(spec=spec, encoder=encoder, dense=dense, has_tokens=has_tokens)


def load_models(specs: Sequence[ModelSpec]) -> list[EvaluatedModel]:
    """Load models in order. All names are resolved before the first model is loaded.

    Raises:
        UsageError: If a model is given twice.
        ModelError: If a model is unknown or broken.
    """
    models = [registry.resolve_model(spec) for spec in specs]
    # The same model with another fit is allowed.
    ids = [(model.portable_name, model.card.model_id) for model in models]
    if duplicates := sorted({name for name, label in ids if ids.count((name, label)) > 1}):
        raise UsageError(
            f"the model {duplicates[0]!r} is given twice",
            "Specify each model once, with --model or --compare.",
            code="model-given-twice",
        )
    return [build_evaluated_model(model.load(), model.portable_spec) for model in models]


def run_for_each_model(
    models: Sequence[EvaluatedModel], measure: Callable[[EvaluatedModel], Sequence[_T]], problems: list[str]
) -> list[_T]:
    """Run a function for one model after another and concatenate the results. If a later model fails, a problem is added instead.

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
    """Competing tokens, and the function that maps words to them."""

    tokens: tuple[str, ...]
    split_word: WordSplitter


def choose_label_space(models: Sequence[EvaluatedModel]) -> LabelSpace:
    """Return the vocabulary of the first model that lists its own; BERT's if none does."""
    for model in models:
        if model.has_tokens and (tokens := model.tokens) is not None:
            return LabelSpace(tokens=tokens, split_word=model.split_word)
    return LabelSpace(tokens=load_reference_tokens(), split_word=WordPieceTokenizer(load_wordpiece_vocabulary()).tokenize_word)


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
