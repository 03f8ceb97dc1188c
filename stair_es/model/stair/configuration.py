"""The configuration of a STAIR checkpoint (`config.json`): how its two towers are built. Pure values, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from stair_es.errors import CheckpointError
from stair_es.system.user_files import read_json_file
from stair_es.types import ImageSpec, Resample, ResizeMode

STAIR_FORMAT = "stair-es"
STAIR_VERSION = 1
CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE = "config.json", "model.safetensors", "tokenizer.json", "README.md"

BackboneKind: TypeAlias = Literal["transformers", "timm", "package", "dense"]
Pooling: TypeAlias = Literal["max", "mean"]
HeadName: TypeAlias = Literal["tokens", "dense"]
Similarity: TypeAlias = Literal["cosine", "dot"]
TRAINING_FITS: tuple[ResizeMode, ...] = ("pad", "squash")
"""Fits that training views support."""
VocabularyKind: TypeAlias = Literal["tokens", "words"]
TextMask: TypeAlias = Literal["own", "tokens", "none"]
"""Where a text may have weights: at its own tokens without stop words and punctuation, at all of its tokens, or anywhere."""
INITIAL_BIAS = -1.0
"""Initial bias of the heads, so that few features are active before training; BERT's is 0."""
IMAGE_PACKAGES, TEXT_PACKAGES = ("efficientnet-lite2",), ("all-minilm-l6-v2",)
"""Backbones from Python packages: their weights are pinned there and not stored in checkpoints."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The network below a head."""

    kind: BackboneKind
    name: str
    """Name of a hub repository, a timm model, a package or a dense model; only its origin if `config` is set."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Builds it without a hub: a transformers configuration, arguments of `timm.create_model`, `dimensions` of a dense model."""

    def __post_init__(self) -> None:
        """Check the kind."""
        _check_choice("backbone kind", self.kind, get_args(BackboneKind))

    @property
    def dimensions(self) -> int:
        """Return the dimensions of a dense model's vectors."""
        dimensions = self.config.get("dimensions")
        if not isinstance(dimensions, int) or isinstance(dimensions, bool) or dimensions < 1:
            raise CheckpointError(
                f"the dense backbone {self.name!r} has dimensions = {dimensions!r}", "It must be a number above 0."
            )
        return dimensions


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig:
    """The image tower: pixels to weights."""

    backbone: BackboneConfig
    size_px: int
    mean: tuple[float, float, float]
    """Subtracted from pixels of 0..1."""
    std: tuple[float, float, float]
    """Then divided by."""
    fit: ResizeMode = "pad"
    """How an image becomes a square: `pad` or `squash`, for a dense model its own way; see `ImageSpec`."""
    resized_px: int | None = None
    """Only for a dense model; see `ImageSpec`."""
    resample: Resample = "bicubic"
    """Only for a dense model; see `ImageSpec`."""
    pool: Pooling = "max"
    """`max` over the logits of all positions, as in STAIR; `mean` of the states below the head."""
    transform_dim: int = 768
    """Width of the head between states and token embeddings."""
    dropout: float = 0.0
    """Dropout of the states, in training."""
    top_k: int = 64
    """Number of weights kept per image; 0 for all."""
    tie: bool = False
    """Whether the image head shares the token embeddings of the text head."""

    def __post_init__(self) -> None:
        """Check the values."""
        is_dense = self.backbone.kind == "dense"
        _check_choice("image fit", self.fit, get_args(ResizeMode) if is_dense else TRAINING_FITS)
        _check_choice("image resample", self.resample, get_args(Resample) if is_dense else ("bicubic",))
        _check_choice("image pool", self.pool, get_args(Pooling))
        _check_tower("image", self.transform_dim, self.dropout, self.top_k)
        if self.size_px < 8:
            raise CheckpointError(f"image size_px must be 8 or more, got {self.size_px}")
        if self.backbone.kind == "package":
            _check_choice("image package", self.backbone.name, IMAGE_PACKAGES)

    @property
    def image_spec(self) -> ImageSpec:
        """Return the pixel format of the tower."""
        return ImageSpec(size_px=self.size_px, fit=self.fit, resized_px=self.resized_px, resample=self.resample)


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """The text tower: tokens to weights."""

    backbone: BackboneConfig
    max_tokens: int = 76
    """Maximum length with special tokens; longer texts are truncated."""
    pool: Pooling = "max"
    transform_dim: int = 768
    dropout: float = 0.0
    top_k: int = 32
    """Number of weights kept per text; 0 for all."""
    tie: bool = False
    """Whether the head uses the token embeddings of the backbone (`transform_dim` is then their width)."""
    own_words: bool = False
    """Whether the text's own tokens get learned weights in addition to the expansion, as in the grounded recipe."""
    always_masked: bool = False
    """Whether a text has weights at its own tokens only: a bag of words."""

    def __post_init__(self) -> None:
        """Check the values."""
        _check_choice("text pool", self.pool, get_args(Pooling))
        _check_tower("text", self.transform_dim, self.dropout, self.top_k)
        if self.max_tokens < 3:
            raise CheckpointError(f"text max_tokens must be 3 or more, got {self.max_tokens}")
        if self.backbone.kind == "timm":
            raise CheckpointError("a text tower can't be built on timm", "Choose the kind transformers, package or dense.")
        if self.backbone.kind == "package":
            _check_choice("text package", self.backbone.name, TEXT_PACKAGES)


