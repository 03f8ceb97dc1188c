"""A caption set -> vectors of its images and of its texts. An image that can't be read is a problem, not the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stair_es.errors import DecodeError, ReadError, UsageError
from stair_es.ingest.parts import in_parts
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.item import Reading

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.eval.dense import DenseEncoder
    from stair_es.model.encoder import Encoder
    from stair_es.sources.item import Place
    from stair_es.types import Floats, ImageSpec, Pixels, SparseVector

_AT_ONCE = 16

Progress = Callable[[str, int, int], None]
"""What is done (`images`, `texts`), how many of them, of how many."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The set, with the vectors of both sides."""

    captions: CaptionSet
    """Without the images that couldn't be read."""
    texts: tuple[str, ...]
    """The different captions, in the order of their first image."""
    image_vectors: tuple[SparseVector, ...]
    text_vectors: tuple[SparseVector, ...]
    image_dense: Floats | None = None
    """[images, D]."""
    text_dense: Floats | None = None
    """[texts, D]."""


def encode_set(captions: CaptionSet, encoder: Encoder, dense: DenseEncoder | None, progress: Progress) -> Encoded:
    """The vectors of everything in `captions`.

    Args:
        captions: The set.
        encoder: For the words.
        dense: For dense vectors, if there is one.
        progress: Is told how far it is.

    Raises:
        UsageError: Not one image could be read.
    """
    vectors: list[SparseVector] = []
    rows: list[Floats] = []
    problems: dict[str, str] = {}
    done = 0
    for part in in_parts(captions.images, _AT_ONCE):
        pixels = [read for image in part if (read := _pixels(image.name, image.place, encoder.image_spec, problems)) is not None]
        if pixels:
            vectors += encoder.encode_images(np.stack(pixels))
            if dense is not None:
                rows.append(dense.encode_images_dense(np.stack(pixels)))
        done += len(part)
        progress("images", done, len(captions.images))
    kept = captions.without(problems, [f"{name}: {reason}" for name, reason in problems.items()])
    if not kept.images:
        raise UsageError(f"no image of {captions.name} can be read: {kept.problems[-1]}", "Name their folder with --images DIR.")
    texts = tuple(dict.fromkeys(text for image in kept.images for text in image.captions))
    text_vectors, text_rows = _encode_texts(texts, encoder, dense, progress)
    return Encoded(
        captions=kept,
        texts=texts,
        image_vectors=tuple(vectors),
        text_vectors=tuple(text_vectors),
        image_dense=np.concatenate(rows) if rows else None,
        text_dense=np.concatenate(text_rows) if text_rows else None,
    )


def _encode_texts(
    texts: Sequence[str], encoder: Encoder, dense: DenseEncoder | None, progress: Progress
) -> tuple[list[SparseVector], list[Floats]]:
    vectors: list[SparseVector] = []
    rows: list[Floats] = []
    for part in in_parts(texts, _AT_ONCE):
        vectors += encoder.encode_texts(part)
        if dense is not None:
            rows.append(dense.encode_texts_dense(part))
        progress("texts", len(vectors), len(texts))
    return vectors, rows


def _pixels(name: str, place: Place, spec: ImageSpec, problems: dict[str, str]) -> Pixels | None:
    try:
        read = place.read(Reading())
        return decode(read.data if read else b"", spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        problems[name] = error.message
        return None
