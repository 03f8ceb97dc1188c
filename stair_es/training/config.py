"""What `stair-es train` is told: one TOML file, checked once, every mistake named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stair_es.errors import UsageError
from stair_es.model.stair_config import Backbone, Head, ImageTower, Similarity, StairConfig, TextTower
from stair_es.training import augment
from stair_es.training.stages import Stage, read_stages, recipe, recipes
from stair_es.training.toml import Reader, dump, parse


@dataclass(frozen=True, kw_only=True)
class SetOf:
    """A caption set."""

    captions: str
    """Its file, in any form that `stair-es evaluate` reads; relative to the configuration."""
    images: str | None = None
    """The folder of its images, else that of the file."""
    split: str | None = None
    """Of Karpathy's form."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is learned from."""

    train: tuple[SetOf, ...]
    validation: tuple[SetOf, ...] = ()
    held_out: tuple[SetOf, ...] = ()
    """Sets whose images must not be among the training's: same or nearly the same ones are left out."""
    tag_share: float = 0.5
    """Of captions of an image with tags, how many get some of them appended."""
    texts_per_image: int = 8
    """Different captions that an image may be shown with."""
    augment: str = "none"
    """`none`, `light` or `strong`."""
    cache: bool = False
    """Whether the states of frozen backbones are computed once and kept; the image's in `views` augmented forms."""
    views: int = 4

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: A value is out of range.
        """
        if not self.train:
            raise UsageError("no training set", 'Write [[data.train]] and captions = "train.jsonl" below it.')
        if not 0 <= self.tag_share <= 1:
            raise UsageError(f"tag_share must be in 0..1, got {self.tag_share}", "0 for captions without tags.")
        _least(self, texts_per_image=1, views=1)
        augment.preset(self.augment)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How a batch is made up."""

    size: int = 256
    """Over all workers."""
    chunk: int = 0
    """Pairs that go through the towers at once on one device; the rest waits (GradCache). 0 for all."""
    accumulate: int = 1
    """Batches whose gradients make one update."""

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: A value is out of range.
        """
        if self.size < 2:
            raise UsageError(f"size must be 2 or more, got {self.size}", "A pair needs others to be told from.")
        _least(self, chunk=0, accumulate=1)


@dataclass(frozen=True, kw_only=True)
class Optim:
    """How parameters are updated: AdamW."""

    lr: float = 1e-3
    """Of the heads."""
    backbone_lr: float = 1e-5
    scale_lr: float = 1e-2
    """Of the temperature."""
    weight_decay: float = 0.01
    warmup_steps: int = 30
    decay: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    """Largest norm of the gradient; 0 for any."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = 0.0
    """Decay of the moving average of the parameters; 0 for none."""
    teacher_scale: float = 20.0
    """What a teacher's similarities are multiplied with (loss `distil`)."""

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: A value is out of range.
        """
        _least(
            self, **dict.fromkeys(("lr", "backbone_lr", "scale_lr", "weight_decay", "warmup_steps", "clip", "teacher_scale"), 0)
        )
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be 0 or more and below 1, got {self.ema}", "0.999, say; 0 for no average.")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a training is watched."""

    every: int = 200
    """Steps between validations and saved states."""
    patience: int = 0
    """Validations without a better recall after which it stops; 0 for never."""
    keep: Literal["best", "last"] = "best"
    """Which parameters the checkpoint gets, by the recall at 1 of both directions on the validation sets."""
    log_every: int = 10

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: A value is out of range.
        """
        _least(self, every=1, log_every=1, patience=0)


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """The model that is trained."""

    image: ImageTower
    text: TextTower
    heads: tuple[Head, ...] = ("words",)
    dense_dim: int = 256
    similarity: Similarity = "cosine"
    vocabulary: Literal["all", "captions"] = "all"
    """Which tokens are features: all, or those that occur in the training's captions."""
    start: str | None = None
    """A checkpoint whose parameters are the beginning; it must have the same towers and features."""
    start_embeddings: bool = True
    """Whether the heads' word embeddings begin as the text network's."""
    pretrained: bool = True
    """Whether the backbones begin with their published weights."""
    teacher: str | None = None
    """A model with dense vectors that the loss `distil` learns from."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Named stages in place of written ones."""

    name: str
    steps: int = 1000
    """Of all stages together."""
    frozen_backbones: bool = False
    """Whether only heads and temperature learn."""
    flops: float | None = None
    """Weight of the FLOPs regulariser in place of the recipe's, where it has one."""

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: A value is out of range, or there is no such recipe.
        """
        _least(self, steps=1)
        if self.name not in recipes():
            raise UsageError(
                f"unknown recipe {self.name!r}", f"Choose one of: {', '.join(sorted(recipes()))}; or write [[stages]]."
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All of it."""

    name: str
    model: ModelPlan
    data: Data
    stages: tuple[Stage, ...]
    batch: Batch = field(default_factory=Batch)
    optim: Optim = field(default_factory=Optim)
    watch: Watch = field(default_factory=Watch)
    seed: int = 0
    """Of everything that is drawn: parameters, batches, captions, augmentation, dropout."""
    folder: Path = Path()
    """That of the file: relative paths begin there."""
    text: str = ""
    """The file itself, with the changes that were asked for, to be kept beside the checkpoint."""

    def __post_init__(self) -> None:
        """Check what must go together.

        Raises:
            UsageError: Something doesn't.
        """
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed must be in 0..2^32, got {self.seed}", "Give a whole number that isn't negative.")
        losses = {name for stage in self.stages for name, weight in stage.losses.items() if weight > 0}
        if "words" not in self.model.heads and losses - {"contrastive", "distil"}:
            raise UsageError(f"the loss {min(losses - {'contrastive', 'distil'})} needs a word head", "Give heads = ['words'].")
        if "distil" in losses and not self.model.teacher:
            raise UsageError("the loss distil needs a teacher", "Give model.teacher, a model with dense vectors.")
        if self.data.cache and (cached := [stage.name for stage in self.stages if set(stage.train) & _BACKBONES]):
            raise UsageError(
                f"data.cache keeps the states of frozen backbones, but stage {cached[0]!r} trains one",
                'Give the stages train = ["image.head", "text.head"] (a recipe: frozen_backbones = true), or data.cache = false.',
            )
        for side, tower in (("image", self.model.image), ("text", self.model.text)):
            training = [stage.name for stage in self.stages if f"{side}.backbone" in stage.train]
            if tower.backbone.kind == "package" and training:
                raise UsageError(
                    f"stage {training[0]!r} trains the {side} backbone {tower.backbone.name!r}, which comes from a package:"
                    " no checkpoint would hold it",
                    'Write recipe.frozen_backbones = true, or train = ["image.head", "text.head"] in the stage.',
                )
        if self.watch.patience and not self.data.validation:
            raise UsageError("watch.patience needs a validation set", "Write [[data.validation]].")


