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
