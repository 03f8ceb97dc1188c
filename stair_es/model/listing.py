"""List the models for `stair-es models`: the known facts, and what is installed or cached here. Downloads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from stair_es import optional, plugins
from stair_es.errors import StairError, UnknownModel
from stair_es.model import checkpoint_formats, hub_download, hub_models, registry
from stair_es.model.base import EncoderPlugin, ModelFacts


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model in the list."""

    name: str
    """Value of `--model`."""
    origin: str
    """Package that provides it, or `hub`."""
    description: str
    licenses: tuple[str, ...]
    facts: ModelFacts
    repositories: tuple[str, ...] = ()
    """Ids on the hub; the first is the one that an index stores."""
    extra: str | None = None
    """Extra to install for it; None for a model that comes with its package."""
    extra_installed: bool = True
    cached: bool = True
    """Whether nothing has to be downloaded from the hub."""
    problem: str = ""
    """Why it can't be used if its package is broken."""

    def to_dict(self) -> dict[str, Any]:
        """Return the machine-readable form; unknown facts are None."""
        facts = {name: None if value == "unknown" else value for name, value in asdict(self.facts).items()}
        values = {name: value for name, value in asdict(self).items() if name != "facts"}
        return {**values, "problem": self.problem or None, **facts}


def list_models() -> tuple[ModelEntry, ...]:
    """Return the models of the entry points, then the public checkpoints that have a short name."""
    plugin_names = plugins.list_plugin_names("encoders")
    sorted_names = sorted(plugin_names, key=lambda name: (_get_origin(name) != plugins.BUILTIN_DISTRIBUTION, name))
    hub_entries = (model for model in hub_models.HUB_MODELS if model.name not in plugin_names)
    return (*map(_build_plugin_entry, sorted_names), *map(_build_hub_entry, hub_entries))


def find_listed_model(name: str) -> ModelEntry:
    """Return the listed model with this name or hub id.

    Raises:
        UnknownModel: If no listed model has this name.
    """
    for entry in list_models():
        if name == entry.name or name in entry.repositories[:1]:
            return entry
    raise UnknownModel(
        f"no listed model has the name {name!r}",
        f"Listed: {', '.join(registry.list_short_names())}. --model also takes the folder of a checkpoint and any id on the hub.",
    )


def _get_origin(name: str) -> str:
    plugin = plugins.get_plugin("encoders", name)
    return plugin.distribution if plugin else "?"


def _build_plugin_entry(name: str) -> ModelEntry:
    try:
        plugin: EncoderPlugin = registry.get_encoder_plugin(name)
    except StairError as error:
        return ModelEntry(
            name=name, origin=_get_origin(name), description="", licenses=(), facts=ModelFacts(), problem=error.message
        )
    card = plugin.card
    facts = getattr(card, "facts", None) or ModelFacts()
    return ModelEntry(
        name=name, origin=_get_origin(name), description=card.description, licenses=tuple(card.licenses), facts=facts
    )


def _build_hub_entry(model: hub_models.HubModel) -> ModelEntry:
    return ModelEntry(
        name=model.name,
        origin="hub",
        description=model.description,
        licenses=model.licenses,
        facts=model.facts,
        repositories=model.repositories,
        extra=hub_models.HUB_EXTRA,
        extra_installed=optional.is_installed(*registry.HUB_LIBRARIES),
        cached=optional.is_installed("huggingface_hub")
        and all(
            hub_download.is_repository_cached(name, checkpoint_formats.detect_checkpoint_format) for name in model.repositories
        ),
    )


def list_missing_steps(entry: ModelEntry) -> Iterator[str]:
    """Yield what has to be done, or will happen, before a model can be used: one phrase each."""
    if entry.problem:
        yield entry.problem
    if not entry.extra_installed:
        yield f"install the extra: {optional.format_install_command(entry.extra)}"
    if not entry.cached:
        commands = " && ".join(f"hf download {repository}" for repository in entry.repositories)
        yield f"nothing: it is downloaded on first use (or now: {commands})"
