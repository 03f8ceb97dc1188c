"""Contracts of models: an encoder (pixels or texts in, vectors out), the plugin that opens it, and what is known of it before."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal, get_args, overload

from stair_es.config.settings import Settings
from stair_es.errors import ModelError, StairError
from stair_es.model.vocabularies.stop_words import is_content_token, list_content_words, load_stop_words
from stair_es.model.vocabularies.token_table import TokenTable
from stair_es.types import Backend, Floats, ImageSpec, Pixels, Precision, ResizeMode, SparseVector, TextTower

if TYPE_CHECKING:
    from stair_es.sources.base import ReadLimits
    from stair_es.sources.image.read import ImageLike


@dataclass(frozen=True, kw_only=True)
class MatchThresholds:
    """Thresholds of weak matches, for a model whose image vectors have length 1. An image that reaches none is a weak match."""

    weak_cosine: float
    """Minimum cosine of query and image for a match."""
    weak_image_cosine: float
    """The same, if images are part of the query."""
    named_weight: float
    """Minimum weight of a token to count: an image that has each word of the query with it is a match, too."""
    carried_weight: float = 0.15
    """Weight that an image of the index must have of the rarest word of a query, or no picture tells it."""


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
    photo_tokens: int | None = None
    """Number of tokens that photographs can carry; None if it isn't known."""
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
    has_tokens: bool = True
    """Whether it has token weights; False for a model with dense vectors only, which can be compared with, but not indexed."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Options for loading an encoder. Small and picklable, so that workers can load the model themselves."""

    name: str
    """Model name as in `--model`."""
    backend: Backend = "auto"
    """Network runtime. `auto`: torch if CUDA is available, else onnxruntime."""
    text_tower: TextTower = "full"
    """`full` runs the text network, `table` looks words up in a static table (lighter, slightly worse)."""
    device: str = ""
    """Device of the torch backend: `cpu`, or `cuda:1` for the second GPU. Empty: the first GPU if there is one, else the CPU."""
    precision: Precision = "auto"
    """Precision of the torch backend. `auto`: bf16 on GPUs that support it, else fp32. bf16 and fp16 are for GPUs: faster,
    slightly less exact.
    """
    threads: int = 0
    """CPU threads of one `encode_images` call; 0 for one per core."""
    fit: ResizeMode | None = None
    """How an image becomes a square (see `ImageSpec.fit`), instead of the model's default; part of the model id."""
    settings: Settings | None = None
    """Data folder, and the models whose code may run; None for those of the environment of the process that loads the model."""


