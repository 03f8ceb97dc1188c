"""The encoder that a command asks with, and the text that it was given.

The model is the one that the user named (`--model`, its environment variable, the configuration file), else the one that the
index names: see `stair_es.search.index_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.config import DEFAULT_MODEL
from stair_es.errors import StairError, UsageError

from . import options
from .output import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.cluster.connect import Connection
    from stair_es.model.encoder import Backend, Encoder, TextTower
    from stair_es.search.known import Known
    from stair_es.sources.item import Reading
    from stair_es.types import Fit

_PATIENCE_S = 3.0
"""How long a command that needs no cluster waits for one."""


def load_encoder(model: str, fit: Fit | None, backend: Backend, text_tower: TextTower) -> Encoder:
    """The encoder that the options describe.

    Raises:
        ModelError: Unknown or broken model, or one that takes no other fit.
    """
    from stair_es.model import catalogue
    from stair_es.model.encoder import ModelSpec

    return catalogue.load(ModelSpec(name=model, fit=fit, backend=backend, text_tower=text_tower))


def encoder_for(
    model: str | None,
    fit: Fit | None,
    connection: Connection,
    index: str,
    backend: Backend,
    text_tower: TextTower | None = None,
) -> Encoder:
    """The encoder to ask an index with.

    Raises:
        StairError: The index can't be looked at, or its model isn't here.
    """
    if model is not None:
        return load_encoder(model, fit, backend, text_tower or "full")
    from stair_es.search.index_model import load_model_of

    return load_model_of(connection, index, fit=fit, backend=backend, text_tower=text_tower)


def encoder_without_cluster(
    model: str | None, fit: Fit | None, url: str | None, index: str, backend: Backend, text_tower: TextTower
) -> Encoder:
    """The same for a command that goes on without a cluster: with the default model then.

    Raises:
        ModelError: The index names a model that isn't here, or the model is broken.
        QueryError: The model has changed since, or `fit` is another than the index's.
    """
    if model is not None:
        return load_encoder(model, fit, backend, text_tower)
    known = _seen(url, index)
    if known is None:
        return load_encoder(DEFAULT_MODEL, fit, backend, text_tower)
    from stair_es.search.index_model import load_model

    encoder = load_model(known, index, fit=fit, backend=backend, text_tower=text_tower)
    known.check_model(encoder.model_id)
    return encoder


def _seen(url: str | None, index: str) -> Known | None:
    from contextlib import closing
    from dataclasses import replace

    from stair_es.search.known import look

    try:
        connection = options.running_connection(url)
        if connection is None:
            return None
        connection = replace(connection, timeout_s=_PATIENCE_S)
        with closing(connection.client()) as client:
            return look(client, connection, index)
    except StairError as error:
        note(f"the words are those of {DEFAULT_MODEL}, since the index can't be asked for its model: {error.message}")
        return None


def check_images(name: str, given: Sequence[str]) -> list[str]:
    """Return the images, if each is a file that is there, or a URL.

    Raises:
        UsageError: One is neither, or is a URL with a password.
    """
    from pathlib import Path

    from stair_es.search.inputs import is_url
    from stair_es.sources.web.text import with_login

    for image in map(readable, given):
        why = with_login(image) if is_url(image) else None
        if why is not None:
            raise UsageError(f"{name}: {why}")
        if not is_url(image) and not Path(image).is_file():
            raise UsageError(f"{name} {image!r}: there is no such file", "Name an image file, or the http(s) URL of an image.")
    return list(given)


def reading_of(*, allow_private: bool) -> Reading:
    """Return what reading one image may cost, and which addresses its URL may lead to."""
    from stair_es.sources.item import Reading
    from stair_es.sources.web.policy import UrlPolicy

    return Reading(urls=UrlPolicy(allow_private=allow_private))


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
