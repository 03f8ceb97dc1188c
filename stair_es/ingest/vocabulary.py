"""The tokens that a model can give, for an index that keeps their ids (`--vector seismic`)."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.token_ids import MAX_IDS
from stair_es.errors import ModelError
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec, Vocabulary

_REMEDY = "Leave --vector seismic out: `rank_features` take any token."


@dataclass(frozen=True)
class KnownTokens:
    """What is known of a model's tokens before an image is encoded."""

    tokens: tuple[str, ...] = ()
    """All that a vector can have; none where the index keeps no ids."""
    largest_weight: float | None = None
    """That a token can have; None where nobody knows."""


def find_tokens(spec: ModelSpec, settings: DocumentSettings) -> KnownTokens:
    """Return the tokens of a model, if documents are to have their ids. Reads the vocabulary, but loads no network.

    Raises:
        ModelError: If the model doesn't tell its tokens, or has more than the plugin can number.
    """
    if settings.vector != "seismic":
        return KnownTokens()
    encoder = catalogue.load(spec)
    if not isinstance(encoder, Vocabulary):
        raise ModelError(f"the model {spec.name!r} doesn't tell which tokens it can give, so they can't be numbered", _REMEDY)
    tokens = tuple(encoder.features)
    if len(tokens) > MAX_IDS:
        raise ModelError(
            f"the model {spec.name!r} has {len(tokens):,} tokens, and OpenSearch's SEISMIC tells only {MAX_IDS:,} apart", _REMEDY
        )
    return KnownTokens(tokens, 1.0 if getattr(encoder, "unit_length", False) else None)
