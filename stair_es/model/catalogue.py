"""The models that `--model` can name: entry points, short names, checkpoint folders, repositories on the hub.

Resolving loads no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from stair_es import extras, plugins
from stair_es.errors import ModelNotFetched, UnknownModel
from stair_es.model import hub_models
from stair_es.model.checkpoint_kind import no_words
from stair_es.model.encoder import Encoder, EncoderKind, ModelCard, ModelSpec, check_own_fit
from stair_es.model.used_folders import is_used_folder
from stair_es.types import Fit

LIBRARIES = ("huggingface_hub", "torch", "transformers")
"""What a model of the hub is fetched and run with."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def names() -> tuple[str, ...]:
    """The names of the entry point group `stair_es.encoders`."""
    return plugins.names("encoders")


def short_names() -> tuple[str, ...]:
    """Return all names without a slash: those of entry points, then those of public checkpoints."""
    return tuple(dict.fromkeys((*names(), *hub_models.names())))


def kind(name: str, fit: Fit | None = None) -> EncoderKind:
    """The kind behind a name: an entry point, else a public checkpoint, else a checkpoint folder, else a repository on the hub.

    Args:
        name: What `--model` takes.
        fit: How images become squares, where it isn't to be the model's own way.

    Raises:
        UnknownModel: No model has this name; the remedy says what can be named.
        ModelError: The checkpoint is of no known format, incomplete, or can't be fetched; or the model takes no other fit.
        PluginError: Its package is broken.
        MissingExtra: `huggingface_hub` is needed and isn't installed.
    """
    plugin = plugins.named("encoders", name)
    if plugin is not None:
        loaded: EncoderKind = plugin.load()
        check_own_fit(loaded.card, fit)
        return loaded
    wanted = absolute(name)
    folder = _folder(wanted)
    if folder is None and not _HUB_ID.fullmatch(wanted):
        known = ", ".join(short_names())
        raise UnknownModel(
            f"unknown model {name!r}: neither a name nor a folder",
            f"Known models: {known} (see stair-es models). The folder of a checkpoint, or its id on the Hugging Face hub "
            "(org/name), works too.",
        )
    from stair_es.model.adapters import formats, hub

    return formats.kind(folder or hub.fetched(wanted, formats.format_of), wanted, fit)


def absolute(name: str) -> str:
    """The name as it holds for another process, elsewhere and later.

    A folder's becomes its absolute path, the short name of a public checkpoint its id on the hub.
    """
    if plugins.named("encoders", name) is not None:
        return name
    public = hub_models.find(name)
    if public is not None and name == public.name:
        return public.hub_id
    folder = _folder(name)
    return str(folder) if folder else name


def is_hub_id(name: str) -> bool:
    """Whether a name that is nothing here could be that of a repository on the hub, or is the short name of one."""
    wanted = absolute(name)
    return plugins.named("encoders", name) is None and _folder(wanted) is None and bool(_HUB_ID.fullmatch(wanted))


def hub_id(name: str) -> str | None:
    """Return the repository on the hub that a name stands for where no folder is called so. The disk isn't asked."""
    public = hub_models.find(name)
    wanted = public.hub_id if public is not None else name
    return wanted if _HUB_ID.fullmatch(wanted) else None


def check_extra(name: str) -> None:
    """Raise MissingExtra if a model of the hub is named whose libraries aren't installed: before a gigabyte is fetched."""
    if is_hub_id(name):
        extras.check_installed(*LIBRARIES, extra=hub_models.EXTRA)


def resolve(name: str, fit: Fit | None = None) -> ModelCard:
    """The card of a model.

    Raises:
        UnknownModel: No model has this name.
        ModelError: See `kind`.
        PluginError: Its package is broken.
    """
    return kind(name, fit).card


def indexable(name: str, fit: Fit | None = None) -> ModelCard:
    """The card of a model with words: before an index is made for it.

    Raises:
        ModelError: The model has dense vectors only, or see `kind`.
        PluginError: Its package is broken.
    """
    found = kind(name, fit)
    if getattr(found, "dense_only", False):
        raise no_words(name)
    return found.card


def load(spec: ModelSpec) -> Encoder:
    """The encoder of a spec. Its networks are read when a tower is first used.

    Raises:
        ModelError: The name, the backend or the text tower is unknown.
        MissingExtra: A library that it needs isn't installed.
    """
    check_extra(spec.name)
    return kind(spec.name, spec.fit).load(spec)


def load_local(spec: ModelSpec) -> Encoder:
    """Return the encoder of a spec that only an index names: an entry point, a folder of an ingest here, or of the hub's cache.

    Raises:
        ModelNotFetched: It is none of these: nothing is fetched, and no other folder is looked at.
        ModelError: As for `load`.
        MissingExtra: As for `load`.
    """
    from stair_es.model.adapters import formats, hub

    with hub.nothing_fetched():
        if plugins.named("encoders", spec.name) is not None or is_used_folder(spec.name):
            return load(spec)
        wanted = hub_id(spec.name)
        if wanted is None:
            raise ModelNotFetched("no installed model is called so, and no ingest with this STAIR_ES_HOME has used such a folder")
        extras.check_installed(*LIBRARIES, extra=hub_models.EXTRA)
        return formats.kind(hub.fetched(wanted, formats.format_of), wanted, spec.fit).load(spec)


def uses_gpu(spec: ModelSpec) -> bool:
    """Whether the image tower would run on a GPU of this machine."""
    return kind(spec.name, spec.fit).uses_gpu(spec)


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder.resolve() if name.strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such home, a NUL: no folder either
        return None
