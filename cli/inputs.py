"""What the commands that take words or an image have in common: the check of their arguments, the encoder, the vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stair_es.model.encoder import Backend, Encoder, TextTower
    from stair_es.types import SparseVector


def one_of(words: Sequence[str], image: Path | None, example: str) -> str:
    """The text of `words`; empty if there is an image in their place.

    Raises:
        UsageError: Neither is there, or both.
    """
    text = readable(" ".join(words).strip())
    if text and image is not None:
        raise UsageError("words and --image exclude each other", f"Give one of them: {example}")
    if not text and image is None:
        raise UsageError("neither words nor --image given", f"Give one of them: {example}")
    return text


def readable(text: str) -> str:
    """The text, if its bytes were text in the terminal's encoding.

    Raises:
        UsageError: They weren't.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"not text in this terminal's encoding: {text!r}", "Write it in UTF-8, with a UTF-8 locale.") from None
    return text


def load_encoder(model: str, backend: Backend, text_tower: TextTower) -> Encoder:
    """The encoder that the options describe.

    Raises:
        ModelError: Unknown or broken model.
    """
    from stair_es.model import catalogue
    from stair_es.model.encoder import ModelSpec

    return catalogue.load(ModelSpec(name=model, backend=backend, text_tower=text_tower))


def query_vector(encoder: Encoder, text: str, image: Path | None) -> SparseVector:
    """The vector of the image, or of the text where there is no image.

    Raises:
        QueryError: The model knows none of the words, or sees nothing that it knows.
        DecodeError: The image can't be read.
    """
    from stair_es.errors import QueryError
    from stair_es.search.inputs import image_vector, text_vector

    if image is None:
        return text_vector(encoder, text)
    vector = image_vector(encoder, image)
    if not len(vector):
        raise QueryError(f"the model {encoder.model_id} has no word for what is on {str(image)!r}", "Try another image.")
    return vector
