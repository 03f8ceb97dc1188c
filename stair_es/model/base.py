"""Interfaces of models: pixels or texts in, sparse vectors of token weights out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, get_args, runtime_checkable

from stair_es.config.settings import Settings
from stair_es.errors import ModelError
from stair_es.model.vocabularies.token_table import TokenTable
from stair_es.types import Backend as Backend
from stair_es.types import Floats, ImageSpec, Pixels, ResizeMode, SparseVector
from stair_es.types import Precision as Precision
from stair_es.types import TextTower as TextTower


class Encoder(Protocol):
    """A loaded model. `encode_images` and `encode_texts` may be called from several threads."""

    @property
    def model_id(self) -> str:
        """Return name and revision, stored in each document and its fingerprint. Same id, same image vectors."""

    @property
    def image_spec(self) -> ImageSpec:
        """Return the pixel format that `encode_images` requires."""

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return one vector per image; an image encoded alone gets the same vector as in a batch."""

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one vector per text; empty (`len(vector) == 0`) for a text without a known token."""


@runtime_checkable
class WordTokenizer(Protocol):
    """An encoder that splits a word into tokens of its vocabulary. Without it, a word is used as the token of that name."""

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word as users write it: the word itself, or its pieces; empty if no vector can contain it."""


@runtime_checkable
class WordChecker(Protocol):
    """An encoder that reports which words of a text it knows. Without it, a word is unknown if `tokenize_word` has no token."""

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the unknown words of a text in lower case, each once; stop words and numbers are not among them."""


@dataclass(frozen=True, kw_only=True)
class MatchThresholds:
    """Thresholds of weak matches, for a model whose image vectors have length 1. An image that reaches none is a weak match."""

    weak_cosine: float
    """Minimum cosine of query and image for a match."""
    weak_image_cosine: float
    """The same, if images are part of the query."""
    named_weight: float
    """Minimum weight of a token to count: an image that has each word of the query with it is a match, too."""


@runtime_checkable
class MatchGrader(Protocol):
    """An encoder with measured thresholds of weak matches. Without it, no hit is called weak."""

    @property
    def match_thresholds(self) -> MatchThresholds | None:
        """Return the thresholds of weak matches; None if they weren't measured."""


@runtime_checkable
class VocabularyProvider(Protocol):
    """An encoder that lists the tokens that its vectors can contain. One whose vectors have length 1 sets `unit_length`."""

    @property
    def tokens(self) -> Sequence[str]:
        """Return all tokens, each once."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Facts about a model that `stair-es models` shows. A fact that isn't known is `unknown`."""

    size: str = "unknown"
    """Size of its files, with units."""
    languages: str = "unknown"
    vocabulary: str = "unknown"
    """Kind of tokens."""
    tokens: int | None = None
    """Number of tokens."""
    recall: str = "unknown"
    """Published recall: data set, direction, value."""
    source: str = "unknown"
    """Source of the recall."""
    verified: str = "unknown"
    """Parts that this project has run."""
    unverified: str = "unknown"
    """Parts that this project has not run."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Metadata of a model, known without loading it."""

    name: str
    model_id: str
    """`Encoder.model_id`, stored in each document."""
    image_spec: ImageSpec
    description: str
    licenses: tuple[str, ...] = ()
    """One line for each third-party part."""
    facts: ModelFacts | None = None
    """Further facts for `stair-es models`."""
    match_thresholds: MatchThresholds | None = None
    """Thresholds of weak matches; None if they weren't measured."""


class CardMixin:
    """The part of `Encoder` that the model card answers, for encoders that keep it as `_card`."""

    _card: ModelCard

    @property
    def model_id(self) -> str:
        """Return the model id of the card."""
        return self._card.model_id

    @property
    def image_spec(self) -> ImageSpec:
        """Return the pixel format of the card."""
        return self._card.image_spec

    @property
    def match_thresholds(self) -> MatchThresholds | None:
        """Return the thresholds of weak matches from the card."""
        return self._card.match_thresholds


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Options for loading an encoder. Small and picklable, so that workers can load the model themselves."""

    name: str
    """Model name as in `--model`."""
    backend: Backend = "auto"
    """Network runtime. `auto`: torch if CUDA is available, else onnxruntime."""
    text_tower: TextTower = "full"
    """`full` runs the text network, `table` looks words up in a static table (lighter, slightly worse)."""
    precision: Precision = "fp32"
    """Precision of the torch backend's image network. bf16 and fp16 are for GPUs: faster, slightly less exact."""
    threads: int = 0
    """CPU threads of one `encode_images` call; 0 for one per core."""
    fit: ResizeMode | None = None
    """How an image becomes a square (see `ImageSpec.fit`), instead of the model's default; part of the model id."""
    settings: Settings | None = None
    """Data folder, and the models whose code may run; None for those of the environment of the process that loads the model."""


