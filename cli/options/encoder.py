"""The encoder of a query, and checks of the given images and texts.

The model is the one that the user named (`--model`, its environment variable, the configuration file), otherwise the one that the
index names: see `stair_es.search.index_encoder`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import StairError, UsageError
from stair_es.types import is_utf8

from ..output.console import print_notice
from . import config_file
from .connections import ConnectionArguments, resolve_running_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stair_es.cluster.client.connection import Connection
    from stair_es.model.base import Encoder
    from stair_es.search.index_info import IndexInfo
    from stair_es.sources.base import ReadLimits
    from stair_es.types import Backend, ResizeMode, TextTower

_CLUSTER_TIMEOUT_S = 3.0
"""Timeout of commands that work without a cluster."""


def load_named_encoder(model: str, fit: ResizeMode | None, backend: Backend, text_tower: TextTower) -> Encoder:
    """Load the encoder that the options describe.

    Args:
        model: Name, folder or hub id.
        fit: How images are resized; None for the default of the model.
        backend: Runtime of the network.
        text_tower: Full text network or static table.

    Raises:
        ModelError: If the model is unknown, broken, or doesn't support this fit.
    """
    from stair_es.model import registry
    from stair_es.model.base import ModelSpec

    settings = config_file.get_config().settings
    return registry.load_encoder(ModelSpec(name=model, fit=fit, backend=backend, text_tower=text_tower, settings=settings))


def resolve_encoder(
    model: str | None,
    fit: ResizeMode | None,
    connection: Connection,
    index: str,
    backend: Backend,
    text_tower: TextTower | None = None,
) -> Encoder:
    """Load the encoder for queries to an index: the named model, otherwise the one of the index.

    Raises:
        StairError: If the index can't be read, or its model is not installed.
    """
    if model is not None:
        return load_named_encoder(model, fit, backend, text_tower or "full")
    from stair_es.search.index_encoder import load_index_encoder

    settings = config_file.get_config().settings
    return load_index_encoder(connection, index, fit=fit, backend=backend, text_tower=text_tower, settings=settings)


def prepare_index_encoder(
    index: str, model: str | None, fit: ResizeMode | None, backend: Backend, text_tower: TextTower | None
) -> Callable[[IndexInfo], Encoder]:
    """Return a function that loads the encoder for queries to an index, given its info."""
    from stair_es.search.index_encoder import load_query_encoder

    return partial(
        load_query_encoder,
        index=index,
        model_name=model,
        fit=fit,
        backend=backend,
        text_tower=text_tower,
        settings=config_file.get_config().settings,
    )


def resolve_encoder_offline(
    model: str | None,
    fit: ResizeMode | None,
    connection: ConnectionArguments,
    index: str,
    backend: Backend,
    text_tower: TextTower,
) -> Encoder:
    """Load the encoder for queries to an index, as `resolve_encoder`; the default model if no cluster answers.

    Raises:
        ModelError: If the model of the index is not installed or broken.
        QueryError: If the model has changed since the ingest, or `fit` differs from that of the index.
    """
    if model is not None:
        return load_named_encoder(model, fit, backend, text_tower)
    info = _read_index_info(connection, index)
    if info is None:
        return load_named_encoder(DEFAULT_MODEL, fit, backend, text_tower)
    from stair_es.search.index_encoder import load_query_encoder

    settings = config_file.get_config().settings
    encoder = load_query_encoder(info, index, fit=fit, backend=backend, text_tower=text_tower, settings=settings)
    info.check_model(encoder.model_id)
    return encoder


def _read_index_info(arguments: ConnectionArguments, index: str) -> IndexInfo | None:
    from dataclasses import replace

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.search.index_info import fetch_index_info

    try:
        connection = resolve_running_connection(arguments)
        if connection is None:
            return None
        connection = replace(connection, timeout_s=_CLUSTER_TIMEOUT_S)
        with Cluster(connection) as cluster:
            return fetch_index_info(cluster, index)
    except StairError as error:
        print_notice(f"using {DEFAULT_MODEL}, since the model of the index can't be read: {error.message}")
        return None


def check_image_arguments(name: str, images: Sequence[str]) -> list[str]:
    """Return the images if each is an existing file or a URL.

    Raises:
        UsageError: If one is neither, or is a URL with a password.
    """
    from pathlib import Path

    from stair_es.search.query_encoder import is_http_url
    from stair_es.sources.http.urls import find_credentials_error

    for image in map(check_text_encoding, images):
        problem = find_credentials_error(image) if is_http_url(image) else None
        if problem is not None:
            raise UsageError(f"{name}: {problem}")
        if not is_http_url(image) and not Path(image).is_file():
            raise UsageError(f"{name} {image!r}: there is no such file", "Specify an image file, or the http(s) URL of an image.")
    return list(images)


def build_read_limits(*, allow_private: bool) -> ReadLimits:
    """Return the limits for reading an image, and whether its URL may lead to private addresses."""
    from stair_es.sources.base import ReadLimits, UrlPolicy

    return ReadLimits(url_policy=UrlPolicy(allow_private=allow_private))


def check_text_encoding(text: str) -> str:
    """Return the text if its bytes are valid in the encoding of the terminal.

    Raises:
        UsageError: If they are not.
    """
    if not is_utf8(text):
        raise UsageError(f"not valid text in the terminal's encoding: {text!r}", "Write it in UTF-8, with a UTF-8 locale.")
    return text
