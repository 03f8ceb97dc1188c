"""Encode images as callers have them, and texts: read in parallel, encoded in batches, with errors as values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image as PilImage

from stair_es._itertools import batched
from stair_es.errors import DecodeError, ModelError, StairError, UsageError
from stair_es.sources.image.read import ImageLike, read_image
from stair_es.types import ImageSpec, Pixels, SparseVector, is_utf8

if TYPE_CHECKING:
    from stair_es.sources.base import ReadLimits

_BATCH_IMAGES = 32
"""Images that are in memory at once."""
_BATCH_TEXTS = 256
_READERS = 8
_CODE = "invalid-encoder-input"


def encode_read_images(
    encode: Callable[[Pixels], list[SparseVector]],
    spec: ImageSpec,
    images: Sequence[ImageLike],
    read_limits: ReadLimits | None = None,
) -> Iterator[SparseVector | StairError]:
    """Read images and encode them in batches; yield the vector of each, or why it can't be read. See `Encoder.encode`."""
    if not images:
        return
    read = partial(_read_image, spec=spec, read_limits=read_limits)
    with ThreadPoolExecutor(min(len(images), _READERS, os.cpu_count() or 1)) as readers:
        for batch in batched(images, _BATCH_IMAGES):
            decoded = list(readers.map(read, batch))
            pixels = [each for each in decoded if not isinstance(each, StairError)]
            vectors = iter(encode(np.stack(pixels)) if pixels else ())
            for each in decoded:
                yield each if isinstance(each, StairError) else next(vectors)


def encode_valid_texts(
    encode: Callable[[Sequence[str]], list[SparseVector]], texts: Sequence[str]
) -> Iterator[SparseVector | StairError]:
    """Encode texts in batches; yield the vector of each, or that it isn't Unicode. See `Encoder.encode`."""
    for batch in batched(texts, _BATCH_TEXTS):
        known = [text for text in batch if is_utf8(text)]
        vectors = iter(encode(known) if known else ())
        for text in batch:
            yield next(vectors) if is_utf8(text) else ModelError("the text isn't valid Unicode", code="text-not-unicode")


def _read_image(image: ImageLike, spec: ImageSpec, read_limits: ReadLimits | None) -> Pixels | DecodeError:
    try:
        return read_image(image, spec, read_limits)
    except DecodeError as error:
        return error


def check_encoder_inputs(images: object, texts: object) -> None:
    """Raise UsageError if one of them is not a sequence of what can be encoded."""
    _check_values(images, "images", (str, Path, bytes, PilImage), "Pass a list of paths, URLs, bytes or images of Pillow.")
    _check_values(texts, "texts", (str,), "Pass a list of strings.")


def _check_values(values: object, name: str, kinds: tuple[type, ...], remedy: str) -> None:
    """Raise UsageError for a single value, which would be a sequence of characters, and for values of other types."""
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    for value in values if is_sequence else [values]:  # type: ignore[attr-defined]  # checked
        if not is_sequence or not isinstance(value, kinds):
            raise UsageError(f"{name!r} can't {'contain' if is_sequence else 'be'} a {type(value).__name__}", remedy, code=_CODE)
