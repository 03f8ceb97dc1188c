"""The connection that the options of a command and the environment describe, and its TLS and AWS options."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import ENV_URL
from stair_es.errors import UsageError
from stair_es.urls import has_password

from ..output.console import print_notice
from . import config_file
from .shared import LAST_PANEL, UrlOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.client.connection import Connection
    from stair_es.types import ProgressCallback

_CERTIFICATE_OPTIONS = {
    "ca_file": ("FILE", "PEM file with the certificate authorities to trust, instead of the system's."),
    "ca_fingerprint": ("HEX", "SHA-256 fingerprint of the server's certificate or of its certificate authority."),
    "client_cert": ("FILE", "PEM file with the client certificate, and optionally its key."),
    "client_key": ("FILE", "PEM file with the key of the client certificate."),
}
CERTIFICATE_KEYS = tuple(_CERTIFICATE_OPTIONS)
_AWS_KEYS = ("aws_service", "aws_region")


def define_certificate_option(key: str, prefix: str = "", panel: str = LAST_PANEL) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option for a certificate; `prefix` is that of its name and its environment variable."""
    return _define_option(prefix + key, *_CERTIFICATE_OPTIONS[key], panel)


def _define_option(name: str, metavar: str, help_text: str, panel: str = LAST_PANEL) -> Any:  # noqa: ANN401  an option for Typer
    return typer.Option(
        f"--{name.replace('_', '-')}",
        envvar=f"STAIR_ES_{name.upper()}",
        show_envvar=True,
        metavar=metavar,
        help=help_text,
        rich_help_panel=panel,
    )


@dataclass(frozen=True, kw_only=True)
class ConnectionArguments:
    """Options of a command that connects to the cluster."""

    url: UrlOption = None
    ca_file: Annotated[str | None, define_certificate_option("ca_file")] = None
    ca_fingerprint: Annotated[str | None, define_certificate_option("ca_fingerprint")] = None
    client_cert: Annotated[str | None, define_certificate_option("client_cert")] = None
    client_key: Annotated[str | None, define_certificate_option("client_key")] = None
    aws_service: Annotated[
        str | None,
        _define_option("aws_service", "SERVICE", "AWS service to sign requests for: `es`, or `aoss` for OpenSearch Serverless."),
    ] = None
    aws_region: Annotated[
        str | None,
        _define_option("aws_region", "REGION", "AWS region to sign requests for. [default: from the AWS configuration]"),
    ] = None
    context: typer.Context | None = None
    """The context of the command, which knows where each value comes from."""


def resolve_connection(arguments: ConnectionArguments) -> Connection:
    """Return the connection to the URL, or to the embedded node, which is started if it isn't running (with a notice on stderr).

    Logins come from the environment; certificates and AWS settings from the options of the command or the environment. What the
    configuration file sets applies only to the URL that it sets. The embedded node uses none of it.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    connection = resolve_named_connection(arguments)
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


def open_cluster(arguments: ConnectionArguments) -> Cluster:
    """Open the cluster of `resolve_connection`."""
    from stair_es.cluster.client.cluster import Cluster

    return Cluster(resolve_connection(arguments))


def resolve_named_connection(arguments: ConnectionArguments) -> Connection | None:
    """Return the connection to the URL of the command or the environment, or None if there is neither.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    from stair_es.cluster.client.auth import read_secret
    from stair_es.cluster.client.connection import Connection

    environ = config_file.get_config().environ
    if arguments.url and arguments.url != environ.get(ENV_URL):
        check_no_password(arguments.url, ENV_URL)
    url = arguments.url or read_secret(ENV_URL, environ)
    options = {key: getattr(arguments, key) for key in (*CERTIFICATE_KEYS, *_AWS_KEYS)}
    return Connection.from_env(url, *resolve_connection_settings(options, arguments.context, url)) if url else None


def resolve_running_connection(arguments: ConnectionArguments) -> Connection | None:
    """Return the connection to the named cluster, otherwise to the embedded node if it runs. Starts nothing."""
    connection = resolve_named_connection(arguments)
    if connection is not None:
        return connection
    from stair_es.cluster.client.connection import Connection
    from stair_es.embedded_node import NodeSpec, find_node_url

    node_url = find_node_url(NodeSpec.from_home(environ=config_file.get_config().environ))
    return Connection(url=node_url) if node_url else None


def resolve_connection_settings(
    options: Mapping[str, Any], context: typer.Context | None, url: str | None, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options and the variables that apply to a connection to `url`; see `CliConfig.resolve_for_url`."""
    sources = {name: context.get_parameter_source(name) for name in options} if context is not None else {}
    from_file = {name for name, source in sources.items() if source is not None and source.name == "DEFAULT_MAP"}
    return config_file.get_config().resolve_for_url(url, options, from_file, prefix)


def check_no_password(url: str, variable: str) -> None:
    """Raise UsageError if `url` holds a password; only the environment may."""
    if has_password(url):
        prefix = variable.removesuffix("URL")
        raise UsageError(
            "a password on the command line is visible to other users of this machine",
            f"Put the URL into {variable}, or the credentials into {prefix}USER and {prefix}PASSWORD (or {prefix}PASSWORD_FILE).",
            code="password-in-arguments",
        )
