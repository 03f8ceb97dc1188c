"""Models under comparison: which of token weights and dense vectors each of them offers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stair_es.errors import MissingExtra, ModelError, UsageError
from stair_es.eval.dense import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import DenseEncoder, Encoder, ModelSpec, VocabularyProvider, WordTokenizer
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary as WordPieces
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A loaded model."""

    spec: ModelSpec
    encoder: Encoder
    dense: DenseEncoder | None
    """Its dense encoder, if it has one."""
    has_words: bool = True
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
    def speller(self) -> WordTokenizer | None:
        """Tokenizer of its vocabulary, if it has one."""
        return self.encoder if isinstance(self.encoder, WordTokenizer) else None


def build_evaluated_model(encoder: Encoder, spec: ModelSpec) -> EvaluatedModel:
    """Wrap a loaded encoder. An encoder with the attribute `dense_only` has no token weights.

    Args:
        encoder: The encoder.
        spec: The spec that it was loaded from.

    Raises:
        ModelError: If it has neither token weights nor dense vectors.
    """
    has_words = not getattr(encoder, "dense_only", False)
    light = isinstance(encoder, StairMiniEncoder) and spec.text_tower == "table"  # doesn't load the text network
    dense = None if light else get_dense_encoder(encoder)
    if dense is None and not has_words:
        raise ModelError(f"the model {spec.name!r} has neither token weights nor dense vectors", "Use another model.")
    return EvaluatedModel(spec=spec, encoder=encoder, dense=dense, has_words=has_words)


def load_models(specs: Sequence[ModelSpec]) -> list[EvaluatedModel]:
    """Load models in order. All names are resolved before the first model is loaded.

    Raises:
        UsageError: If a model is given twice.
        ModelError: If a model is unknown or broken.
    """
    kinds = [(registry.get_encoder_plugin(spec.name, spec.fit, spec.settings), spec) for spec in specs]
    # The same model with another fit is allowed.
    meant = [(registry.make_portable_name(spec.name), kind.card.model_id) for kind, spec in kinds]
    if twice := sorted({name for name, label in meant if meant.count((name, label)) > 1}):
        raise UsageError(f"the model {twice[0]!r} is given twice", "Specify each model once, with --model or --compare.")
    return [build_evaluated_model(kind.load(spec), spec) for kind, spec in kinds]


def run_for_each_model(
    models: Sequence[EvaluatedModel], work: Callable[[EvaluatedModel], Sequence[_T]], problems: list[str]
) -> list[_T]:
    """Run a function for one model after another and concatenate the results. If a later model fails, a problem is added instead.

    Args:
        models: Models in order.
        work: Measures one model.
        problems: Gets the failures of later models.

    Raises:
        StairError: If the first model failed, or something other than a model.
    """
    found: list[_T] = []
    for number, model in enumerate(models, 1):
        if len(models) > 1:
            logger.info("model %s of %s: %s", number, len(models), model.label)
        try:
            found += work(model)
        except (ModelError, MissingExtra) as error:
            if number == 1:
                raise
            problems.append(f"model {model.label}: {error.message}")
    return found


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Competing tokens, and the tokenizer that maps text to them."""

    tokens: tuple[str, ...]
    speller: WordTokenizer | None


def choose_label_space(models: Sequence[EvaluatedModel]) -> LabelSpace:
    """Return the vocabulary of the first model that lists its own; BERT's if none does."""
    for model in models:
        if model.has_words and (words := model.tokens) is not None:
            return LabelSpace(tokens=words, speller=model.speller)
    return LabelSpace(tokens=load_reference_tokens(), speller=WordPieceTokenizer(load_wordpiece_vocabulary()))


def load_reference_tokens() -> tuple[str, ...]:
    """Return the meaningful tokens of the BERT vocabulary: the label space of models without a vocabulary."""
    stop = load_stop_words()
    return tuple(word for word in load_wordpiece_vocabulary().tokens if is_content_token(word, stop))


class WordPieceTokenizer:
    """Tokenizer for the BERT vocabulary."""

    def __init__(self, tokens: WordPieces) -> None:
        self._tokens, self._stop = tokens, load_stop_words()

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the token of a word, or its pieces; none for stop words and punctuation."""
        found = (self._tokens.tokens[token] for token in dict.fromkeys(self._tokens.encode(word)))
        return tuple(token for token in found if is_content_token(token, self._stop))
