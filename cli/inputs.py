"""The encoder that a command asks with, and the text that it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.errors import UsageError

if TYPE_CHECKING:
    from stair_es.model.encoder import Backend, Encoder, TextTower
    from stair_es.types import Fit


def load_encoder(model: str, fit: Fit | None, backend: Backend, text_tower: TextTower) -> Encoder:
    """The encoder that the options describe.

    Raises:
        ModelError: Unknown or broken model, or one that takes no other fit.
    """
    from stair_es.model import catalogue
    from stair_es.model.encoder import ModelSpec

    return catalogue.load(ModelSpec(name=model, fit=fit, backend=backend, text_tower=text_tower))


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
