"""The words that a model could give to an image: those that no image has are dead."""

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
    """A vocabulary."""

    words: frozenset[str]
    of: str
    """The model that told it, or `BERT`."""
    why: str = ""
    """Why it is BERT's."""


def of_model(name: str, *, asked: bool = False, fit: Fit | None = None) -> ModelWords:
    """The words of a model, or BERT's where it doesn't tell or isn't here. No network is run, and none downloaded unasked.

    Args:
        name: What `--model` would take.
        asked: A person named it: what can't be loaded is an error then, and what isn't here is fetched.
        fit: That the index was written with; it is part of what the model is called.

    Raises:
        StairError: It can't be loaded, and it was asked for.
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
        return _bert(f"the model {name} does not tell its words")
    return ModelWords(words=_without_special(told), of=encoder.model_id)


def dead(known: ModelWords, seen: Iterable[str], policy: WordPolicy | None) -> tuple[str, ...]:
    """The words of a vocabulary that no image has, sorted; not those that a word policy took away."""
    gone = {*policy.becomes, *policy.mute} if policy else set[str]()
    return tuple(sorted(known.words.difference(seen, gone)))


def _bert(why: str) -> ModelWords:
    return ModelWords(words=_without_special(load_vocabulary().words), of=BERT, why=why)


def _without_special(words: Iterable[str]) -> frozenset[str]:
    return frozenset(word for word in words if not _SPECIAL.fullmatch(word))
