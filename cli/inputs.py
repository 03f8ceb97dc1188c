"""The encoder of a query, and checks of the given images and texts.

The model is the one that the user named (`--model`, its environment variable, the configuration file), otherwise the one that the
index names: see `stair_es.search.index_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.config import DEFAULT_MODEL
from stair_es.errors import StairError, UsageError

from . import connections
from .output import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.cluster.connect import Connection
    from stair_es.model.encoder import Backend, Encoder, TextTower
    from stair_es.search.known import Known
    from stair_es.sources.item import Reading
    from stair_es.types import Fit

_PATIENCE_S = 3.0
"""Timeout of commands that work without a cluster."""


def load_encoder(model: str, fit: Fit | None, backend: Backend, text_tower: TextTower) -> Encoder:
    """Load the encoder that the options describe.

    Args:
        model: Name, folder or hub id.
        fit: How images are resized; None for the default of the model.
        backend: Runtime of the network.
        text_tower: Full text network or static table.

    Returns:
        The encoder.

    Raises:
        ModelError: If the model is unknown, broken, or doesn't support this fit.
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
    """Load the encoder for queries to an index.

    Args:
        model: Model that the user named, or None for the one of the index.
        fit: As for `load_named_encoder`.
        connection: Connection to the cluster.
        index: Alias of the index.
        backend: As for `load_named_encoder`.
        text_tower: As for `load_named_encoder`; None for the one of the index.

    Returns:
        The encoder.

    Raises:
        StairError: If the index can't be read, or its model is not installed.
    """
    if model is not None:
        return load_encoder(model, fit, backend, text_tower or "full")
    from stair_es.search.index_model import load_model_of

    return load_model_of(connection, index, fit=fit, backend=backend, text_tower=text_tower)


def encoder_without_cluster(
    model: str | None, fit: Fit | None, url: str | None, index: str, backend: Backend, text_tower: TextTower
) -> Encoder:
    """Load the encoder for queries to an index; if no cluster answers, the default model.

    Args:
        model: Model that the user named, or None for the one of the index.
        fit: As for `load_named_encoder`.
        url: URL of the cluster, if given.
        index: Alias of the index.
        backend: As for `load_named_encoder`.
        text_tower: As for `load_named_encoder`.

    Returns:
        The encoder.

    Raises:
        ModelError: If the model of the index is not installed or broken.
        QueryError: If the model has changed since the ingest, or `fit` differs from that of the index.
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
        connection = connections.running_connection(url)
        if connection is None:
            return None
        connection = replace(connection, timeout_s=_PATIENCE_S)
        with closing(connection.client()) as client:
            return look(client, connection, index)
    except StairError as error:
        note(f"using {DEFAULT_MODEL}, since the model of the index can't be read: {error.message}")
        return None


def check_images(name: str, given: Sequence[str]) -> list[str]:
    """Return the images if each is an existing file or a URL.

    Args:
        name: Name of the option, for the error.
        given: Paths and URLs.

    Returns:
        The images, unchanged.

    Raises:
        UsageError: If one is neither, or is a URL with a password.
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
    """Return the limits for reading an image, and whether its URL may lead to private addresses."""
    from stair_es.sources.item import Reading
    from stair_es.sources.web.policy import UrlPolicy

    return Reading(urls=UrlPolicy(allow_private=allow_private))


def readable(text: str) -> str:
    """Return the text if its bytes are valid in the encoding of the terminal.

    Raises:
        UsageError: If they are not.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"not text in this terminal's encoding: {text!r}", "Write it in UTF-8, with a UTF-8 locale.") from None
    return text
