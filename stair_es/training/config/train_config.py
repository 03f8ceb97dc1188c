"""The configuration of `stair-es train`: one TOML file that is validated once; every error names its place in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from stair_es.errors import ConfigError
from stair_es.model.stair.configuration import BackboneConfig, StairConfig
from stair_es.system.user_files import MAX_TOML_BYTES, read_text_file
from stair_es.training.config.schema import (
    PARTS,
    BatchConfig,
    CardConfig,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    RecipeConfig,
    Seed,
    TrainingStage,
    ValidationConfig,
)
from stair_es.training.config.toml import NOT_IN_FILE, convert_table, dump_toml, parse_training_toml

_BACKBONES = {"image.backbone", "text.backbone"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Configuration of a training run."""

    name: str
    model: ModelConfig
    data: DataConfig
    stages: tuple[TrainingStage, ...]
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    card: CardConfig = field(default_factory=CardConfig)
    seed: Seed = 0
    """Seed for everything random: parameters, batches, captions, augmentation, dropout."""
    folder: Path = field(default=Path(), metadata=NOT_IN_FILE)
    """Folder of the configuration file, to which paths are relative."""
    text: str = field(default="", metadata=NOT_IN_FILE)
    """Text of the file with overrides applied, saved next to the checkpoint."""

    def __post_init__(self) -> None:
        """Check constraints between sections.

        Raises:
            UsageError: If two settings contradict each other.
        """
        self._check_losses()
        if self.data.cache and (unfrozen := [stage.name for stage in self.stages if set(stage.train) & _BACKBONES]):
            raise ConfigError(
                f"data.cache stores the states of frozen backbones, but stage {unfrozen[0]!r} trains one",
                'Give the stages train = ["image.head", "text.head"] (a recipe: frozen_backbones = true), or data.cache = false.',
            )
        for side, tower in (("image", self.model.image), ("text", self.model.text)):
            trained_in = [stage.name for stage in self.stages if f"{side}.backbone" in stage.train]
            if tower.backbone.kind in ("package", "dense") and trained_in:
                origin = "comes from a package" if tower.backbone.kind == "package" else "is a dense model"
                raise ConfigError(
                    f"stage {trained_in[0]!r} trains the {side} backbone {tower.backbone.name!r}, which {origin}:"
                    " no checkpoint would contain it",
                    'Write recipe.frozen_backbones = true, or train = ["image.head", "text.head"] in the stage.',
                )
        if self.validation.patience and not self.data.validation and not self.data.validation_share:
            raise ConfigError("validation.patience needs a validation set", "Write [[data.validation]].")
        if self.data.has_shards and self.model.vocabulary == "captions":
            raise ConfigError(
                "model.vocabulary can't be the words of the captions: shards are read as streams",
                'Give "all", or a file of words.',
            )
        if self.data.noise and not self.model.has_dense_backbones:
            raise ConfigError(
                "data.noise is for the vectors of a dense model", 'Give both backbones kind = "dense", or noise = 0.'
            )
        if self.model.has_dense_backbones:
            self._check_dense_backbones()

    def _check_losses(self) -> None:
        """Check that the model has what its losses need.

        Raises:
            ConfigError: If a head or a teacher is missing.
        """
        losses = {name for stage in self.stages for name, weight in stage.losses.items() if weight > 0}
        if "tokens" not in self.model.heads and losses - {"contrastive", "distil"}:
            raise ConfigError(
                f"the loss {min(losses - {'contrastive', 'distil'})} needs a token head", "Give heads = ['tokens']."
            )
        is_scored_by_dense = "dense" in self.model.heads and self.model.scored_by == "dense"
        if losses & {"joint", "gate_image"} and is_scored_by_dense:
            raise ConfigError(
                f"the loss {min(losses & {'joint', 'gate_image'})} needs scores of token weights", 'Give scored_by = "tokens".'
            )
        if "joint" in losses and "dense" not in self.model.heads:
            raise ConfigError("the loss joint compares the scores of two heads", 'Give heads = ["tokens", "dense"].')
        if "distil" in losses and not self.model.teacher and not self.model.has_dense_backbones:
            raise ConfigError("the loss distil needs a teacher", "Give model.teacher, a model with dense vectors.")

    @property
    def is_taught_by_backbone(self) -> bool:
        """Return whether the dense model below the heads is their teacher."""
        return self.model.has_dense_backbones and self.model.teacher is None

    def resolve_path(self, path: str) -> Path:
        """Return a path of the file, which is relative to its folder."""
        return self.folder / Path(path).expanduser()

    def resolve_backbone(self, backbone: BackboneConfig) -> BackboneConfig:
        """Return the backbone with an absolute path if it is a folder next to the configuration file."""
        folder = self.resolve_path(backbone.name)
        is_local = backbone.kind in ("transformers", "dense") and bool(backbone.name) and folder.is_dir()
        return replace(backbone, name=str(folder)) if is_local else backbone

    def _check_dense_backbones(self) -> None:
        image, text = self.model.image.backbone, self.model.text.backbone
        if (image.kind, image.name) != (text.kind, text.name):
            raise ConfigError("the two towers have different dense models", "Give both the same kind and name.")
        if not self.data.cache:
            raise ConfigError("heads on top of a dense model are trained on cached vectors", "Write data.cache = true.")
        if self.model.vocabulary == "all":
            raise ConfigError("a dense model has no tokens that could be read", 'Give model.vocabulary = "captions", or a file.')
        if self.model.start_embeddings:
            raise ConfigError("a dense model has no token embeddings to start from", "Write model.start_embeddings = false.")


