"""The connection that the options of a command and the environment describe, and its TLS and AWS options."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import ENV_URL
from stair_es.config.file import has_password
from stair_es.errors import UsageError

from ..output.console import print_notice
from . import config_file
from .decorator import OptionGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.connection import Connection
    from stair_es.types import ProgressCallback

_TLS_PANEL = "Secure connection"


_CERTIFICATE_OPTIONS = {
    "ca_file": ("FILE", "PEM file with the certificate authorities to trust, instead of the system's."),
    "ca_fingerprint": ("HEX", "SHA-256 fingerprint of the server's certificate or of its certificate authority."),
    "client_cert": ("FILE", "PEM file with the client certificate, and optionally its key."),
    "client_key": ("FILE", "PEM file with the key of the client certificate."),
}
CERTIFICATE_KEYS = tuple(_CERTIFICATE_OPTIONS)
_AWS_OPTIONS = {
    "aws_service": ("SERVICE", "AWS service to sign requests for: `es`, or `aoss` for OpenSearch Serverless."),
    "aws_region": ("REGION", "AWS region to sign requests for. [default: from the AWS configuration]"),
}


def _define_options(texts: Mapping[str, tuple[str, str]], prefix: str, panel: str) -> dict[str, tuple[Any, None]]:
    """Define options for texts, each with its environment variable and without a default.

    Args:
        texts: Name -> name of the value in help, and help text.
        prefix: Prefix of the names.
        panel: Panel of the options in help.
    """
    options = {}
    for key, (metavar, text) in texts.items():
        name = prefix + key
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            envvar=f"STAIR_ES_{name.upper()}",
            show_envvar=True,
            metavar=metavar,
            help=text,
            rich_help_panel=panel,
        )
        options[name] = (Annotated[str | None, option], None)
    return options


def define_certificate_options(prefix: str, panel: str) -> dict[str, tuple[Any, None]]:
    """Define the options for certificates.

    Returns:
        Parameter -> its Typer annotation and its default.
    """
    return _define_options(_CERTIFICATE_OPTIONS, prefix, panel)


CONNECTION_OPTIONS = OptionGroup(
    {
        **define_certificate_options("", _TLS_PANEL),
        **_define_options(_AWS_OPTIONS, "", _TLS_PANEL),
        "context": (typer.Context, None),
    }
)
"""TLS and AWS options of a command that connects to the cluster; `resolve_connection` reads them."""


def get_command_context() -> typer.Context | None:
    """Return the context of the running command; None outside of one, and for a command without these options."""
    context: typer.Context | None = CONNECTION_OPTIONS.values["context"]
    return context


def resolve_connection(url: str | None) -> Connection:
    """Return the connection to `url`, or to the embedded node, which is started if it isn't running (with a notice on stderr).

    Logins come from the environment; certificates and AWS settings from the options of the command or the environment. What the
    configuration file sets applies only to the URL that it sets. The embedded node uses none of it.

    Args:
        url: URLs of the cluster, with commas between; None for the embedded node.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    connection = resolve_named_connection(url)
    if connection is not None:
        return connection
    from stair_es.cluster.client.connection import Connection
    from stair_es.embedded_node import ensure_running

    with ExitStack() as stack:

        @cache
        def open_progress() -> ProgressCallback:  # only for a download: the module takes 20 ms to import
            from ..output.progress import show_download_progress

            return stack.enter_context(show_download_progress())

        node_url = ensure_running(
            environ=config_file.get_config().environ, progress=lambda done, total: open_progress()(done, total)
        )
    print_notice(f"no --url / {ENV_URL} given: using the embedded node at {node_url}")
    return Connection(url=node_url)


def open_cluster(url: str | None) -> Cluster:
    """Open the cluster of `resolve_connection`, with the same errors."""
    from stair_es.cluster.client.cluster import Cluster

    return Cluster(resolve_connection(url))


def resolve_named_connection(url: str | None) -> Connection | None:
    """Return the connection to `url` or the environment's URL, or None if there is neither.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    from stair_es.cluster.client.auth import read_secret
    from stair_es.cluster.client.connection import Connection

    environ = config_file.get_config().environ
    if url and url != environ.get(ENV_URL):
        check_no_password(url, ENV_URL)
    url = url or read_secret(ENV_URL, environ)
    return Connection.from_env(url, *resolve_connection_settings(CONNECTION_OPTIONS.values, url)) if url else None


def resolve_running_connection(url: str | None) -> Connection | None:
    """Return the connection to the named cluster, otherwise to the embedded node if it runs. Starts nothing.

    Returns:
        The connection, or None if the embedded node doesn't run.

    Raises:
        UsageError: As for `resolve_named_connection`.
    """
    connection = resolve_named_connection(url)
    if connection is not None:
        return connection
    from stair_es.cluster.client.connection import Connection
    from stair_es.embedded_node import NodeSpec, find_node_url

    node_url = find_node_url(NodeSpec.from_home(environ=config_file.get_config().environ))
    return Connection(url=node_url) if node_url else None


def resolve_connection_settings(
    values: Mapping[str, Any], url: str | None, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options and the variables that apply to a connection.

    Args:
        values: Parameters of a command, and its `context`, which is None outside of a command.
        url: URL of the cluster, or of the product.
        prefix: Prefix of the option names, if any.
    """
    options = {name: value for name, value in values.items() if name != "context"}
    from_file = config_file.list_file_parameters(values["context"], options) if values["context"] is not None else set[str]()
    return config_file.get_config().resolve_for_url(url, options, from_file, prefix)


def check_no_password(url: str, variable: str) -> None:
    """Check that `url` holds no password; only the environment may.

    Raises:
        UsageError: If it holds one.
    """
    if has_password(url):
        prefix = variable.removesuffix("URL")
        raise UsageError(
            "a password on the command line is visible to other users of this machine",
            f"Put the URL into {variable}, or the credentials into {prefix}USER and {prefix}PASSWORD (or {prefix}PASSWORD_FILE).",
        )