def check_model_spec(spec: ModelSpec) -> None:
    """Check that the values of a spec exist. Whether a model supports them is checked by the model.

    Raises:
        ModelError: If the backend, text tower or precision is unknown, or the number of threads is negative.
    """
    named = {"text tower": TextTower, "backend": Backend, "precision": Precision}
    for (what, choices), value in zip(named.items(), (spec.text_tower, spec.backend, spec.precision), strict=True):
        if value not in get_args(choices):
            raise ModelError(f"unknown {what} {value!r}", f"Choose one of: {', '.join(get_args(choices))}.")
    if spec.threads < 0:
        raise ModelError(f"threads must be 0 or more, got {spec.threads}", "0 means one per core.")


def choose_image_spec(default: ImageSpec, fit: ResizeMode | None) -> ImageSpec:
    """Return the image spec of a model, with another fit if one is given.

    Args:
        default: The model's own image spec.
        fit: Requested fit; None for the model's own.

    Raises:
        ModelError: If the fit is unknown.
    """
    if fit is None or fit == default.fit:
        return default
    if fit not in get_args(ResizeMode):
        raise ModelError(f"unknown fit {fit!r}", f"Choose one of: {', '.join(get_args(ResizeMode))}.")
    return replace(default, fit=fit, resized_px=None if fit == "pad" else default.resized_px)


def check_fit_unchanged(card: ModelCard, fit: ResizeMode | None) -> None:
    """Raise ModelError if another fit than the model's own is requested. For models that support one fit only.

    Args:
        card: Model card.
        fit: Requested fit; None for the model's own.

    Raises:
        ModelError: If the fit differs from the model's own.
    """
    if choose_image_spec(card.image_spec, fit) != card.image_spec:
        raise ModelError(
            f"the model {card.name!r} supports only its own fit, {card.image_spec.fit!r}, not {fit!r}",
            "Leave out --fit and STAIR_ES_FIT. Checkpoints in third-party formats, such as VDR or CLIP, support any.",
        )


def check_encoder_pixels(pixels_BHWC: Pixels, card: ModelCard) -> None:
    """Raise ModelError if pixels don't have the type and shape of the card's image spec."""
    side = card.image_spec.size_px
    if str(pixels_BHWC.dtype) != "uint8" or pixels_BHWC.ndim != 4 or pixels_BHWC.shape[1:] != (side, side, 3):
        raise ModelError(
            f"{card.name} requires uint8 pixels (B, {side}, {side}, 3), got {pixels_BHWC.dtype} {pixels_BHWC.shape}",
            "Use stair_es.sources.image.decode with the image_spec of the encoder.",
        )


class EncoderPlugin(Protocol):
    """A model registered in the entry point group `stair_es.encoders`. Its card is known without loading the model."""

    card: ModelCard

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether `load` would put the image tower on a GPU of this machine."""

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder. Its networks may be loaded lazily, when a tower is first used.

        Raises:
            ModelError: If the backend or the text tower is unknown, or the model's files are broken.
            MissingExtra: If a required library isn't installed.
        """


@runtime_checkable
class TablePlugin(EncoderPlugin, Protocol):
    """A plugin of a model whose texts can be looked up in a table."""

    def build_text_table(self) -> TokenTable:
        """Build the table.

        Raises:
            ModelError: If the model's files are broken.
        """


@runtime_checkable
class DenseEncoder(Protocol):
    """Dense vectors that an encoder may offer in addition to its tokens: unit vectors of images and texts in one space."""

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images, [B, D], each of length 1."""

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts, [B, D], each of length 1."""


def get_own_dense_encoder(encoder: object) -> DenseEncoder | None:
    """Return the encoder if it also has dense vectors; None if not.

    An encoder that has the methods only for other checkpoints of its kind sets `tokens_only`.
    """
    return encoder if isinstance(encoder, DenseEncoder) and not getattr(encoder, "tokens_only", False) else None


@runtime_checkable
class JointEncoder(DenseEncoder, Protocol):
    """A dense encoder that also has token weights, and returns both from one run of the networks that they share."""

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return what `encode_images` and `encode_images_dense` return."""

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return what `encode_texts` and `encode_texts_dense` return."""
