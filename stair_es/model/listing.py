"""List the models for `stair-es models`: the known facts, and what is installed or cached here. Downloads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from stair_es import extras, plugins
from stair_es.errors import StairError, UnknownModel
from stair_es.model import catalogue, hub_models
from stair_es.model.adapters import formats, hub
from stair_es.model.encoder import EncoderKind, ModelFacts


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model in the list."""

    name: str
    """Value of `--model`."""
    origin: str
    """Package that provides it, or `hub`."""
    description: str
    licences: tuple[str, ...]
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
        own = {name: value for name, value in asdict(self).items() if name != "facts"}
        return {**own, "problem": self.problem or None, **facts}


def list_models() -> tuple[Entry, ...]:
    """Return the models of the entry points, then the public checkpoints that have a short name."""
    taken = plugins.names("encoders")
    ours = sorted(taken, key=lambda name: (_origin(name) != plugins.OURS, name))
    public = (model for model in hub_models.HUB_MODELS if model.name not in taken)
    return (*map(_of_entry_point, ours), *map(_of_hub, public))


def find_model(name: str) -> Entry:
    """Return the listed model with this name or hub id.

    Args:
        name: Name or hub id.

    Raises:
        UnknownModel: If no listed model has this name.
    """
    for entry in list_models():
        if name == entry.name or name in entry.repositories[:1]:
            return entry
    raise UnknownModel(
        f"no listed model has the name {name!r}",
        f"Listed: {', '.join(catalogue.short_names())}. --model also takes the folder of a checkpoint and any id on the hub.",
    )


def _origin(name: str) -> str:
    plugin = plugins.named("encoders", name)
    return plugin.distribution if plugin else "?"


def _of_entry_point(name: str) -> Entry:
    try:
        kind: EncoderKind = catalogue.kind(name)
    except StairError as error:
        return Entry(name=name, origin=_origin(name), description="", licences=(), facts=ModelFacts(), problem=error.message)
    card = kind.card
    facts = getattr(card, "facts", None) or ModelFacts()
    return Entry(name=name, origin=_origin(name), description=card.description, licences=tuple(card.licences), facts=facts)


def _of_hub(model: hub_models.HubModel) -> Entry:
    return Entry(
        name=model.name,
        origin="hub",
        description=model.description,
        licences=model.licences,
        facts=model.facts,
        repositories=model.repositories,
        extra=hub_models.EXTRA,
        extra_installed=extras.is_installed(*catalogue.LIBRARIES),
        cached=extras.is_installed("huggingface_hub")
        and all(hub.is_cached(each, formats.format_of) for each in model.repositories),
    )


def missing_of(entry: Entry) -> Iterator[str]:
    """Yield what has to be done, or will happen, before a model can be used: one phrase each."""
    if entry.problem:
        yield entry.problem
    if not entry.extra_installed:
        yield f"install the extra: pip install 'stair-es[{entry.extra}]'"
    if not entry.cached:
        commands = " && ".join(f"hf download {each}" for each in entry.repositories)
        yield f"nothing: it is downloaded on first use (or now: {commands})"
