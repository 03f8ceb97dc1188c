"""The encoder of a query, and checks of the given images and texts.

The model is the one that the user named (`--model`, its environment variable, the configuration file), otherwise the one that the
index names: see `stair_es.search.index_encoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_MODEL
from stair_es.errors import StairError, UsageError
from stair_es.types import TextTower, is_utf8

from ..output.console import print_notice
from . import config_file, shared
from .connections import ConnectionArguments, resolve_running_connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stair_es.cluster.client.connection import Connection
    from stair_es.model.base import Encoder
    from stair_es.search.index_info import IndexInfo
    from stair_es.sources.base import ReadLimits

_CLUSTER_TIMEOUT_S = 3.0
"""Timeout of commands that work without a cluster."""


@dataclass(frozen=True, kw_only=True)
class EncoderArguments:
    """Options for the encoder of queries."""

    model: shared.IndexModelOption = None
    fit: shared.FitOption = None
    backend: shared.BackendOption = "auto"
    text_tower: Annotated[TextTower | None, typer.Option("--text-tower", help=shared.TEXT_TOWER_HELP)] = "full"

    def load(self) -> Encoder:
        """Load the named model, otherwise the default one."""
        from stair_es.model import registry
        from stair_es.model.base import ModelSpec

        spec = ModelSpec(
            name=self.model or DEFAULT_MODEL,
            fit=self.fit,
            backend=self.backend,
            text_tower=self.text_tower or "full",
            settings=config_file.get_config().settings,
        )
        return registry.load_encoder(spec)

    def load_for_index(self, info: IndexInfo, index: str) -> Encoder:
        """Load the named model, otherwise the one of the index; see `load_query_encoder`."""
        from stair_es.search.index_encoder import load_query_encoder

        return load_query_encoder(
            info,
            index,
            model_name=self.model,
            fit=self.fit,
            backend=self.backend,
            text_tower=self.text_tower,
            settings=config_file.get_config().settings,
        )

    def load_checked(self, info: IndexInfo, index: str) -> Encoder:
        """Load the model as `load_for_index`, and check that its vectors can be compared with those of the index.

        Raises:
            QueryError: If the model has changed since the ingest, or the fit differs from that of the index.
        """
        encoder = self.load_for_index(info, index)
        info.check_model(encoder.model_id)
        return encoder

    def load_online(self, connection: Connection, index: str) -> Encoder:
        """Load the named model, otherwise the one of the index after a request for its metadata."""
        if self.model is not None:
            return self.load()
        from stair_es.cluster.client.cluster import Cluster
        from stair_es.search.index_info import fetch_index_info

        with Cluster(connection) as cluster:
            info = fetch_index_info(cluster, index)
        return self.load_for_index(info, index)

    def load_offline(self, arguments: ConnectionArguments, index: str) -> Encoder:
        """Load the named model, otherwise the one of the index, or the default model if no cluster answers."""
        info = _read_index_info(arguments, index) if self.model is None else None
        return self.load() if info is None else self.load_checked(info, index)


def _read_index_info(arguments: ConnectionArguments, index: str) -> IndexInfo | None:
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
    """Return the images; raise UsageError if one is neither a file nor a URL without a password."""
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
    """Return the text; raise UsageError if its bytes are not valid in the encoding of the terminal."""
    if not is_utf8(text):
        raise UsageError(f"not valid text in the terminal's encoding: {text!r}", "Write it in UTF-8, with a UTF-8 locale.")
    return text
