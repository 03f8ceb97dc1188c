"""Resolve `--model`: entry points, short names, checkpoint folders and repositories of the Hugging Face hub.

Resolving a name loads no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from stair_es import optional, plugins
from stair_es.config.settings import Settings, resolve_settings
from stair_es.errors import ModelError, ModelNotFetched, UnknownModel
from stair_es.model import hub_models
from stair_es.model.base import Encoder, EncoderPlugin, ModelCard, ModelSpec, TablePlugin, check_fit_unchanged
from stair_es.model.checkpoint import build_dense_only_error
from stair_es.model.used_folders import is_used_model_folder
from stair_es.model.vocabularies.token_table import TokenTable
from stair_es.types import ResizeMode

HUB_LIBRARIES = ("huggingface_hub", "torch", "transformers")
"""Libraries that download and run a model of the hub."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def list_plugin_models() -> tuple[str, ...]:
    """Return the names of the entry point group `stair_es.encoders`."""
    return plugins.list_plugin_names("encoders")


def list_short_names() -> tuple[str, ...]:
    """Return all names without a slash: those of entry points, then those of public checkpoints."""
    return tuple(dict.fromkeys((*list_plugin_models(), *hub_models.list_hub_model_names())))


def get_encoder_plugin(name: str, fit: ResizeMode | None = None, settings: Settings | None = None) -> EncoderPlugin:
    """Return the plugin of a model: an entry point, else a public checkpoint, a checkpoint folder, or a repository on the hub.

    Args:
        name: Value of `--model`.
        fit: How images become squares, instead of the model's own way.
        settings: Names the models whose code may run; None for those of the environment.

    Raises:
        UnknownModel: If no model has this name; the remedy lists the known ones.
        ModelError: If the checkpoint has an unknown format, is incomplete or can't be downloaded, or the model has no other fit.
        PluginError: If the package of the model is broken.
        MissingExtra: If `huggingface_hub` is needed and isn't installed.
    """
    plugin = plugins.get_plugin("encoders", name)
    if plugin is not None:
        loaded: EncoderPlugin = plugin.load()
        check_fit_unchanged(loaded.card, fit)
        return loaded
    portable_name = make_portable_name(name)
    folder = _find_folder(portable_name)
    if folder is None and not _HUB_ID.fullmatch(portable_name):
        raise _build_unknown_error(name)
    return _open_checkpoint(folder, portable_name, fit, settings)


def make_portable_name(name: str) -> str:
    """Return a name that other processes can resolve, too, elsewhere and later.

    A folder becomes its absolute path, the short name of a public checkpoint its id on the hub.
    """
    if plugins.get_plugin("encoders", name) is not None:
        return name
    hub_model = hub_models.find_hub_model(name)
    if hub_model is not None and name == hub_model.name:
        return hub_model.hub_id
    folder = _find_folder(name)
    return str(folder) if folder else name


def is_hub_model(name: str) -> bool:
    """Return whether a name is a short name or id of a hub repository, and neither an entry point nor a local folder."""
    portable = make_portable_name(name)
    return plugins.get_plugin("encoders", name) is None and _find_folder(portable) is None and bool(_HUB_ID.fullmatch(portable))


def resolve_hub_id(name: str) -> str | None:
    """Return the hub repository of a name, assuming that no local folder has that name. Doesn't access the disk."""
    hub_model = hub_models.find_hub_model(name)
    hub_id = hub_model.hub_id if hub_model is not None else name
    return hub_id if _HUB_ID.fullmatch(hub_id) else None


def check_hub_libraries(name: str) -> None:
    """Raise MissingExtra if the name is a hub model whose libraries aren't installed: before a gigabyte is downloaded."""
    if is_hub_model(name):
        optional.check_installed(*HUB_LIBRARIES, extra=hub_models.HUB_EXTRA)


def get_model_card(name: str, fit: ResizeMode | None = None, settings: Settings | None = None) -> ModelCard:
    """Return the card of a model, with the arguments of `get_encoder_plugin`.

    Raises:
        UnknownModel: If no model has this name.
        ModelError: As for `get_encoder_plugin`.
        PluginError: If the package of the model is broken.
    """
    return get_encoder_plugin(name, fit, settings).card


def get_indexable_card(name: str, fit: ResizeMode | None = None, settings: Settings | None = None) -> ModelCard:
    """Return the card of a model that produces tokens, before an index is created for it; see `get_encoder_plugin`.

    Raises:
        ModelError: If the model has dense vectors only, or as for `get_encoder_plugin`.
        PluginError: If the package of the model is broken.
    """
    plugin = get_encoder_plugin(name, fit, settings)
    if getattr(plugin, "dense_only", False):
        raise build_dense_only_error(name)
    return plugin.card


