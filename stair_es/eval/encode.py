"""Encode images and texts with a model. Unreadable images are recorded as problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from stair_es._itertools import batched
from stair_es.errors import DatasetError, DecodeError, ReadError
from stair_es.eval.datasets.captions import CaptionDataset
from stair_es.eval.models import EvaluatedModel
from stair_es.sources.base import Locator, ReadLimits
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, ImageSpec, PartProgressCallback, Pixels, SparseVector

_BATCH_SIZE = 16
_Batch = TypeVar("_Batch")


@dataclass(frozen=True, kw_only=True)
class EncodedVectors:
    """Vectors of images or of texts: token weights, dense vectors, or both, as far as requested and available."""

    sparse: tuple[SparseVector, ...] | None = None
    dense: Floats | None = None
    """[items, D]."""


@dataclass(frozen=True, kw_only=True)
class ReadableImages:
    """Vectors of the readable images."""

    vectors: EncodedVectors
    kept: tuple[int, ...]
    """Their positions among all images."""
    problems: dict[int, str]
    """Position -> reason why an image is unreadable."""


@dataclass(frozen=True, kw_only=True)
class EncodedDataset:
    """A caption dataset with the vectors of images and texts."""

    captions: CaptionDataset
    """Captions without unreadable images."""
    texts: tuple[str, ...]
    """Distinct captions, in the order of their first image."""
    image_vectors: EncodedVectors
    text_vectors: EncodedVectors
    """Vectors of the texts."""


def encode_dataset(captions: CaptionDataset, model: EvaluatedModel, progress: PartProgressCallback) -> EncodedDataset:
    """Encode a caption dataset.

    Raises:
        UsageError: If no image is readable.
    """
    readable = encode_images([image.locator for image in captions.images], model, progress)
    unreadable = {captions.images[position].name: reason for position, reason in readable.problems.items()}
    kept = captions.exclude_images(unreadable, [f"{name}: {reason}" for name, reason in unreadable.items()])
    texts = tuple(dict.fromkeys(text for image in kept.images for text in image.captions))
    return EncodedDataset(
        captions=kept, texts=texts, image_vectors=readable.vectors, text_vectors=encode_texts(texts, model, progress)
    )


def encode_images(
    locators: Sequence[Locator], model: EvaluatedModel, progress: PartProgressCallback, *, dense: bool = True
) -> ReadableImages:
    """Encode the readable images.

    Raises:
        UsageError: If no image is readable.
    """
    sparse: list[SparseVector] = []
    rows: list[Floats] = []
    problems: dict[int, str] = {}
    for batch in batched(enumerate(locators), _BATCH_SIZE):
        decoded = [_decode_image(position, locator, model.encoder.image_spec, problems) for position, locator in batch]
        pixels = [image for image in decoded if image is not None]
        if pixels:
            sparse_batch, dense_batch = _encode_batch(
                np.stack(pixels),
                model.encoder.encode_images if model.has_tokens else None,
                model.dense.encode_images_dense if model.dense is not None and dense else None,
                model.dense.encode_images_both if model.dense is not None else None,
            )
            sparse += sparse_batch
            rows += dense_batch
        progress("images", batch[-1][0] + 1, len(locators))
    if len(problems) == len(locators):
        raise DatasetError(
            f"none of {len(locators)} images can be read: {next(iter(problems.values()), 'there are none')}",
            "Specify their folder with --images FOLDER.",
        )
    return ReadableImages(
        vectors=_build_vectors(sparse if model.has_tokens else None, rows),
        kept=tuple(position for position in range(len(locators)) if position not in problems),
        problems=problems,
    )


def encode_texts(
    texts: Sequence[str], model: EvaluatedModel, progress: PartProgressCallback, *, tokens: bool = True, dense: bool = True
) -> EncodedVectors:
    """Encode texts into the requested kinds of vectors that the model has."""
    with_tokens = tokens and model.has_tokens
    sparse: list[SparseVector] = []
    rows: list[Floats] = []
    done = 0
    for batch in batched(texts, _BATCH_SIZE):
        sparse_batch, dense_batch = _encode_batch(
            batch,
            model.encoder.encode_texts if with_tokens else None,
            model.dense.encode_texts_dense if model.dense is not None and dense else None,
            model.dense.encode_texts_both if model.dense is not None else None,
        )
        sparse += sparse_batch
        rows += dense_batch
        done += len(batch)
        progress("texts", done, len(texts))
    return _build_vectors(sparse if with_tokens else None, rows)


def _encode_batch(
    batch: _Batch,
    encode_sparse: Callable[[_Batch], list[SparseVector]] | None,
    encode_dense: Callable[[_Batch], Floats] | None,
    encode_both: Callable[[_Batch], tuple[list[SparseVector], Floats]] | None,
) -> tuple[list[SparseVector], list[Floats]]:
    """Return the vectors of a batch, of each kind for which a method is given; with `encode_both` if both kinds are requested."""
    if encode_sparse and encode_dense and encode_both:
        sparse, dense_BD = encode_both(batch)
        return sparse, [dense_BD]
    return encode_sparse(batch) if encode_sparse else [], [encode_dense(batch)] if encode_dense else []


def _build_vectors(sparse: Sequence[SparseVector] | None, rows: Sequence[Floats]) -> EncodedVectors:
    return EncodedVectors(sparse=None if sparse is None else tuple(sparse), dense=np.concatenate(rows) if rows else None)


def _decode_image(position: int, locator: Locator, spec: ImageSpec, problems: dict[int, str]) -> Pixels | None:
    try:
        result = locator.read(ReadLimits())
        return decode_image(result.data if result else b"", spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        problems[position] = error.message
        return None
