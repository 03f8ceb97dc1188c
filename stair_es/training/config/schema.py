"""Sections of the training configuration: frozen dataclasses that validate themselves. `train_config` combines them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stair_es.errors import UsageError
from stair_es.model.stair.configuration import INITIAL_BIAS, HeadName, ImageTowerConfig, Similarity, TextTowerConfig
from stair_es.training.config.stages import list_recipes
from stair_es.training.data import transforms as augment


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A caption set."""

    captions: str
    """File in any format that `stair-es evaluate` reads; relative to the configuration file."""
    images: str | None = None
    """Folder of the images; None for the folder of the file."""
    split: str | None = None
    """Split, for Karpathy's format."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training, validation and held-out data."""

    train: tuple[DatasetConfig, ...]
    validation: tuple[DatasetConfig, ...] = ()
    held_out: tuple[DatasetConfig, ...] = ()
    """Sets whose images must not be in the training data: identical and near-duplicate images are removed from it."""
    validation_share: float = 0.0
    """Fraction of the images that is held out for validation instead of validation sets."""
    tag_share: float = 0.5
    """Fraction of captions of tagged images to which tags are appended."""
    texts_per_image: int = 8
    """Number of different texts that an image may be paired with."""
    augment: str = "none"
    """`none`, `light` or `strong`."""
    cache: bool = False
    """Whether the states of frozen backbones are computed once and cached; those of images in `views` augmented forms."""
    views: int = 4
    noise: float = 0.0
    """Largest length of the noise that is added to the vectors of a dense model, whose own is 1; its teaching has it, too."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range.
        """
        if not self.train:
            raise UsageError("no training set", 'Write [[data.train]] and captions = "train.jsonl" below it.')
        if not 0 <= self.validation_share < 1 or (self.validation_share and self.validation):
            raise UsageError(
                f"validation_share can't be {self.validation_share}{' with [[data.validation]]' if self.validation else ''}",
                "Give 0 or more and less than 1, and leave it out if there are validation sets.",
            )
        if not 0 <= self.tag_share <= 1:
            raise UsageError(f"tag_share must be in 0..1, got {self.tag_share}", "Give 0 for captions without tags.")
        _check_minimums(self, texts_per_image=1, views=1, noise=0)
        augment.get_augmentation(self.augment)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Composition of a batch."""

    size: int = 256
    """Pairs per batch over all workers."""
    chunk: int = 0
    """Pairs per forward pass on one device (GradCache). 0 for the whole batch."""
    accumulate: int = 1
    """Batches whose gradients are accumulated for one update."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range.
        """
        if self.size < 2:
            raise UsageError(f"size must be 2 or more, got {self.size}", "A pair requires other pairs as negatives.")
        _check_minimums(self, chunk=0, accumulate=1)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer settings (AdamW)."""

    lr: float = 1e-3
    """Learning rate of the heads."""
    backbone_lr: float = 1e-5
    scale_lr: float = 1e-2
    """Learning rate of the temperature."""
    weight_decay: float = 0.01
    warmup_steps: int = 30
    decay: Literal["cosine", "constant"] = "cosine"
    clip: float = 1.0
    """Maximum gradient norm; 0 for no clipping."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = 0.0
    """Decay of the moving average of the parameters; 0 for none."""
    teacher_scale: float = 20.0
    """Factor for the teacher's similarities (loss `distil`)."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range.
        """
        _check_minimums(
            self, **dict.fromkeys(("lr", "backbone_lr", "scale_lr", "weight_decay", "warmup_steps", "clip", "teacher_scale"), 0)
        )
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema must be 0 or more and below 1, got {self.ema}", "For example 0.999; 0 for no average.")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation, checkpointing and logging."""

    every: int = 200
    """Steps between validations and saved states."""
    patience: int = 0
    """Validations without improvement after which training stops; 0 to never stop early."""
    keep: Literal["best", "last"] = "best"
    """Parameters that the checkpoint gets; `best` is by recall at 1, mean of both directions, on the validation sets."""
    log_every: int = 10

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range.
        """
        _check_minimums(self, every=1, log_every=1, patience=0)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model to train."""

    image: ImageTowerConfig
    text: TextTowerConfig
    heads: tuple[HeadName, ...] = ("tokens",)
    dense_dim: int = 256
    similarity: Similarity = "cosine"
    vocabulary: str = "all"
    """Tokens of the model: `all` tokens, those that occur in the training `captions`, or the whole words of a `.json` file."""
    start: str | None = None
    """Checkpoint whose parameters training starts from; it must have the same towers and tokens."""
    start_embeddings: bool = True
    """Whether the heads' token embeddings are initialized from the text network."""
    start_bias: float = INITIAL_BIAS
    """Initial bias of each token, in both heads."""
    start_seed: int | None = None
    """Seed of random parameters; None for the configuration's `seed`. Models with the same initialization can be averaged."""
    pretrained: bool = True
    """Whether the backbones start with their published weights."""
    teacher: str | None = None
    """Model with dense vectors for the loss `distil`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If the vocabulary is unknown, or whole words are tied to the embeddings of tokens.
        """
        if self.vocabulary not in ("all", "captions") and not self.has_whole_words:
            raise UsageError(
                f"unknown vocabulary {self.vocabulary!r}", "Choose all, captions, or a file of words that ends in .json."
            )
        if self.start_seed is not None:
            check_seed("start_seed", self.start_seed)
        if self.has_whole_words and self.text.tie:
            raise UsageError("text.tie shares the embeddings of tokens, but the vocabulary has whole words", "Give tie = false.")

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
    steps: int = 1000
    """Total of all stages."""
    frozen_backbones: bool = False
    """Whether only heads and temperature are trained."""
    flops: float | None = None
    """Weight of the FLOPs regularizer instead of the recipe's, where it has one."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range, or there is no such recipe.
        """
        _check_minimums(self, steps=1)
        if self.name not in list_recipes():
            raise UsageError(
                f"unknown recipe {self.name!r}", f"Choose one of: {', '.join(sorted(list_recipes()))}; or write [[stages]]."
            )


def check_seed(name: str, seed: int) -> None:
    """Raise UsageError if numpy and PyTorch don't accept a seed.

    Raises:
        UsageError: If the seed is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"{name} must be in 0..2^32, got {seed}", "Give a non-negative whole number.")


def _check_minimums(values: object, **minimums: float) -> None:
    """Raise UsageError if a field is below its minimum."""
    for name, value in minimums.items():
        if getattr(values, name) < value:
            raise UsageError(f"{name} must be {value:g} or more, got {getattr(values, name)}", "See docs/training.md.")
