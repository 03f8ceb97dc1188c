"""The vocabulary of a model, and the tokens of it that no image has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from stair_es.config.settings import Settings
from stair_es.errors import ModelNotFetched, StairError, UnknownModel
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.token_policy import TokenPolicy
from stair_es.types import ResizeMode

BERT = "BERT, uncased"
_SPECIAL = re.compile(r"\[.+\]")
"""`[CLS]`, `[unused7]`: no model gives them to an image."""


@dataclass(frozen=True, kw_only=True)
class ModelVocabulary:
    """The vocabulary of a model, or a replacement for it."""

    tokens: frozenset[str]
    source: str
    """Id of the model, or `BERT`."""
    reason: str = ""
    """Why it is BERT's vocabulary."""


def load_model_vocabulary(
    name: str, *, required: bool = False, fit: ResizeMode | None = None, settings: Settings | None = None
) -> ModelVocabulary:
    """Load the vocabulary of a model, or BERT's if the model doesn't expose one or isn't on this machine.

    No network is run, and none is downloaded unless `required`.

    Args:
        name: Name, as for `--model`.
        required: Whether the user named the model: then it is downloaded if necessary, and a failure is an error.
        fit: Fit that the index was written with; it is part of the model's id.
        settings: Data folder and trusted models; None for those of the environment.
    """
    try:
        spec = ModelSpec(name=name, fit=fit, settings=settings)
        encoder = registry.load_encoder(spec) if required else registry.load_local_encoder(spec)
        tokens = encoder.tokens
    except StairError as error:
        if required:
            raise
        is_missing = isinstance(error, (ModelNotFetched, UnknownModel))
        return _load_bert_vocabulary(f"the model {name} is not on this machine" if is_missing else error.message)
    if not tokens:
        return _load_bert_vocabulary(f"the model {name} does not expose its vocabulary")
    return ModelVocabulary(tokens=_remove_special_tokens(tokens), source=encoder.model_id)


def find_unused_tokens(vocabulary: ModelVocabulary, used: Iterable[str], policy: TokenPolicy | None) -> tuple[str, ...]:
    """Find the tokens of a vocabulary that no image has, sorted, without those that a token policy removed."""
    removed = {*policy.replacements, *policy.mute} if policy else set[str]()
    return tuple(sorted(vocabulary.tokens.difference(used, removed)))


def _load_bert_vocabulary(reason: str) -> ModelVocabulary:
    return ModelVocabulary(tokens=_remove_special_tokens(load_wordpiece_vocabulary().tokens), source=BERT, reason=reason)


def _remove_special_tokens(tokens: Iterable[str]) -> frozenset[str]:
    return frozenset(token for token in tokens if not _SPECIAL.fullmatch(token))
