"""The vocabulary of a model, and the tokens of it that no image has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stair_es.errors import ModelNotFetched, StairError, UnknownModel
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.model.wordpiece import load_vocabulary
from stair_es.policy import WordPolicy
from stair_es.types import Fit

BERT = "BERT, uncased"
_SPECIAL = re.compile(r"\[.+\]")
"""`[CLS]`, `[unused7]`: no model gives them to an image."""


@dataclass(frozen=True, kw_only=True)
class ModelWords:
    """The vocabulary of a model, or a replacement for it."""

    words: frozenset[str]
    of: str
    """Id of the model, or `BERT`."""
    why: str = ""
    """Why it is BERT's vocabulary."""


def of_model(name: str, *, asked: bool = False, fit: Fit | None = None) -> ModelWords:
    """Load the vocabulary of a model, or BERT's if the model doesn't expose one or isn't on this machine.

    No network is run, and none is downloaded unless `asked`.

    Args:
        name: Name, as for `--model`.
        asked: Whether the user named the model: then it is downloaded if necessary, and a failure is an error.
        fit: Fit that the index was written with; it is part of the model's id.

    Raises:
        StairError: If the model can't be loaded, and `asked` is true.
    """
    try:
        spec = ModelSpec(name=name, fit=fit)
        encoder = catalogue.load(spec) if asked else catalogue.load_local(spec)
        told = getattr(encoder, "image_features", None) or getattr(encoder, "features", None)
    except StairError as error:
        if asked:
            raise
        away = isinstance(error, (ModelNotFetched, UnknownModel))
        return _bert(f"the model {name} is not on this machine" if away else error.message)
    if not told:
        return _bert(f"the model {name} does not expose its vocabulary")
    return ModelWords(words=_without_special(told), of=encoder.model_id)


def dead(known: ModelWords, seen: Iterable[str], policy: WordPolicy | None) -> tuple[str, ...]:
    """Find the tokens of a vocabulary that no image has, sorted, without those that a token policy removed."""
    gone = {*policy.becomes, *policy.mute} if policy else set[str]()
    return tuple(sorted(known.words.difference(seen, gone)))


def _bert(why: str) -> ModelWords:
    return ModelWords(words=_without_special(load_vocabulary().words), of=BERT, why=why)


def _without_special(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if not _SPECIAL.fullmatch(word))
