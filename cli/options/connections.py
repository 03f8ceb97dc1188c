"""The connection that the options of a command and the environment describe, and its TLS and AWS options."""

from __future__ import annotations

import os
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

    from stair_es.cluster.client.connection import Connection

_TLS_PANEL = "Secure connection"


def _define_tls_option(name: str, help_text: str) -> Any:  # noqa: ANN401  a type for Typer
    variable = "STAIR_ES_" + name.upper().replace("-", "_")
    option = typer.Option(f"--{name}", envvar=variable, show_envvar=True, help=help_text, rich_help_panel=_TLS_PANEL)
    return Annotated[str | None, option]


_TLS_OPTIONS = {
    "ca_file": _define_tls_option("ca-file", "PEM file with trusted certificate authorities, instead of the system's."),
    "ca_fingerprint": _define_tls_option(
        "ca-fingerprint", "SHA-256 fingerprint of the certificate of the authority or of the server."
    ),
    "client_cert": _define_tls_option("client-cert", "PEM file with the client certificate (and its key)."),
    "client_key": _define_tls_option("client-key", "PEM file with the key of the client certificate."),
    "aws_service": _define_tls_option("aws-service", "Sign requests for this AWS service: es, or aoss for Serverless."),
    "aws_region": _define_tls_option("aws-region", "AWS region for signing. [default: from the AWS configuration]"),
}
_connection_options = OptionGroup(
    {**{name: (kind, None) for name, kind in _TLS_OPTIONS.items()}, "context": (typer.Context, None)}
)
with_connection_options = _connection_options.decorate
"""Decorator that adds the TLS and AWS options to a command; `resolve_connection` reads them."""


def get_command_context() -> typer.Context | None:
    """Return the context of the running command; None outside of one, and for a command without these options."""
    context: typer.Context | None = _connection_options.values["context"]
    return context


def resolve_connection(url: str | None) -> Connection:
    """Return the connection to `url`, or to the embedded node, which is started if it isn't running (with a notice on stderr).

    Logins come from the environment; certificates and AWS settings from the options of the command or the environment. What the
    configuration file sets applies only to the URL that it sets. The embedded node uses none of it.

    Args:
        url: URLs of the cluster, with commas between; None for the embedded node.

    Returns:
        The connection.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    named = resolve_named_connection(url)
    if named is not None:
        return named
    from stair_es.cluster.client.connection import Connection
    from stair_es.embedded_node import ensure_running

    node_url = ensure_running()
    print_notice(f"no --url / {ENV_URL} given: using the embedded node at {node_url}")
    return Connection(url=node_url)


def resolve_named_connection(url: str | None) -> Connection | None:
    """Return the connection to `url` or the environment's URL, or None if there is neither.

    Args:
        url: URLs of the cluster, with commas between.

    Returns:
        The connection, if a cluster is named.

    Raises:
        UsageError: If the command line holds a password, or options exclude each other.
    """
    from stair_es.cluster.client.auth import read_secret
    from stair_es.cluster.client.connection import Connection

    if url and url != os.environ.get(ENV_URL):
        check_no_password(url, ENV_URL)
    url = url or read_secret(ENV_URL)
    return Connection.from_env(url, *resolve_connection_settings(_connection_options.values, url)) if url else None


def resolve_running_connection(url: str | None) -> Connection | None:
    """Return the connection to the named cluster, otherwise to the last address of the embedded node. Starts nothing.

    Args:
        url: URLs of the cluster, with commas between.

    Returns:
        The connection, or None if the embedded node was never started.

    Raises:
        UsageError: As for `resolve_named_connection`.
    """
    named = resolve_named_connection(url)
    if named is not None:
        return named
    from stair_es.cluster.client.connection import Connection
    from stair_es.embedded_node import state
    from stair_es.embedded_node.spec import NodeSpec

    known = state.read_node_state(NodeSpec.from_home().state_file)
    return Connection(url=known.url) if known and known.url else None


def resolve_connection_settings(
    given: Mapping[str, Any], url: str | None, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options and the environment that apply to a connection.

    Args:
        given: Parameters of a command, and its `context`.
        url: URL of the cluster, or of the product.
        prefix: Prefix of the option names, if any.

    Returns:
        Options, and environment variables.
    """
    context = given["context"]
    named = {name: value for name, value in given.items() if name != "context"}
    if context is None:
        return named, dict(os.environ)
    found = config_file.get_config(context)
    return found.select_options(context, named, url, prefix), found.build_environ(url, prefix)


def check_no_password(url: str, variable: str) -> None:
    """Check that `url` holds no password; only the environment may.

    Args:
        url: URL from the command line.
        variable: Environment variable for the same URL.

    Raises:
        UsageError: If it holds one.
    """
    if has_password(url):
        prefix = variable.removesuffix("URL")
        raise UsageError(
            "a password on the command line can be read by everyone on this machine",
            f"Put the URL into {variable}, or the login into {prefix}USER and {prefix}PASSWORD (or {prefix}PASSWORD_FILE).",
        )