@dataclass(frozen=True, kw_only=True)
class ReadText:
    """How a model reads a text before it encodes it."""

    text: str
    """The text without what says nothing about an image (`a photo of`), and with known words instead of some unknown ones."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Unknown word, in lower case -> what is searched instead: its translation or a similar spelling."""
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Token that no photograph can carry -> tokens near to it that photographs can carry, nearest first; none if all are far."""
    taught: Mapping[str, str] = field(default_factory=dict)
    """Word or phrase that was taught, as it is written there -> a note for the user on where it comes from."""


class Encoder(ABC):
    """A loaded model. Subclasses set `card`; the `encode_` methods may be called from several threads."""

    card: ModelCard

    @property
    def model_id(self) -> str:
        """Return name and revision, stored in each document and its fingerprint. Same id, same image vectors."""
        return self.card.model_id

    @property
    def image_spec(self) -> ImageSpec:
        """Return the pixel format that `encode_images` requires."""
        return self.card.image_spec

    @property
    def match_thresholds(self) -> MatchThresholds | None:
        """Return the thresholds of weak matches; None if they weren't measured: then no hit is called weak."""
        return self.card.match_thresholds

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens that vectors can contain, each once; empty if the model doesn't list them."""
        return ()

    @property
    def photo_tokens(self) -> tuple[str, ...] | None:
        """Return the tokens that photographs can carry; None if that isn't known, or all can."""
        return None

    @abstractmethod
    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return one vector per image; an image encoded alone gets the same vector as in a batch.

        Raises:
            ModelError: If the pixels don't match `image_spec`, the model has no token weights, or a file is broken.
            DeviceOutOfMemory: If the GPU has too little free memory for a single image.
            DeviceLost: If the GPU failed: this process can't use it any more.
            MissingExtra: If a required library isn't installed.
        """

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one vector per text; empty (`len(vector) == 0`) for a text without a known token.

        Raises:
            ModelError: If the model has no token weights, or a file is broken or can't be downloaded.
            MissingExtra: If a required library isn't installed.
        """

    @overload
    def encode(
        self,
        images: Sequence[ImageLike] = (),
        texts: Sequence[str] = (),
        *,
        raise_errors: Literal[True],
        read_limits: ReadLimits | None = None,
    ) -> list[SparseVector]: ...

    @overload
    def encode(
        self,
        images: Sequence[ImageLike] = (),
        texts: Sequence[str] = (),
        *,
        raise_errors: bool = False,
        read_limits: ReadLimits | None = None,
    ) -> list[SparseVector | StairError]: ...

    def encode(
        self,
        images: Sequence[ImageLike] = (),
        texts: Sequence[str] = (),
        *,
        raise_errors: bool = False,
        read_limits: ReadLimits | None = None,
    ) -> list[SparseVector] | list[SparseVector | StairError]:
        """Encode images, then texts: one vector each, in order, or the error in the place of one that can't be read.

        Images are read, decoded and encoded as `ingest` does it, several at once and in batches. The vector of a text without a
        known token is empty.

        Args:
            images: Paths, http(s) URLs, bytes of files, or images of Pillow. A string that isn't a URL is a path of this
                machine: pass untrusted input as bytes.
            texts: Texts.
            raise_errors: Raise the first error instead of returning it.
            read_limits: Limits for images, and the addresses that their URLs may lead to.

        Raises:
            UsageError: If an argument is not a sequence of such values.
            ModelError: As for `encode_images` and `encode_texts`.
            MissingExtra: As for both, or if an image is at a URL and the HTTP library is not installed.
        """
        from stair_es.model.encoding import check_encoder_inputs, encode_read_images, encode_valid_texts

        check_encoder_inputs(images, texts)
        results: list[SparseVector | StairError] = []
        found = encode_read_images(self.encode_images, self.image_spec, images, read_limits)
        for result in chain(found, encode_valid_texts(self.encode_texts, texts)):
            if raise_errors and isinstance(result, StairError):
                raise result
            results.append(result)
        return results

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word as users write it: the word itself, or its pieces; empty if no vector can contain it."""
        return (word,) if not self.tokens or word in self.tokens else ()

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that the model doesn't know, in lower case, each once; no stop words and numbers.

        By default the words that `tokenize_word` has no token for.
        """
        stop_words = load_stop_words()
        return tuple(
            word
            for word in list_content_words(text)
            if not any(is_content_token(token, stop_words) for token in self.tokenize_word(word))
        )

    def read_text(self, text: str) -> ReadText:
        """Return how `encode_texts` reads a text; by default as it is."""
        return ReadText(text=text)

    def list_text_words(self, text: str, *, is_read: bool = False) -> dict[str, tuple[str, ...]]:
        """Return the words of a text without stop words, each with its tokens, perhaps none.

        The text is read by `read_text`, unless it was (`is_read`).
        """
        return {word: self.tokenize_word(word) for word in list_content_words(text if is_read else self.read_text(text).text)}

    @property
    def has_dense(self) -> bool:
        """Return whether the model has dense vectors: unit vectors of images and texts in one space."""
        return False

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images, [B, D], each of length 1, if the model `has_dense` vectors."""
        raise NotImplementedError

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts, [B, D], each of length 1, if the model `has_dense` vectors."""
        raise NotImplementedError

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors of images. Overridden if they come from one run of a network."""
        return self.encode_images(pixels_BHWC), self.encode_images_dense(pixels_BHWC)

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors of texts. Overridden if they come from one run of a network."""
        return self.encode_texts(texts), self.encode_texts_dense(texts)


