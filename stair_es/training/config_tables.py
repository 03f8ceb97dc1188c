"""The tables of a training's configuration: frozen values that check themselves. `config` puts them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stair_es.errors import UsageError
from stair_es.model.stair_config import BIAS_AT_START, Head, ImageTower, Similarity, TextTower
from stair_es.training import augment
from stair_es.training.stages import recipes


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
    vocabulary: str = "all"
    """The features: `all` tokens, those that occur in the training's `captions`, or the whole words of a `.json` file."""
    start: str | None = None
    """A checkpoint whose parameters are the beginning; it must have the same towers and features."""
    start_embeddings: bool = True
    """Whether the heads' word embeddings begin as the text network's."""
    start_bias: float = BIAS_AT_START
    """What the bias of each word begins with, in both heads."""
    start_seed: int | None = None
    """What random parameters are drawn by; None for the configuration's `seed`. Models that begin alike can be averaged."""
    pretrained: bool = True
    """Whether the backbones begin with their published weights."""
    teacher: str | None = None
    """A model with dense vectors that the loss `distil` learns from."""

    def __post_init__(self) -> None:
        """Check what can't be.

        Raises:
            UsageError: The vocabulary is unknown, or whole words are tied to the embeddings of tokens.
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
    def has_whole_words(self) -> bool:
        """Whether the vocabulary is a file of whole words."""
        return self.vocabulary.endswith(".json")


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


def check_seed(name: str, seed: int) -> None:
    """Check that a seed is one that numpy and PyTorch take.

    Raises:
        UsageError: It is out of range.
    """
    if not 0 <= seed < 2**32:
        raise UsageError(f"{name} must be in 0..2^32, got {seed}", "Give a whole number that isn't negative.")


def _least(values: object, **least: float) -> None:
    """Check that fields are as large as they must be."""
    for name, value in least.items():
        if getattr(values, name) < value:
            raise UsageError(f"{name} must be {value:g} or more, got {getattr(values, name)}", "See docs/training.md.")