def load_encoder(spec: ModelSpec) -> Encoder:
    """Load the encoder of a spec. Its networks are loaded when a tower is first used.

    Raises:
        ModelError: If the name, the backend or the text tower is unknown.
        MissingExtra: If a required library isn't installed.
    """
    check_hub_libraries(spec.name)
    return get_encoder_plugin(spec.name, spec.fit, spec.settings).load(spec)


def build_text_table(name: str, settings: Settings | None = None) -> TokenTable:
    """Build the table that a model looks words up in without its text network; see `get_encoder_plugin`.

    Raises:
        ModelError: If the model has no such table, or as for `get_encoder_plugin`.
        PluginError: If the package of the model is broken.
    """
    plugin = get_encoder_plugin(name, settings=settings)
    if not isinstance(plugin, TablePlugin):
        raise ModelError(
            f"the model {name!r} has no table: it encodes texts as a whole, or in pieces of words",
            f"Run stair-es encoder --model {name}, and send the texts to its POST /v1/encode.",
        )
    return plugin.build_text_table()


def load_local_encoder(spec: ModelSpec) -> Encoder:
    """Load an encoder that only an index names: an entry point, a folder that an ingest here has used, or a cached repository.

    Nothing is downloaded, and no other folder is opened.

    Raises:
        ModelNotFetched: If the model is none of these.
        ModelError: As for `load_encoder`.
        MissingExtra: As for `load_encoder`.
    """
    from stair_es.model import hub_download

    with hub_download.disable_downloads():
        home = resolve_settings(spec.settings).home
        if plugins.get_plugin("encoders", spec.name) is not None or is_used_model_folder(spec.name, home):
            return load_encoder(spec)
        hub_id = resolve_hub_id(spec.name)
        if hub_id is None:
            raise ModelNotFetched(
                "no installed model has this name, and no ingest with this STAIR_ES_HOME has used such a folder"
            )
        optional.check_installed(*HUB_LIBRARIES, extra=hub_models.HUB_EXTRA)
        return _open_checkpoint(None, hub_id, spec.fit, spec.settings).load(spec)


def fetch_checkpoint_folder(name: str, settings: Settings | None = None) -> Path:
    """Return the folder of the checkpoint that a name means; a repository on the hub is downloaded first.

    Args:
        name: Value of `--model`.
        settings: Names the models whose code may run; None for those of the environment.

    Raises:
        UnknownModel: If no model has this name.
        ModelError: If it is an entry point, which has no folder, or can't be downloaded.
        MissingExtra: If `huggingface_hub` is needed and isn't installed.
    """
    if plugins.get_plugin("encoders", name) is not None:
        raise ModelError(f"the model {name!r} is part of an installed package, not a checkpoint folder", "Specify a checkpoint.")
    portable_name = make_portable_name(name)
    folder = _find_folder(portable_name)
    if folder is None and not _HUB_ID.fullmatch(portable_name):
        raise _build_unknown_error(name)
    return folder or _download(portable_name, settings)


def can_model_use_gpu(spec: ModelSpec) -> bool:
    """Return whether the image tower would run on a GPU of this machine."""
    return get_encoder_plugin(spec.name, spec.fit, spec.settings).can_use_gpu(spec)


def _open_checkpoint(folder: Path | None, name: str, fit: ResizeMode | None, settings: Settings | None) -> EncoderPlugin:
    """Open the checkpoint in a folder, or in the repository `name` on the hub."""
    from stair_es.model import checkpoint_formats

    trusts_code = name in resolve_settings(settings).trusted_models
    return checkpoint_formats.open_checkpoint(folder or _download(name, settings), name, fit, trusts_code=trusts_code)


def _download(name: str, settings: Settings | None) -> Path:
    from stair_es.model import checkpoint_formats, hub_download

    trusts_code = name in resolve_settings(settings).trusted_models
    return hub_download.download_snapshot(name, checkpoint_formats.detect_checkpoint_format, with_code=trusts_code)


def _build_unknown_error(name: str) -> UnknownModel:
    known = ", ".join(list_short_names())
    return UnknownModel(
        f"unknown model {name!r}: neither a name nor a folder",
        f"Known models: {known} (see stair-es models). The folder of a checkpoint, or its id on the Hugging Face hub "
        "(org/name), works too.",
    )


def _find_folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder.resolve() if name.strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # the name is too long, has an unknown home or a NUL byte
        return None
