"""Models under comparison: which of token weights and dense vectors each of them offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stair_es.errors import MissingExtra, ModelError, UsageError
from stair_es.eval.dense import dense_of
from stair_es.model import catalogue
from stair_es.model.encoder import DenseEncoder, Encoder, ModelSpec, Speller, Vocabulary
from stair_es.model.stair_mini import StairMini
from stair_es.model.stop_words import is_meaningful, load_stop_words
from stair_es.model.wordpiece import Vocabulary as WordPieces
from stair_es.model.wordpiece import load_vocabulary

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Contender:
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
    def features(self) -> tuple[str, ...] | None:
        """Tokens that its vectors can have; None if the encoder doesn't list them."""
        return tuple(self.encoder.features) if isinstance(self.encoder, Vocabulary) else None

    @property
    def speller(self) -> Speller | None:
        """Tokenizer of its vocabulary, if it has one."""
        return self.encoder if isinstance(self.encoder, Speller) else None


def contender(encoder: Encoder, spec: ModelSpec) -> Contender:
    """Wrap a loaded encoder. An encoder with the attribute `dense_only` has no token weights.

    Args:
        encoder: The encoder.
        spec: The spec that it was loaded from.

    Raises:
        ModelError: If it has neither token weights nor dense vectors.
    """
    has_words = not getattr(encoder, "dense_only", False)
    light = isinstance(encoder, StairMini) and spec.text_tower == "table"  # doesn't load the text network
    dense = None if light else dense_of(encoder)
    if dense is None and not has_words:
        raise ModelError(f"the model {spec.name!r} has neither token weights nor dense vectors", "Compare with another one.")
    return Contender(spec=spec, encoder=encoder, dense=dense, has_words=has_words)


def load(specs: Sequence[ModelSpec]) -> list[Contender]:
    """Load models in order. All names are resolved before the first model is loaded.

    Raises:
        UsageError: If a model is given twice.
        ModelError: If a model is unknown or broken.
    """
    kinds = [(catalogue.kind(spec.name, spec.fit), spec) for spec in specs]
    meant = [
        (catalogue.absolute(spec.name), kind.card.model_id) for kind, spec in kinds
    ]  # the same model with another fit is allowed
    if twice := sorted({name for name, label in meant if meant.count((name, label)) > 1}):
        raise UsageError(f"the model {twice[0]!r} is given twice", "Name each model once, with --model or --against.")
    return [contender(kind.load(spec), spec) for kind, spec in kinds]


def in_turn(
    models: Sequence[Contender], work: Callable[[Contender], Sequence[_T]], problems: list[str], say: Callable[[str], None]
) -> list[_T]:
    """Run a function for one model after another and concatenate the results. If a later model fails, a problem is added instead.

    Args:
        models: Models in order.
        work: Measures one model.
        problems: Gets the failures of later models.
        say: Called with a line per model, if there are several.

    Raises:
        StairError: If the first model failed, or something other than a model.
    """
    found: list[_T] = []
    for number, model in enumerate(models, 1):
        if len(models) > 1:
            say(f"model {number} of {len(models)}: {model.label}")
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

    words: tuple[str, ...]
    speller: Speller | None


def label_space(models: Sequence[Contender]) -> LabelSpace:
    """Return the vocabulary of the first model that lists its own; BERT's if none does."""
    for model in models:
        if model.has_words and (words := model.features) is not None:
            return LabelSpace(words=words, speller=model.speller)
    return LabelSpace(words=reference_features(), speller=PieceSpeller(load_vocabulary()))


def reference_features() -> tuple[str, ...]:
    """Return the meaningful tokens of the BERT vocabulary: the label space of models without a vocabulary."""
    stop = load_stop_words()
    return tuple(word for word in load_vocabulary().words if is_meaningful(word, stop))


class PieceSpeller:
    """Tokenizer for the BERT vocabulary."""

    def __init__(self, tokens: WordPieces) -> None:
        self._tokens, self._stop = tokens, load_stop_words()

    def spell(self, word: str) -> tuple[str, ...]:
        """Return the token of a word, or its pieces; none for stop words and punctuation."""
        found = (self._tokens.words[token] for token in dict.fromkeys(self._tokens.encode(word)))
        return tuple(token for token in found if is_meaningful(token, self._stop))
