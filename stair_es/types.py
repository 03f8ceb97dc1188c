"""Values that every layer shares.

Suffixes of array names give the shape: B batch, H height, W width, C channel, V vocabulary, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pixels: TypeAlias = "NDArray[np.uint8]"
"""RGB, 0..255: `pixels_HWC` for one image, `pixels_BHWC` for a batch."""

Floats: TypeAlias = "NDArray[np.float32]"

ResizeMode: TypeAlias = Literal["pad", "squash", "crop", "stretch"]

Fit: TypeAlias = Literal["pad", "crop", "stretch"]
"""Choices of `--fit`; `squash` can only be a model's default."""
RESIZE_MODE_CHOICES: tuple[ResizeMode, ...] = get_args(Fit)

Resample: TypeAlias = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

Backend: TypeAlias = Literal["auto", "onnx", "torch"]
"""Inference runtime; `auto` uses torch if CUDA is available, otherwise onnxruntime."""

Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]
"""Precision of inference; `auto` uses bf16 on a GPU that supports it, otherwise fp32."""

TrainingPrecision: TypeAlias = Literal["fp32", "bf16", "fp16"]

TextTower: TypeAlias = Literal["full", "table"]
"""How texts are encoded: by the text network, or by looking up their tokens in a static table."""

Runner: TypeAlias = Literal["auto", "local", "ray"]
"""Where an ingest runs; `auto` decides."""

TextFormat: TypeAlias = Literal["txt", "jsonl", "csv"]
"""Format of a file of texts."""

DocumentIdKind: TypeAlias = Literal["uri", "content-hash"]
"""What identifies a document: the URI of the image, or the hash of its content."""

TokensType: TypeAlias = Literal["rank_features", "sparse_vector"]
"""Type of the field `tokens`."""

QueryType: TypeAlias = Literal["rank_features", "neural_sparse", "sparse_vector", "impacts"]
"""Query types, by the field and the query that they use. See docs/queries.md."""

StatsOrder: TypeAlias = Literal["df", "mean", "max", "share", "uniformity"]
"""What statistics of tokens are sorted by."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ProgressCallback: TypeAlias = Callable[[int, int], None]
"""Called with the done part and the total."""

PartProgressCallback: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a part of the work, its done part and its total."""


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded: an unpaired surrogate can't, and stands for bytes that aren't UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The image format that an encoder expects."""

    size_px: int
    """Side of the square."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Color behind transparent pixels, and of the padding."""
    fit: ResizeMode = "pad"
    """How an image is made square: `pad` shows the whole image and pads the rest, `squash` distorts it slightly before it is
    padded, `crop` shows the middle, `stretch` distorts it.
    """
    resized_px: int | None = None
    """Side that `crop` and `stretch` resize to before the middle is cut out; None for `size_px`."""
    resample: Resample = "bicubic"
    """Resampling filter."""


@dataclass(frozen=True)
class SparseVector:
    """Tokens with strictly positive, finite weights, heaviest first (ties by name). Immutable.

    Build it with `from_mapping` or `from_pairs`, which sort and check.
    """

    tokens: tuple[str, ...]
    weights: tuple[float, ...]

    @classmethod
    def from_mapping(cls, weights: Mapping[str, float]) -> SparseVector:
        """Build a vector from a `{token: weight}` mapping.

        Raises:
            ValueError: If a weight is not finite or not above zero.
        """
        return cls.from_pairs(weights.items())

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, float]]) -> SparseVector:
        """Build a vector from `(token, weight)` pairs.

        Raises:
            ValueError: If a weight is not finite or not above zero, or a token is duplicated.
        """
        ordered = sorted(((token, float(weight)) for token, weight in pairs), key=lambda pair: (-pair[1], pair[0]))
        for token, weight in ordered:
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(f"weight of {token!r} must be finite and above 0, got {weight}")
        tokens = tuple(token for token, _ in ordered)
        if len(set(tokens)) != len(tokens):
            raise ValueError("a token is duplicated")
        return cls(tokens, tuple(weight for _, weight in ordered))

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.tokens, self.weights, strict=True))

    def top(self, k: int) -> SparseVector:
        """Return the `k` heaviest tokens as a vector."""
        return SparseVector(self.tokens[:k], self.weights[:k])

    def dot(self, other: SparseVector) -> float:
        """Return the exact dot product (`math.fsum` over the common tokens)."""
        other_weights = other.to_dict()
        return math.fsum(weight * other_weights[token] for token, weight in self if token in other_weights)

    def to_dict(self) -> dict[str, float]:
        """Return `{token: weight}`, heaviest first."""
        return dict(self)