def read_train_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: TOML file; docs/training.md describes it.
        overrides: Overrides by dotted name: `{"optim.lr": 1e-3}`.

    Raises:
        UsageError: If the file can't be read, or a value is unknown, missing or out of range.
    """
    try:
        text = read_text_file(path, MAX_TOML_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"can't read the configuration {path}: {error}", "Specify a TOML file; see docs/training.md."
        ) from error
    values = parse_training_toml(text, path.name)
    for name, value in (overrides or {}).items():
        _set_value(values, name, value)
    return build_train_config(values, path.parent.absolute(), dump_toml(values) if overrides else text, path.name)


def build_train_config(values: Mapping[str, Any], folder: Path, text: str, where: str = "the configuration") -> TrainConfig:
    """Build a configuration of the values of a file.

    Args:
        values: Tables and values; docs/training.md describes them.
        folder: Folder that paths are relative to.
        text: The values as TOML, for the copy next to the checkpoint.
        where: Name of the file, for errors.

    Raises:
        UsageError: If a value is unknown, missing or out of range.
    """
    tables = {name: value for name, value in values.items() if name != "recipe"}
    recipe = values.get("recipe", {})
    if (recipe != {}) == (tables.get("stages", []) != []):
        raise ConfigError(
            f"{where} needs either [recipe] or [[stages]]", 'Write [recipe], name = "grounded" and steps = 1000 below it.'
        )
    if recipe != {}:
        tables = _apply_recipe(convert_table(recipe, RecipeConfig, f"{where}.recipe"), tables, f"{where}.recipe")
    return replace(convert_table(tables, TrainConfig, where), folder=folder, text=text)


def _apply_recipe(recipe: RecipeConfig, tables: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the tables of a configuration with the recipe's stages, and its defaults for model and optimizer."""
    if recipe.name not in list_recipes():
        raise ConfigError(
            f"{where}: unknown recipe {recipe.name!r}",
            f"Choose one of: {', '.join(sorted(list_recipes()))}; or write [[stages]].",
        )
    values = _read_recipe(recipe.name)
    stages = _share_steps(values["stages"], recipe.steps)
    for stage in stages:
        stage["losses"] |= {name: weight for name, weight in recipe.losses.items() if name in stage["losses"]}
        if recipe.frozen_backbones:
            stage["train"] = [part for part in stage.get("train", PARTS) if part not in _BACKBONES]
    defaults: dict[str, Any] = {section: values[section] for section in ("model", "optim") if section in values}
    return {**_apply_defaults(tables, defaults), "stages": stages}


def _share_steps(stages: Sequence[Mapping[str, Any]], steps: int) -> list[dict[str, Any]]:
    """Return the stages of a recipe with their share of the steps, at least one each."""
    shared, begin, share = [], 0, 0.0
    for stage in stages:
        share += stage["share"]
        end = round(steps * share)
        rest = {name: value for name, value in stage.items() if not name.endswith("share")}
        stage_steps = max(1, end - begin)
        warmup = {"flops_warmup": round(stage["flops_warmup_share"] * stage_steps)} if "flops_warmup_share" in stage else {}
        shared.append({**rest, "steps": stage_steps, **warmup})
        begin = end
    return shared


def _apply_defaults(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with defaults for missing keys, also in nested tables."""
    values = {**defaults, **table}
    for name, inner in defaults.items():
        if isinstance(inner, dict) and isinstance(values[name], dict):
            values[name] = _apply_defaults(values[name], inner)
    return values


def list_recipes() -> dict[str, str]:
    """List the recipes: name -> one line of description."""
    names = [
        file.name.removesuffix(".toml") for file in (files(__package__) / "recipes").iterdir() if file.name.endswith(".toml")
    ]
    return {name: str(_read_recipe(name)["about"]) for name in names}


def _read_recipe(name: str) -> dict[str, Any]:
    return parse_training_toml((files(__package__) / "recipes" / f"{name}.toml").read_text(encoding="utf-8"), name)


def _set_value(values: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401
    *path, last = name.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{name}: {key} isn't a table", "Specify a value in a table: optim.lr.")
    values[last] = value


def build_stair_config(config: TrainConfig, image: BackboneConfig, text: BackboneConfig) -> StairConfig:
    """Return the model configuration, with backbones that can be built without access to a model hub."""
    model_config = config.model
    return StairConfig(
        name=config.name,
        image=replace(model_config.image, backbone=image),
        text=replace(model_config.text, backbone=text),
        heads=model_config.heads,
        dense_dim=model_config.dense_dim,
        similarity=model_config.similarity,
        scored_by=model_config.scored_by,
    )
