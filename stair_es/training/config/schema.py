"""Sections of the training configuration: dataclasses with the bounds of their values. `train_config` combines them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

from msgspec import Meta

from stair_es.errors import ConfigError
from stair_es.model.stair.configuration import INITIAL_BIAS, HeadName, ImageTowerConfig, Similarity, TextMask, TextTowerConfig
from stair_es.training.data.transforms import get_augmentation
from stair_es.types import TrainingPrecision

LossName: TypeAlias = Literal[
    "contrastive", "joint", "distil", "ground_image", "ground_text", "gate_image", "flops_image", "flops_text"
]
ModelPart: TypeAlias = Literal["image.backbone", "image.head", "text.backbone", "text.head"]
DecayName: TypeAlias = Literal["cosine", "linear", "constant"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
PARTS: tuple[ModelPart, ...] = get_args(ModelPart)

Amount: TypeAlias = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
PositiveCount: TypeAlias = Annotated[int, Meta(ge=1)]
Beta: TypeAlias = Annotated[float, Meta(ge=0, lt=1)]
Scale: TypeAlias = Annotated[float, Meta(gt=0, le=1000)]
Seed: TypeAlias = Annotated[int, Meta(ge=0, lt=2**32)]
"""A seed that numpy and PyTorch accept."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A caption set, or for training one in shards."""

    captions: str | None = None
    """File in any format that `stair-es evaluate` reads; relative to the configuration file."""
    shards: str | tuple[str, ...] | None = None
    """Webdataset tars that are read as streams: paths or URLs, with braces, globs, or folders."""
    weight: Annotated[float, Meta(gt=0, le=sys.float_info.max)] | None = None
    """Share of the samples that come from these shards, relative to the other sets; None for the number of shards."""
    images: str | None = None
    """Folder of the images; None for the folder of the file."""
    split: str | None = None
    """Split, for Karpathy's format."""

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            ConfigError: If there isn't exactly one of `captions` and `shards`, or a key belongs to the other.
        """
        if (self.captions is None) == (not self.shards):
            raise ConfigError(
                "a set needs either captions or shards", 'Write captions = "train.jsonl", or shards = "{000..099}.tar".'
            )
        name = "weight" if self.shards is None else "images" if self.images else "split"
        if (self.weight if self.shards is None else self.images or self.split) is not None:
            raise ConfigError(f"{name} is for {'shards' if self.shards is None else 'captions'}", f"Leave out {name}.")


@dataclass(frozen=True, kw_only=True)
class ValidationSetConfig:
    """A caption set, or a folder of class folders for zero-shot classification."""

    captions: str | None = None
    images: str | None = None
    split: str | None = None
    classes: str | None = None
    """Folder in the layout `FOLDER/CLASS/IMAGE`."""
    class_names: str | None = None
    """File with the names of the classes, as `stair-es evaluate zero-shot --classes` reads; None for those of the folders."""

    def __post_init__(self) -> None:
        """Check that it is either of the two.

        Raises:
            UsageError: If it is both or neither, or has a key of the other.
        """
        others = (self.class_names,) if self.captions else (self.images, self.split)
        if bool(self.captions) == bool(self.classes) or any(others):
            raise ConfigError(
                "a validation set has either captions (with images, split) or classes (with class_names)",
                'Write captions = "val.jsonl", or classes = "imagenet/val".',
            )

    @property
    def name(self) -> str:
        """Name of the set, from its file or folder."""
        return Path(self.captions or self.classes or "").stem


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training, validation and held-out data."""

    train: Annotated[tuple[DatasetConfig, ...], Meta(min_length=1)]
    validation: tuple[ValidationSetConfig, ...] = ()
    held_out: tuple[DatasetConfig, ...] = ()
    """Sets whose images must not be in the training data: identical and near-duplicate images are removed from it."""
    validation_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Fraction of the images that is held out for validation instead of validation sets."""
    tag_share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Fraction of captions of tagged images to which tags are appended."""
    texts_per_image: PositiveCount = 8
    """Number of different texts that an image may be paired with."""
    augment: str = "none"
    """`none`, `light` or `strong`."""
    cache: bool = False
    """Whether the states of frozen backbones are computed once and cached; those of images in `views` augmented forms."""
    views: PositiveCount = 4
    noise: Amount = 0.0
    """Largest length of the noise that is added to the vectors of a dense model, whose own is 1; its teaching has it, too."""
    captions_from: Annotated[str, Meta(pattern="^https?://")] | None = None
    """Base URL of an endpoint in OpenAI's form that captions the images without captions; None leaves these out."""
    captions_model: str = ""
    """Model of that endpoint; empty for the first that it lists."""
    captions_prompt: str = "Describe this image in one sentence."
    readers: PositiveCount = 4
    """Processes of each worker that read shards."""
    shuffle: PositiveCount = 2000
    """Samples of shards that each worker has in memory, to shuffle them."""

    def __post_init__(self) -> None:
        """Check the values together.

        Raises:
            UsageError: If there are two ways to choose the validation set, or the augmentation is unknown.
        """
        if any(each.shards for each in self.held_out):
            raise ConfigError("only training sets can be shards", "Give held-out sets as captions.")
        if self.has_shards:
            self._check_shards()
        if self.validation_share and self.validation:
            raise ConfigError(
                f"data.validation_share can't be {self.validation_share} with [[data.validation]]",
                "Leave it out if there are validation sets.",
            )
        get_augmentation(self.augment)

    @property
    def has_shards(self) -> bool:
        """Whether training reads shards as streams."""
        return any(each.shards for each in self.train)

    def _check_shards(self) -> None:
        """Check what needs a list of all pairs.

        Raises:
            ConfigError: If a setting needs one.
        """
        if not all(each.shards for each in self.train):
            raise ConfigError(
                "the training sets are both shards and captions", "Give all of them as shards, or all tars as captions."
            )
        needed = {
            "cache": self.cache,
            "validation_share": self.validation_share,
            "held_out": self.held_out,
            "captions_from": self.captions_from,
        }
        if name := next((name for name, value in needed.items() if value), None):
            raise ConfigError(
                f"data.{name} needs a list of all pairs, but shards are read as streams",
                f"Leave out {name}, or give the tars as captions: all of their pairs are then listed in memory.",
            )


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Composition of a batch."""

    size: Annotated[int, Meta(ge=2)] = 256
    """Pairs per batch over all workers."""
    chunk: Count = 0
    """Pairs per forward pass on one device (GradCache). 0 for the whole batch."""
    accumulate: PositiveCount = 1
    """Batches whose gradients are accumulated for one update."""
    checkpointing: bool = False
    """Whether backbones that learn compute their states again in the backward pass, layer by layer, instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer settings."""

    name: Literal["adamw", "lamb"] = "adamw"
    lr: Amount = 1e-3
    """Learning rate of the heads."""
    backbone_lr: Amount = 1e-5
    scale_lr: Amount = 1e-2
    """Learning rate of the temperature."""
    layer_decay: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Factor for the learning rate of each layer of a backbone, from its end to its embeddings; 1 for none."""
    weight_decay: Amount = 0.01
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    eps: Annotated[float, Meta(gt=0, le=1)] = 1e-8
    warmup_steps: Count = 30
    decay: DecayName = "cosine"
    clip: Amount = 1.0
    """Maximum gradient norm; 0 for no clipping."""
    precision: TrainingPrecision = "fp32"
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the parameters; 0 for none."""
    teacher_scale: Amount = 20.0
    """Factor for the teacher's similarities (loss `distil`)."""
    compile: bool = False
    """Whether `torch.compile` compiles the towers."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation, checkpointing and logging."""

    every: PositiveCount = 200
    """Steps between validations and saved states."""
    patience: Count = 0
    """Validations without improvement after which training stops; 0 to never stop early. Needs 100 images, as `best` does."""
    keep: Literal["best", "last"] = "best"
    """Parameters that the checkpoint gets; `best` is by recall at 1, mean of both directions, on the validation sets."""
    keep_states: PositiveCount = 1
    """Number of saved states that are kept: those of the last validations, from which training can resume."""
    log_every: PositiveCount = 10


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where metrics go in addition to `log.csv` and `speed.csv`; no result depends on it."""

    to: tuple[str, ...] | None = None
    """Metric loggers; None for TensorBoard if it is installed."""
    project: str = "stair-es"
    """Project in Weights & Biases, experiment in MLflow."""
    run: str | None = None
    """Name of the run there; None for that of the model."""
    copy_to: str | None = None
    """URL of a folder (S3, GCS, Azure, `file://`) that states, logs and the checkpoint are copied to after each saved state."""

    def __post_init__(self) -> None:
        """Check the URL.

        Raises:
            UsageError: If it has no scheme.
        """
        if self.copy_to is not None and "://" not in self.copy_to:
            raise ConfigError(
                f"log.copy_to must be a URL, got {self.copy_to!r}", "For example s3://bucket/run or file:///mnt/run."
            )


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """What the model card says about the model in addition to the training; no result depends on it."""

    license: Annotated[str, Meta(pattern=r"^[\w.+-]*$")] = ""
    """Identifier of a license, as model hubs know it: `apache-2.0`, `cc-by-4.0`, `other`. Empty if unstated."""
    language: tuple[str, ...] = ()
    """Languages of the texts: `en`."""
    datasets: tuple[str, ...] = ()
    """Hub ids of the data sets."""
    base_model: tuple[str, ...] = ()
    """Hub ids of the models that this one is made of; empty for those of the backbones."""
    data: str = ""
    """Description of the training data in one paragraph."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model to train."""

    image: ImageTowerConfig
    text: TextTowerConfig
    heads: tuple[HeadName, ...] = ("tokens",)
    dense_dim: int = 256
    similarity: Similarity = "cosine"
    scored_by: HeadName = "dense"
    """Head that gives the score of a model with both."""
    vocabulary: str = "all"
    """Tokens of the model: `all` tokens, those that occur in the training `captions`, or the whole words of a `.json` file."""
    start: str | None = None
    """Checkpoint whose parameters training starts from; it must have the same towers and tokens."""
    start_embeddings: bool = True
    """Whether the heads' token embeddings are initialized from the text network."""
    start_bias: float = INITIAL_BIAS
    """Initial bias of each token, in both heads."""
    start_scale: Scale = 20.0
    """Initial factor for similarities (the inverse temperature); a checkpoint in `start` has its own."""
    max_scale: Scale = 100.0
    """Maximum of this factor."""
    start_seed: Seed | None = None
    """Seed of random parameters; None for the configuration's `seed`. Models with the same initialization can be averaged."""
    pretrained: bool = True
    """Whether the backbones start with their published weights."""
    teacher: str | None = None
    """Model with dense vectors for the loss `distil`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If the vocabulary is unknown, whole words are tied to the embeddings of tokens, or the initial scale is
                above its maximum.
        """
        if self.vocabulary not in ("all", "captions") and not self.has_whole_words:
            raise ConfigError(
                f"unknown vocabulary {self.vocabulary!r}", "Choose all, captions, or a file of words that ends in .json."
            )
        if self.has_whole_words and self.text.tie:
            raise ConfigError("text.tie shares the embeddings of tokens, but the vocabulary has whole words", "Give tie = false.")
        if self.start_scale > self.max_scale:
            raise ConfigError(
                f"model.start_scale is {self.start_scale:g}, above model.max_scale, {self.max_scale:g}",
                "Lower start_scale, or raise max_scale.",
            )

    @property
    def has_dense_backbones(self) -> bool:
        """Whether the heads are on the vectors of a dense model."""
        return self.image.backbone.kind == "dense"

    @property
    def has_whole_words(self) -> bool:
        """Whether the vocabulary is a file of whole words."""
        return self.vocabulary.endswith(".json")


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """A named recipe instead of explicit stages."""

    name: str
    steps: PositiveCount = 1000
    """Total of all stages."""
    frozen_backbones: bool = False
    """Whether only heads and temperature are trained."""
    losses: Mapping[LossName, Amount] = field(default_factory=dict)
    """Weights instead of the recipe's, in the stages that have these losses."""


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """A training stage."""

    name: str
    steps: PositiveCount
    losses: Mapping[LossName, Amount] = field(default_factory=lambda: {"contrastive": 1.0})
    """Loss -> weight."""
    train: Annotated[tuple[ModelPart, ...], Meta(min_length=1)] = PARTS
    """Trained parts; the rest is frozen. The temperature is always trained."""
    text_mask: TextMask = "none"
    """`own`: a text may only have weights for its own tokens, without stop words; `tokens`: for all of its tokens."""
    flops_warmup: Count = 0
    """Steps until the FLOPs regularizer reaches its weight."""
    cap: bool = True
    """Whether the towers' `top_k` applies during training; it always applies afterwards."""

    def __post_init__(self) -> None:
        """Check that there is something to learn.

        Raises:
            UsageError: If no loss has a weight.
        """
        if not any(self.losses.values()):
            raise ConfigError(f"stage {self.name!r} has no loss", f"Give one of: {', '.join(LOSSES)}.")

    def is_frozen(self, name: str) -> bool:
        """Return whether a model parameter is frozen in this stage."""
        if name == "log_scale":
            return False
        side, _, rest = name.partition(".")
        part = f"{side}.{'backbone' if rest.startswith('backbone') else 'head'}"
        return part not in self.train