@dataclass(frozen=True, kw_only=True)
class StairConfig:
    """The configuration of the whole model."""

    name: str
    image: ImageTowerConfig
    text: TextTowerConfig
    heads: tuple[HeadName, ...] = ("tokens",)
    dense_dim: int = 256
    """Dimensions of the dense head, if there is one."""
    similarity: Similarity = "cosine"
    """Similarity of sparse vectors: `cosine` scales them to length 1, so that a dot product is a cosine; `dot` doesn't."""
    scored_by: HeadName = "dense"
    """Head that gives the score of a model with both."""
    vocabulary: VocabularyKind = "tokens"
    """Kind of features: tokens of the tokenizer (`feature_ids` in the weights), or the whole words of `words.json`."""

    def __post_init__(self) -> None:
        """Check heads, similarity and vocabulary."""
        if not self.heads:
            raise CheckpointError("a model needs a head", "Give heads = ['tokens'], ['dense'] or both.")
        for head in self.heads:
            _check_choice("head", head, get_args(HeadName))
        _check_choice("similarity", self.similarity, get_args(Similarity))
        _check_choice("scored_by", self.scored_by, get_args(HeadName))
        _check_choice("vocabulary", self.vocabulary, get_args(VocabularyKind))
        if self.vocabulary == "words" and self.text.tie:
            raise CheckpointError(
                "text.tie shares the embeddings of tokens, but the vocabulary has whole words", "Give tie = false."
            )
        if self.dense_dim < 1:
            raise CheckpointError(f"dense_dim must be above 0, got {self.dense_dim}")
        if "dense" in (self.image.backbone.kind, self.text.backbone.kind):
            self._check_dense_backbones()

    def _check_dense_backbones(self) -> None:
        if self.image.backbone.kind != self.text.backbone.kind:
            raise CheckpointError(
                "only one tower has a dense model as its backbone", 'Give both kind = "dense" and the same name.'
            )
        if self.heads != ("tokens",) or self.text.tie:
            raise CheckpointError(
                "on top of a dense model, only token heads with separate embeddings can be trained",
                "Give heads = ['tokens'] and text.tie = false: dense vectors are those of the dense model.",
            )

    @property
    def has_dense_backbones(self) -> bool:
        """Return whether the heads are on the vectors of a dense model, which is in the checkpoint's folder."""
        return self.image.backbone.kind == "dense"

    @property
    def is_scored_by_tokens(self) -> bool:
        """Return whether sparse vectors give the score; a model with both heads says it in `scored_by`."""
        return "dense" not in self.heads or ("tokens" in self.heads and self.scored_by == "tokens")

    def to_json(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps({"format": STAIR_FORMAT, "version": STAIR_VERSION, **asdict(self)}, indent=2, default=dict) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StairConfig:
        """Parse the contents of a `config.json`."""
        if (version := values.get("version")) != STAIR_VERSION:
            raise CheckpointError(
                f"config.json has version {version!r} of the format {STAIR_FORMAT!r}, but this stair-es reads {STAIR_VERSION}",
                "Update stair-es, or train the model again.",
            )
        sections = {name: value for name, value in values.items() if name not in ("format", "version")}
        for tower, kind in (("image", ImageTowerConfig), ("text", TextTowerConfig)):
            sections[tower] = _build_tower_config(kind, sections.get(tower), tower)
        config: StairConfig = _build_config(cls, {**sections, "heads": tuple(sections.get("heads", ()))}, "model")
        return config


def read_stair_config(folder: Path) -> StairConfig:
    """Read the configuration of a checkpoint folder."""
    path = folder / CONFIG_FILE
    try:
        values = read_json_file(path)
    except OSError as error:
        raise CheckpointError(f"can't read {path}: {error.strerror}", "Specify a folder that `stair-es train` wrote.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} isn't JSON: {error}", "Get the checkpoint again.") from error
    if not isinstance(values, dict) or values.get("format") != STAIR_FORMAT:
        raise CheckpointError(
            f"{path} isn't the configuration of a stair-es checkpoint", "Use a folder that `stair-es train` wrote."
        )
    return StairConfig.from_dict(values)


def _build_tower_config(kind: type[Any], values: object, name: str) -> Any:  # noqa: ANN401  one of the towers
    if not isinstance(values, Mapping) or not isinstance(values.get("backbone"), Mapping):
        raise CheckpointError(f"config: {name} must be an object with a backbone", "Get the checkpoint again.")
    tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return _build_config(
        kind, {**values, **tuples, "backbone": _build_config(BackboneConfig, values["backbone"], f"{name}.backbone")}, name
    )


def _build_config(kind: type[Any], values: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401  an instance of `kind`
    unknown = set(values) - {each.name for each in fields(kind)}
    if unknown:
        raise CheckpointError(
            f"config: {name} has unknown fields: {', '.join(sorted(unknown))}", "Update stair-es, or correct them."
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise CheckpointError(f"config: {name}: {error}", "Get the checkpoint again.") from None


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CheckpointError(f"unknown {what} {value!r}", f"Choose one of: {', '.join(choices)}.")


def _check_tower(side: str, transform_dim: int, dropout: float, top_k: int) -> None:
    if transform_dim < 1:
        raise CheckpointError(f"{side} transform_dim must be above 0, got {transform_dim}")
    if not 0 <= dropout < 1:
        raise CheckpointError(f"{side} dropout must be in 0..1, got {dropout}")
    if top_k < 0:
        raise CheckpointError(f"{side} top_k must be 0 or more, got {top_k}", "0 keeps all tokens.")