class EncoderOverDense(Encoder):
    """An encoder that turns the vectors of a dense model, `_dense`, into token weights: one run gives both kinds."""

    has_dense = True
    _dense: Encoder

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return the sparse vector of each image."""
        return self.encode_images_both(pixels_BHWC)[0]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vector of each text; empty for a text without a known token."""
        return self.encode_texts_both(texts)[0]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the vectors of the dense model."""
        return self._dense.encode_images_dense(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of the dense model."""
        return self._dense.encode_texts_dense(texts)

    @abstractmethod
    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the dense model."""

    @abstractmethod
    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the dense model."""


class EncoderPlugin(ABC):
    """A model of the entry point group `stair_es.encoders`, or in a checkpoint. Its card is known without loading it."""

    card: ModelCard

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether `load` would put the image tower on a GPU of this machine."""
        return False

    @abstractmethod
    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder. Its networks may be loaded lazily, when a tower is first used.

        Raises:
            ModelError: If the model doesn't support an option of the spec, or its files are broken.
            MissingExtra: If a required library isn't installed.
        """

    def build_text_table(self) -> TokenTable | None:
        """Build the table that the model looks words up in without its text network; None if it has none.

        Raises:
            ModelError: If the model's files are broken.
        """
        return None


def check_model_spec(spec: ModelSpec) -> None:
    """Check that the values of a spec exist. Whether a model supports them is checked by the model."""
    named = {"text tower": TextTower, "backend": Backend, "precision": Precision}
    for (what, choices), value in zip(named.items(), (spec.text_tower, spec.backend, spec.precision), strict=True):
        if value not in get_args(choices):
            raise ModelError(
                f"unknown {what} {value!r}", f"Choose one of: {', '.join(get_args(choices))}.", code="unknown-choice"
            )
    if not re.fullmatch(r"|cpu|cuda(:\d+)?", spec.device):
        raise ModelError(f"unknown device {spec.device!r}", "Choose cpu, cuda, or a GPU such as cuda:1.", code="unknown-device")
    if spec.threads < 0:
        raise ModelError(f"threads must be 0 or more, got {spec.threads}", "0 means one per core.", code="invalid-threads")


def choose_image_spec(default: ImageSpec, fit: ResizeMode | None) -> ImageSpec:
    """Return the image spec of a model with the requested fit; None for the model's own."""
    if fit is None or fit == default.fit:
        return default
    if fit not in get_args(ResizeMode):
        raise ModelError(f"unknown fit {fit!r}", f"Choose one of: {', '.join(get_args(ResizeMode))}.", code="unknown-fit")
    return replace(default, fit=fit, resized_px=None if fit == "pad" else default.resized_px)


def check_fit_unchanged(card: ModelCard, fit: ResizeMode | None) -> None:
    """Raise ModelError if another fit than the model's own is requested, for a model that supports no other."""
    if choose_image_spec(card.image_spec, fit) != card.image_spec:
        raise ModelError(
            f"the model {card.name!r} supports only its own fit, {card.image_spec.fit!r}, not {fit!r}",
            "Leave out --fit and STAIR_ES_FIT. Checkpoints in third-party formats, such as VDR or CLIP, support any.",
            code="fit-not-supported",
        )


def check_encoder_pixels(pixels_BHWC: Pixels, card: ModelCard) -> None:
    """Raise ModelError if pixels don't have the type and shape of the card's image spec."""
    side = card.image_spec.size_px
    if str(pixels_BHWC.dtype) != "uint8" or pixels_BHWC.ndim != 4 or pixels_BHWC.shape[1:] != (side, side, 3):
        raise ModelError(
            f"{card.name} requires uint8 pixels (B, {side}, {side}, 3), got {pixels_BHWC.dtype} {pixels_BHWC.shape}",
            "Use stair_es.sources.image.decode with the image_spec of the encoder.",
            code="invalid-pixels",
        )