_BACKBONES = {"image.backbone", "text.backbone"}


def read_train_config(path: Path, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration in a file.

    Args:
        path: TOML; docs/training.md describes it.
        changes: Values that take the place of the file's, by dotted names: `{"optim.lr": 1e-3}`.

    Raises:
        UsageError: It can't be read, or something in it is unknown, missing or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read the configuration {path}: {error}", "Name a TOML file; see docs/training.md.") from error
    values = parse(text, path.name)
    for name, value in (changes or {}).items():
        _set(values, name, value)
    return _read(Reader(values, path.name), path.parent.absolute(), dump(values) if changes else text)


def _read(top: Reader, folder: Path, text: str) -> TrainConfig:
    return top.build(
        TrainConfig,
        skip=("recipe",),
        model=_model(top.table("model")),
        data=_data(top.table("data")),
        stages=_stages(top),
        batch=top.table("batch").build(Batch),
        optim=top.table("optim").build(Optim),
        watch=top.table("watch").build(Watch),
        folder=folder,
        text=text,
    )


def _model(table: Reader) -> ModelPlan:
    image, text = table.table("image"), table.table("text")
    return table.build(
        ModelPlan,
        image=image.build(ImageTower, backbone=image.table("backbone").build(Backbone)),
        text=text.build(TextTower, backbone=text.table("backbone").build(Backbone)),
    )


def _data(table: Reader) -> Data:
    train, validation, held_out = (
        tuple(each.build(SetOf) for each in table.tables(name)) for name in ("train", "validation", "held_out")
    )
    return table.build(Data, train=train, validation=validation, held_out=held_out)


def _stages(top: Reader) -> tuple[Stage, ...]:
    given = read_stages(top.tables("stages"))
    named = top.table("recipe")
    if bool(given) == bool(named.values):
        raise UsageError(
            f"{top.where} needs either [recipe] or [[stages]]", 'Write [recipe], name = "grounded" and steps = 1000 below it.'
        )
    if given:
        return given
    asked = named.build(Recipe)
    stages = recipe(asked.name, asked.steps)
    if asked.flops is not None:
        stages = tuple(_regularised(stage, asked.flops) for stage in stages)
    return tuple(_frozen(stage) for stage in stages) if asked.frozen_backbones else stages


def _regularised(stage: Stage, weight: float) -> Stage:
    return replace(stage, losses={name: weight if name.startswith("flops") else old for name, old in stage.losses.items()})


def _frozen(stage: Stage) -> Stage:
    return replace(stage, train=tuple(part for part in stage.train if part not in _BACKBONES))


def _least(values: object, **least: float) -> None:
    """Check that fields are as large as they must be."""
    for name, value in least.items():
        if getattr(values, name) < value:
            raise UsageError(f"{name} must be {value:g} or more, got {getattr(values, name)}", "See docs/training.md.")


def _set(values: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401
    *path, last = name.split(".")
    for key in path:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UsageError(f"{name}: {key} isn't a table")
    values[last] = value


def stair_config(config: TrainConfig, image: Backbone, text: Backbone) -> StairConfig:
    """The model's configuration, with backbones that can be built without a hub."""
    plan = config.model
    return StairConfig(
        name=config.name,
        image=replace(plan.image, backbone=image),
        text=replace(plan.text, backbone=text),
        heads=plan.heads,
        dense_dim=plan.dense_dim,
        similarity=plan.similarity,
    )
