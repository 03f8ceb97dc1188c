"""Resolve `--model`: entry points, short names, checkpoint folders and repositories of the Hugging Face hub; and list the models.

A name is resolved once, into a `Model`, which is passed on. Resolving loads no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stair_es import optional, plugins
from stair_es.config.settings import resolve_settings
from stair_es.errors import ModelError, ModelNotFetched, StairError, UnknownModel
from stair_es.model import hub
from stair_es.model.base import Encoder, EncoderPlugin, ModelCard, ModelFacts, ModelSpec, check_fit_unchanged
from stair_es.model.checkpoint import build_dense_only_error
from stair_es.model.own_code import OwnCode, ask_with, check_consent, hash_python_files
from stair_es.model.used_folders import is_used_model_folder
from stair_es.model.vocabularies.token_table import TokenTable
from stair_es.plugins import Plugin

HUB_LIBRARIES = ("huggingface_hub", "torch", "transformers")
"""Libraries that download and run a model of the hub."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose name was resolved: what is known of it without loading a network, and how to load it."""

    spec: ModelSpec
    """Options for loading it, with the name that the user gave."""
    portable_name: str
    """Name that other processes can resolve, too, elsewhere and later; an index stores it."""
    plugin: EncoderPlugin
    folder: Path | None
    """Folder of its checkpoint; None for a model of an installed package."""

    @property
    def card(self) -> ModelCard:
        """Return the model card."""
        return self.plugin.card

    @property
    def portable_spec(self) -> ModelSpec:
        """Return the options with the portable name, for other processes."""
        return replace(self.spec, name=self.portable_name)

    @property
    def can_use_gpu(self) -> bool:
        """Return whether the image tower would run on a GPU of this machine."""
        return self.plugin.can_use_gpu(self.spec)

    def load(self, threads: int | None = None, device: str | None = None) -> Encoder:
        """Load the encoder. Its networks are loaded when a tower is first used.

        Args:
            threads: CPU threads of one `encode_images` call, instead of those of the spec.
            device: Device such as `cuda:1`, instead of that of the spec.

        Raises:
            ModelError: If the model doesn't support an option of the spec, or its files are broken.
            MissingExtra: If a required library isn't installed.
        """
        spec = self.spec if threads is None else replace(self.spec, threads=threads)
        return self.plugin.load(spec if device is None else replace(spec, device=device))

    def keep_loaded(self) -> Model:
        """Return the model with an encoder that stays loaded: each `load` with the same arguments returns the same one."""
        return replace(self, plugin=_KeptPlugin(self.plugin))

    def check_indexable(self) -> None:
        """Raise ModelError if the model has no tokens, before an index is created for it."""
        if not self.card.has_tokens:
            raise build_dense_only_error(self.spec.name)

    def build_text_table(self) -> TokenTable:
        """Build the table that the model looks words up in without its text network.

        Raises:
            ModelError: If the model has no such table, or its files are broken.
        """
        table = self.plugin.build_text_table()
        if table is None:
            raise ModelError(
                f"the model {self.spec.name!r} has no table: it encodes texts as a whole, or in pieces of words",
                f"Run stair-es encoder --model {self.spec.name}, and send the texts to its POST /v1/encode.",
                code="model-without-table",
            )
        return table


class _KeptPlugin(EncoderPlugin):
    """A plugin that keeps its encoders."""

    def __init__(self, plugin: EncoderPlugin) -> None:
        self._plugin, self._encoders = plugin, list[tuple[ModelSpec, Encoder]]()
        self.card = plugin.card

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        return self._plugin.can_use_gpu(spec)

    def load(self, spec: ModelSpec) -> Encoder:
        for known, encoder in self._encoders:
            if known == spec:
                return encoder
        self._encoders.append((spec, self._plugin.load(spec)))
        return self._encoders[-1][1]

    def build_text_table(self) -> TokenTable | None:
        return self._plugin.build_text_table()


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """Where a name leads: to an entry point, a folder, a repository on the hub, or nowhere. Nothing there is opened."""

    name: str
    """Id on the hub instead of a short name."""
    entry_point: Plugin | None = None
    folder: Path | None = None
    recipe: str | None = None
    """Short name, if the words of the dense model there are scored on first use."""

    @property
    def portable_name(self) -> str:
        """Return the name for other processes: a folder becomes its absolute path."""
        return self.recipe or str(self.folder or self.name)

    @property
    def is_on_hub(self) -> bool:
        """Return whether the name is that of a repository on the hub, and neither an entry point nor a local folder."""
        return self.entry_point is None and self.folder is None and bool(_HUB_ID.fullmatch(self.name))

    def check_hub_libraries(self) -> None:
        """Raise MissingExtra if it is on the hub, and its libraries aren't installed: before a gigabyte is downloaded."""
        if self.is_on_hub:
            optional.check_installed(*HUB_LIBRARIES, extra=hub.HUB_EXTRA)


