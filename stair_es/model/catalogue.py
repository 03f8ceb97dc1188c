"""The models that have a name: those of the entry point group `stair_es.encoders`. Resolving one loads no network."""

from __future__ import annotations

from stair_es import plugins
from stair_es.errors import UnknownModel
from stair_es.model.encoder import Encoder, EncoderKind, ModelCard, ModelSpec


def names() -> tuple[str, ...]:
    """The names that `resolve` knows."""
    return plugins.names("encoders")


def kind(name: str) -> EncoderKind:
    """The kind behind a name.

    Raises:
        UnknownModel: No model has this name; the remedy lists those that there are.
        PluginError: Its package is broken.
    """
    plugin = plugins.named("encoders", name)
    if plugin is None:
        raise UnknownModel(f"unknown model {name!r}", f"Known models: {', '.join(names()) or 'none: reinstall stair-es'}.")
    loaded: EncoderKind = plugin.load()
    return loaded


def resolve(name: str) -> ModelCard:
    """The card of a model.

    Raises:
        UnknownModel: No model has this name.
        PluginError: Its package is broken.
    """
    return kind(name).card


def load(spec: ModelSpec) -> Encoder:
    """The encoder of a spec. Its networks are read when a tower is first used.

    Raises:
        ModelError: The name, the backend or the text tower is unknown.
    """
    return kind(spec.name).load(spec)


def uses_gpu(spec: ModelSpec) -> bool:
    """Whether the image tower would run on a GPU of this machine."""
    return kind(spec.name).uses_gpu(spec)
