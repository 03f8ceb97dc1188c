"""What every model is to the rest of the project: pixels or texts in, sparse vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, get_args, runtime_checkable

from stair_es.errors import ModelError
from stair_es.types import Fit, Floats, ImageSpec, Pixels, SparseVector

Backend: TypeAlias = Literal["auto", "onnx", "torch"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
TextTower: TypeAlias = Literal["full", "table"]


class Encoder(Protocol):
    """A loaded model. `encode_images` and `encode_texts` may be called from several threads."""

    @property
    def model_id(self) -> str:
        """Name and revision: goes into each document and its fingerprint. The same id means the same image vectors."""

    @property
    def image_spec(self) -> ImageSpec:
        """The pixels that `encode_images` wants."""

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """One vector an image; the same for an image alone and in a batch."""

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """One vector a text; empty (`len(vector) == 0`) for a text without a known word."""


@runtime_checkable
class Speller(Protocol):
    """An encoder that tells how its vocabulary writes a word. Without it a word is taken for a feature of the same name."""

    def spell(self, word: str) -> tuple[str, ...]:
        """The features of a word as people write it: itself, or its pieces; empty for what no vector has."""


@runtime_checkable
class Vocabulary(Protocol):
    """An encoder that tells which tokens its vectors can have. One whose vectors have length 1 says so by `unit_length`."""

    @property
    def features(self) -> Sequence[str]:
        """All of them, each once."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What `stair-es models` says of a model, for people. What nobody knows is `unknown`."""

    size: str = "unknown"
    """Of its files, with units."""
    languages: str = "unknown"
    vocabulary: str = "unknown"
    """What kind of tokens."""
    tokens: int | None = None
    """How many."""
    recall: str = "unknown"
    """As published: data, direction, figure."""
    source: str = "unknown"
    """Of the recall."""
    verified: str = "unknown"
    """What was run by this project."""
    unverified: str = "unknown"
    """What wasn't."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a model without loading it."""

    name: str
    model_id: str
    """As `Encoder.model_id`: goes into each document."""
    image_spec: ImageSpec
    description: str
    licences: tuple[str, ...] = ()
    """One line for each part that comes from elsewhere."""
    facts: ModelFacts | None = None
    """What else `stair-es models` shows."""


class OfCard:
    """The half of an `Encoder` that its card knows, for one that keeps it as `_card`."""

    _card: ModelCard

    @property
    def model_id(self) -> str:
        """See `Encoder`."""
        return self._card.model_id

    @property
    def image_spec(self) -> ImageSpec:
        """See `Encoder`."""
        return self._card.image_spec


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """How to build an encoder: small, picklable, so that it can travel to a worker that loads the model there."""

    name: str
    """A name in the catalogue."""
    backend: Backend = "auto"
    """Network runtime: torch where CUDA is there, else onnxruntime, for `auto`."""
    text_tower: TextTower = "full"
    """`full` runs the text network, `table` looks words up in a static table (lighter, a little worse)."""
    precision: Precision = "fp32"
    """Of the torch backend's image network: bf16 and fp16 are for GPUs, faster and a little less exact."""
    threads: int = 0
    """CPU threads of one `encode_images` call; 0 for as many as there are cores."""
    fit: Fit | None = None
    """How an image becomes a square (see `ImageSpec.fit`), in place of the model's own way; part of the model's id."""


def check_known(spec: ModelSpec) -> None:
    """Nothing, if all that the spec says exists; whether a model has it is the model's business.

    Raises:
        ModelError: A backend, text tower or precision that no model has, or a negative number of threads.
    """
    named = {"text tower": TextTower, "backend": Backend, "precision": Precision}
    for (what, known), value in zip(named.items(), (spec.text_tower, spec.backend, spec.precision), strict=True):
        if value not in get_args(known):
            raise ModelError(f"unknown {what} {value!r}", f"Choose one of: {', '.join(get_args(known))}.")
    if spec.threads < 0:
        raise ModelError(f"threads must be 0 or more, got {spec.threads}", "0 means as many as there are cores.")


def choose_image_spec(own: ImageSpec, fit: Fit | None) -> ImageSpec:
    """Return a model's own pixels, or the same with another fit.

    Raises:
        ModelError: There is no such fit.
    """
    if fit is None or fit == own.fit:
        return own
    if fit not in get_args(Fit):
        raise ModelError(f"unknown fit {fit!r}", f"Choose one of: {', '.join(get_args(Fit))}.")
    return replace(own, fit=fit, resized_px=None if fit == "pad" else own.resized_px)


def check_own_fit(card: ModelCard, fit: Fit | None) -> None:
    """Check that a model which knows its own fit only is asked for no other.

    Raises:
        ModelError: It is.
    """
    if choose_image_spec(card.image_spec, fit) != card.image_spec:
        raise ModelError(
            f"the model {card.name!r} takes images by its own fit only, {card.image_spec.fit!r}, not {fit!r}",
            "Leave out --fit and STAIR_ES_FIT. Checkpoints in the formats of others, as VDR or CLIP, take any.",
        )


class EncoderKind(Protocol):
    """What an entry point of the group `stair_es.encoders` names: a model that can be resolved without being loaded."""

    card: ModelCard

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """Whether `load` would put the image tower on a GPU of this machine."""

    def load(self, spec: ModelSpec) -> Encoder:
        """The encoder; its networks may be read when a tower is first used.

        Raises:
            ModelError: The backend or the text tower is unknown, or the model's files are broken.
            MissingExtra: A library that it needs isn't installed.
        """


@runtime_checkable
class DenseEncoder(Protocol):
    """Dense vectors that an encoder may offer in addition to its tokens: unit vectors of images and texts in one space."""

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images, [B, D], each of length 1."""

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts, [B, D], each of length 1."""


@runtime_checkable
class JointEncoder(DenseEncoder, Protocol):
    """A dense encoder that also has token weights, and returns both from one run of the networks that they share."""

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return what `encode_images` and `encode_images_dense` return."""

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return what `encode_texts` and `encode_texts_dense` return."""