def locate_model(name: str) -> ModelLocation:
    """Find where a value of `--model` leads: an entry point, else a public checkpoint, a folder, or a repository on the hub."""
    entry_point = plugins.get_plugin("encoders", name)
    if entry_point is not None:
        return ModelLocation(name=name, entry_point=entry_point)
    location = _locate_on_hub(name)
    # Only the id, not the short name, may also be a folder here.
    return location if location.recipe else replace(location, folder=_find_folder(location.name))


def _locate_on_hub(name: str) -> ModelLocation:
    """Return the location of a name that is neither an entry point nor a folder."""
    hub_model = hub.find_hub_model(name)
    if hub_model is None:
        return ModelLocation(name=name)
    return ModelLocation(name=hub_model.hub_id, recipe=name if hub_model.commit and name == hub_model.name else None)


def resolve_model(spec: ModelSpec, *, runs_here: bool = True) -> Model:
    """Resolve the name in a spec. A repository on the hub is downloaded first.

    Args:
        spec: Options for loading the model.
        runs_here: Whether it will be loaded in this environment, which then needs the libraries for a model of the hub.

    Raises:
        UnknownModel: If no model has this name; the remedy lists the known ones.
        ModelError: If the checkpoint has an unknown format, is incomplete or can't be downloaded, or the model has no other fit.
        PluginError: If the package of the model is broken.
        MissingExtra: If a library that downloads or runs a model of the hub isn't installed.
    """
    location = locate_model(spec.name)
    if location.entry_point is not None:
        plugin: EncoderPlugin = location.entry_point.load(EncoderPlugin)
        check_fit_unchanged(plugin.card, spec.fit)
        return Model(spec=spec, portable_name=spec.name, plugin=plugin, folder=None)
    if location.folder is None and not location.is_on_hub:
        raise UnknownModel(
            f"unknown model {spec.name!r}: neither a name nor a folder",
            f"Known models: {', '.join(list_short_names())} (see stair-es models). The folder of a checkpoint, or its id on the "
            "Hugging Face hub (org/name), works too.",
        )
    if runs_here:
        location.check_hub_libraries()
    return _open_checkpoint(spec, location)


def _open_checkpoint(spec: ModelSpec, location: ModelLocation) -> Model:
    """Open the checkpoint in a folder, or in a repository on the hub."""
    from stair_es.model import families

    name = str(location.folder or location.name)
    folder = location.folder or hub.download_metadata(name, families.detect_family)
    code = _find_own_code(location, folder)
    if code is not None:  # before weights are downloaded
        spec = replace(spec, settings=check_consent(code, resolve_settings(spec.settings)))
    if location.folder is None:
        folder = hub.download_snapshot(name, families.detect_family, with_code=code is not None)
    plugin: EncoderPlugin = families.open_checkpoint(folder, name, spec.fit, trusts_code=code is not None)
    if location.recipe is not None:
        from stair_es.model.labels.recipe import LabelRecipe

        plugin = LabelRecipe(location.recipe, plugin)
    return Model(spec=spec, portable_name=location.portable_name, plugin=plugin, folder=folder)


def _find_own_code(location: ModelLocation, folder: Path) -> OwnCode | None:
    """Return the Python code of a model, of which only the metadata is needed here; None if it has none."""
    from stair_es.model import families

    name, references = str(location.folder or location.name), families.detect_family(folder).find_code(folder)
    if not references:
        return None
    if location.folder is not None:
        return OwnCode(name=name, revision=hash_python_files(folder), place=name, references=references)
    commit = folder.name  # snapshots/COMMIT
    return OwnCode(name=name, revision=commit, place=hub.build_tree_url(name, commit), references=references)


def load_encoder(model: ModelSpec | str) -> Encoder:
    """Load the encoder of a model, by the name of `--model` or by a spec with that name; see `resolve_model` and `Model.load`.

    Raises:
        ModelError: If the name, the backend or the text tower is unknown.
        MissingExtra: If a required library isn't installed.
    """
    return resolve_model(ModelSpec(name=model) if isinstance(model, str) else model).load()


