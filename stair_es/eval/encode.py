"""Encode images and texts with a model. Unreadable images are recorded as problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stair_es._itertools import batched
from stair_es.errors import DecodeError, ReadError, UsageError
from stair_es.model.base import JointEncoder
from stair_es.sources.base import ReadLimits
from stair_es.sources.image.decode import DecodeLimits, decode_image

if TYPE_CHECKING:
    from stair_es.eval.datasets.captions import CaptionDataset
    from stair_es.eval.models import EvaluatedModel
    from stair_es.sources.base import Locator
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
    """Without unreadable images."""
    texts: tuple[str, ...]
    """Distinct captions, in the order of their first image."""
    image_vectors: EncodedVectors
    text_vectors: EncodedVectors
    """Vectors of the texts."""


def encode_dataset(captions: CaptionDataset, model: EvaluatedModel, progress: PartProgressCallback) -> EncodedDataset:
    """Encode a caption dataset.

    Args:
        captions: The dataset.
        model: The model.
        progress: Progress callback.

    Raises:
        UsageError: If no image is readable.
    """
    pictures = encode_images([image.locator for image in captions.images], model, progress)
    wrong = {captions.images[position].name: reason for position, reason in pictures.problems.items()}
    kept = captions.exclude_images(wrong, [f"{name}: {reason}" for name, reason in wrong.items()])
    texts = tuple(dict.fromkeys(text for image in kept.images for text in image.captions))
    return EncodedDataset(
        captions=kept, texts=texts, image_vectors=pictures.vectors, text_vectors=encode_texts(texts, model, progress)
    )


def encode_images(
    places: Sequence[Locator], model: EvaluatedModel, progress: PartProgressCallback, *, dense: bool = True
) -> ReadableImages:
    """Encode the readable images.

    Args:
        places: Locators of the images.
        model: The model.
        progress: Progress callback.
        dense: Whether to compute dense vectors, too.

    Raises:
        UsageError: If no image is readable.
    """
    words: list[SparseVector] = []
    rows: list[Floats] = []
    problems: dict[int, str] = {}
    joint = _get_joint_encoder(model)
    for part in batched(enumerate(places), _BATCH_SIZE):
        read = [_decode_image(position, place, model.encoder.image_spec, problems) for position, place in part]
        pixels = [each for each in read if each is not None]
        if pixels:
            found, found_dense = _encode_batch(
                np.stack(pixels),
                model.encoder.encode_images if model.has_words else None,
                model.dense.encode_images_dense if model.dense is not None and dense else None,
                joint.encode_images_both if joint else None,
            )
            words += found
            rows += found_dense
        progress("images", part[-1][0] + 1, len(places))
    if len(problems) == len(places):
        raise UsageError(
            f"none of {len(places)} images can be read: {next(iter(problems.values()), 'there are none')}",
            "Specify their folder with --images DIR.",
        )
    return ReadableImages(
        vectors=_build_vectors(words if model.has_words else None, rows),
        kept=tuple(position for position in range(len(places)) if position not in problems),
        problems=problems,
    )


def encode_texts(
    texts: Sequence[str], model: EvaluatedModel, progress: PartProgressCallback, *, words: bool = True, dense: bool = True
) -> EncodedVectors:
    """Encode texts into the requested kinds of vectors that the model has.

    Args:
        texts: The texts.
        model: The model.
        progress: Progress callback.
        words: Whether to compute token weights.
        dense: Whether to compute dense vectors.
    """
    wanted = words and model.has_words
    joint = _get_joint_encoder(model)
    vectors: list[SparseVector] = []
    rows: list[Floats] = []
    done = 0
    for part in batched(texts, _BATCH_SIZE):
        found, found_dense = _encode_batch(
            part,
            model.encoder.encode_texts if wanted else None,
            model.dense.encode_texts_dense if model.dense is not None and dense else None,
            joint.encode_texts_both if joint else None,
        )
        vectors += found
        rows += found_dense
        done += len(part)
        progress("texts", done, len(texts))
    return _build_vectors(vectors if wanted else None, rows)


def _encode_batch(
    batch: _Batch,
    tokens: Callable[[_Batch], list[SparseVector]] | None,
    dense: Callable[[_Batch], Floats] | None,
    both: Callable[[_Batch], tuple[list[SparseVector], Floats]] | None,
) -> tuple[list[SparseVector], list[Floats]]:
    """Return the vectors of a batch, of each kind for which a method is given; with `both` if both kinds are requested."""
    if tokens and dense and both:
        found, dense_BD = both(batch)
        return found, [dense_BD]
    return tokens(batch) if tokens else [], [dense(batch)] if dense else []


def _get_joint_encoder(model: EvaluatedModel) -> JointEncoder | None:
    return model.dense if isinstance(model.dense, JointEncoder) else None


def _build_vectors(words: Sequence[SparseVector] | None, rows: Sequence[Floats]) -> EncodedVectors:
    return EncodedVectors(sparse=None if words is None else tuple(words), dense=np.concatenate(rows) if rows else None)


def _decode_image(position: int, place: Locator, spec: ImageSpec, problems: dict[int, str]) -> Pixels | None:
    try:
        read = place.read(ReadLimits())
        return decode_image(read.data if read else b"", spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        problems[position] = error.message
        return None
