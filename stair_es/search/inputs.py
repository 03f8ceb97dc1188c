"""What a person gives -> a sparse vector: words, or the file of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.errors import DecodeError, QueryError, ReadError
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.item import Reading
from stair_es.sources.paths import uri_of
from stair_es.sources.places import FileAt

if TYPE_CHECKING:
    from pathlib import Path

    from stair_es.model.encoder import Encoder
    from stair_es.types import SparseVector


def text_vector(encoder: Encoder, text: str) -> SparseVector:
    """The vector of a text.

    Raises:
        QueryError: The model gives no weight to any of its words.
    """
    vector = encoder.encode_texts([text])[0]
    if not len(vector):
        raise QueryError(
            f"none of the words of {text!r} is known to the model {encoder.model_id}",
            'Name what can be seen in the picture, in English: "red car", "dog on a beach".',
        )
    return vector


def image_vector(encoder: Encoder, path: Path, reading: Reading | None = None) -> SparseVector:
    """The vector of an image file; empty if the model sees nothing that it knows.

    Raises:
        DecodeError: The file can't be read, is too large or is not an image; the message names it.
    """
    try:
        read = FileAt(uri_of(path)).read(reading or Reading())
        pixels_HWC = decode(read.data if read else b"", encoder.image_spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        raise DecodeError(f"{str(path)!r}: {error.message}") from error
    return encoder.encode_images(pixels_HWC[None])[0]