def load_local_encoder(spec: ModelSpec) -> Encoder:
    """Load the encoder of a name that only an index gives.

    It may be an entry point, a folder that an ingest here has used, or a cached repository. Nothing is downloaded, no other
    folder is opened, and nobody is asked to trust its code.

    Raises:
        ModelNotFetched: If the model is none of these.
        ModelError: As for `load_encoder`.
        MissingExtra: As for `load_encoder`.
    """
    with hub.disable_downloads(), ask_with(None):
        home = resolve_settings(spec.settings).home
        if plugins.get_plugin("encoders", spec.name) is not None or is_used_model_folder(spec.name, home):
            return load_encoder(spec)
        if find_hub_id(spec.name) is None:
            raise ModelNotFetched(
                "no installed model has this name, and no ingest with this STAIR_ES_HOME has used such a folder",
                code="model-not-installed",
            )
        location = _locate_on_hub(spec.name)
        location.check_hub_libraries()
        return _open_checkpoint(spec, location).load()


def find_hub_id(name: str) -> str | None:
    """Return the hub repository of a name, assuming that no local folder has that name. Doesn't access the disk."""
    location = _locate_on_hub(name)
    return location.name if location.is_on_hub else None


def list_short_names() -> tuple[str, ...]:
    """Return all names without a slash: those of entry points, then those of public checkpoints."""
    return tuple(dict.fromkeys((*plugins.list_plugin_names("encoders"), *hub.list_hub_model_names())))


def _find_folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder.resolve() if name.strip() and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # the name is too long, has an unknown home or a NUL byte
        return None


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
    """Ids on the hub; the first is the one that an index stores, unless it is a recipe."""
    is_recipe: bool = False
    """Whether its words are read by the dense model on first use."""
    runs_code: bool = False
    """Whether Python code from the hub runs, after the user's consent."""
    tested: bool = True
    """Whether it was run here with its published weights."""
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
    """Return the models of the entry points, then the public checkpoints that have a short name. Downloads nothing."""
    plugin_names = plugins.list_plugin_names("encoders")
    sorted_names = sorted(plugin_names, key=lambda name: (_get_origin(name) != plugins.BUILTIN_DISTRIBUTION, name))
    hub_entries = (model for model in hub.HUB_MODELS if model.name not in plugin_names)
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
        f"Listed: {', '.join(list_short_names())}. --model also takes the folder of a checkpoint and any id on the hub.",
    )


def _get_origin(name: str) -> str:
    plugin = plugins.get_plugin("encoders", name)
    return plugin.distribution if plugin else "?"


def _build_plugin_entry(name: str) -> ModelEntry:
    try:
        card = resolve_model(ModelSpec(name=name)).card
    except StairError as error:
        return ModelEntry(
            name=name, origin=_get_origin(name), description="", licenses=(), facts=ModelFacts(), problem=error.message
        )
    return ModelEntry(
        name=name,
        origin=_get_origin(name),
        description=card.description,
        licenses=tuple(card.licenses),
        facts=card.facts or ModelFacts(),
    )


def _build_hub_entry(model: hub.HubModel) -> ModelEntry:
    from stair_es.model import families

    return ModelEntry(
        name=model.name,
        origin="hub",
        description=model.description,
        licenses=model.licenses,
        facts=model.facts,
        repositories=model.repositories,
        runs_code=model.runs_code,
        is_recipe=model.commit is not None,
        tested=model.tested,
        extra=hub.HUB_EXTRA,
        extra_installed=optional.is_installed(*HUB_LIBRARIES),
        cached=optional.is_installed("huggingface_hub")
        and all(hub.is_repository_cached(name, families.detect_family) for name in model.repositories),
    )


def list_missing_steps(entry: ModelEntry) -> Iterator[str]:
    """Yield what has to be done, or will happen, before a model can be used: one phrase each."""
    if entry.problem:
        yield entry.problem
    if not entry.extra_installed:
        yield f"install the extra: {optional.format_install_command(entry.extra)}"
    if not entry.cached:
        commands = " && ".join(map(hub.format_download_command, entry.repositories))
        yield f"nothing: it is downloaded on first use (or now: {commands})"
    if entry.is_recipe:
        yield "nothing: the dense model reads its words on first use, which takes minutes on a CPU"
