"""The configuration of `stair-es train`: one TOML file that is validated once; every error names its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stair_es.errors import UsageError
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.system.user_files import MAX_TOML_BYTES, read_text_file
from stair_es.training.config.schema import (
    BatchConfig,
    DataConfig,
    DatasetConfig,
    ModelConfig,
    OptimizerConfig,
    RecipeConfig,
    ValidationConfig,
    check_seed,
)
from stair_es.training.config.stages import TrainingStage, get_model_defaults, load_recipe, read_stages
from stair_es.training.config.toml import TableReader, dump_toml, parse_training_toml


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
    seed: int = 0
    """Seed for everything random: parameters, batches, captions, augmentation, dropout."""
    folder: Path = Path()
    """Folder of the configuration file, to which paths are relative."""
    text: str = ""
    """Text of the file with overrides applied, saved next to the checkpoint."""

    def __post_init__(self) -> None:
        """Check constraints between sections.

        Raises:
            UsageError: If two settings contradict each other.
        """
        check_seed("seed", self.seed)
        losses = {name for stage in self.stages for name, weight in stage.losses.items() if weight > 0}
        if "tokens" not in self.model.heads and losses - {"contrastive", "distil"}:
            raise UsageError(f"the loss {min(losses - {'contrastive', 'distil'})} needs a token head", "Give heads = ['tokens'].")
        if "distil" in losses and not self.model.teacher and not self.model.has_dense_backbones:
            raise UsageError("the loss distil needs a teacher", "Give model.teacher, a model with dense vectors.")
        if self.data.cache and (unfrozen := [stage.name for stage in self.stages if set(stage.train) & _BACKBONES]):
            raise UsageError(
                f"data.cache stores the states of frozen backbones, but stage {unfrozen[0]!r} trains one",
                'Give the stages train = ["image.head", "text.head"] (a recipe: frozen_backbones = true), or data.cache = false.',
            )
        for side, tower in (("image", self.model.image), ("text", self.model.text)):
            trained_in = [stage.name for stage in self.stages if f"{side}.backbone" in stage.train]
            if tower.backbone.kind in ("package", "dense") and trained_in:
                origin = "comes from a package" if tower.backbone.kind == "package" else "is a dense model"
                raise UsageError(
                    f"stage {trained_in[0]!r} trains the {side} backbone {tower.backbone.name!r}, which {origin}:"
                    " no checkpoint would contain it",
                    'Write recipe.frozen_backbones = true, or train = ["image.head", "text.head"] in the stage.',
                )
        if self.validation.patience and not self.data.validation and not self.data.validation_share:
            raise UsageError("validation.patience needs a validation set", "Write [[data.validation]].")
        if self.data.noise and not self.model.has_dense_backbones:
            raise UsageError(
                "data.noise is for the vectors of a dense model", 'Give both backbones kind = "dense", or noise = 0.'
            )
        if self.model.has_dense_backbones:
            self._check_dense_backbones()

    @property
    def is_taught_by_backbone(self) -> bool:
        """Return whether the dense model below the heads is their teacher."""
        return self.model.has_dense_backbones and self.model.teacher is None

    def _check_dense_backbones(self) -> None:
        image, text = self.model.image.backbone, self.model.text.backbone
        if (image.kind, image.name) != (text.kind, text.name):
            raise UsageError("the two towers have different dense models", "Give both the same kind and name.")
        if not self.data.cache:
            raise UsageError("heads on top of a dense model are trained on cached vectors", "Write data.cache = true.")
        if self.model.vocabulary == "all":
            raise UsageError("a dense model has no tokens that could be read", 'Give model.vocabulary = "captions", or a file.')
        if self.model.start_embeddings:
            raise UsageError("a dense model has no token embeddings to start from", "Write model.start_embeddings = false.")


_BACKBONES = {"image.backbone", "text.backbone"}


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
        raise UsageError(f"can't read the configuration {path}: {error}", "Specify a TOML file; see docs/training.md.") from error
    values = parse_training_toml(text, path.name)
    for name, value in (overrides or {}).items():
        _set_value(values, name, value)
    return _build_config(TableReader(values, path.name), path.parent.absolute(), dump_toml(values) if overrides else text)


def parse_train_config(text: str) -> TrainConfig:
    """Parse the text of a configuration, whose paths are relative to the working directory.

    Args:
        text: TOML; docs/training.md describes it.

    Raises:
        UsageError: If a value is unknown, missing or out of range.
    """
    return _build_config(TableReader(parse_training_toml(text, "the configuration"), "the configuration"), Path.cwd(), text)


def _build_config(table: TableReader, folder: Path, text: str) -> TrainConfig:
    return table.build_dataclass(
        TrainConfig,
        skip=("recipe",),
        model=_build_model_config(
            _apply_defaults(table.get_table("model"), get_model_defaults(table.get_table("recipe").values.get("name")))
        ),
        data=_build_data_config(table.get_table("data")),
        stages=_build_stages(table),
        batch=table.get_table("batch").build_dataclass(BatchConfig),
        optim=table.get_table("optim").build_dataclass(OptimizerConfig),
        validation=table.get_table("validation").build_dataclass(ValidationConfig),
        folder=folder,
        text=text,
    )


def _build_model_config(table: TableReader) -> ModelConfig:
    image, text = table.get_table("image"), table.get_table("text")
    return table.build_dataclass(
        ModelConfig,
        image=image.build_dataclass(ImageTowerConfig, backbone=image.get_table("backbone").build_dataclass(BackboneConfig)),
        text=text.build_dataclass(TextTowerConfig, backbone=text.get_table("backbone").build_dataclass(BackboneConfig)),
    )


def _apply_defaults(table: TableReader, defaults: Mapping[str, Any]) -> TableReader:
    """Return the table with defaults for missing keys, also in nested tables."""
    values = {**defaults, **table.values}
    for name, inner in defaults.items():
        if isinstance(inner, dict) and name in table.values:
            values[name] = _apply_defaults(table.get_table(name), inner).values
    return TableReader(values, table.where)


def _build_data_config(table: TableReader) -> DataConfig:
    train, validation, held_out = (
        tuple(each.build_dataclass(DatasetConfig) for each in table.get_tables(name))
        for name in ("train", "validation", "held_out")
    )
    return table.build_dataclass(DataConfig, train=train, validation=validation, held_out=held_out)


def _build_stages(table: TableReader) -> tuple[TrainingStage, ...]:
    explicit = read_stages(table.get_tables("stages"))
    recipe_table = table.get_table("recipe")
    if bool(explicit) == bool(recipe_table.values):
        raise UsageError(
            f"{table.where} needs either [recipe] or [[stages]]", 'Write [recipe], name = "grounded" and steps = 1000 below it.'
        )
    if explicit:
        return explicit
    recipe = recipe_table.build_dataclass(RecipeConfig)
    stages = load_recipe(recipe.name, recipe.steps)
    if recipe.flops is not None:
        stages = tuple(_set_flops_weight(stage, recipe.flops) for stage in stages)
    return tuple(_freeze_backbones(stage) for stage in stages) if recipe.frozen_backbones else stages


def _set_flops_weight(stage: TrainingStage, weight: float) -> TrainingStage:
    return replace(stage, losses={name: weight if name.startswith("flops") else old for name, old in stage.losses.items()})


def _freeze_backbones(stage: TrainingStage) -> TrainingStage:
    return replace(stage, train=tuple(part for part in stage.train if part not in _BACKBONES))


def _set_value(values: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401
    *path, last = name.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UsageError(f"{name}: {key} isn't a table", "Specify a value in a table: optim.lr.")
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
    )
