"""Options of the commands that serve HTTP, and the access policy that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.errors import UsageError

from . import config_file

if TYPE_CHECKING:
    from stair_es.web.auth import AccessPolicy

_MIN_TOKEN_LENGTH = 16

HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all interfaces.")]
NoTokenOption = Annotated[bool, typer.Option("--no-token", help="Allow other machines to connect without a token.")]
AllowHostsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Additional host name of the server, for example behind a proxy (repeatable).", metavar="NAME"
    ),
]


def define_token_file_option(variable: str) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--token-file`, given the environment variable for the token."""
    return typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"File with the access token; or set {variable} to the token, or {variable}_FILE to the file.",
    )


def define_root_path_option(variable: str) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--root-path`, given its environment variable."""
    help_text = "URL path under which a proxy serves this server, such as /images. The proxy may strip it."
    return typer.Option("--root-path", envvar=variable, show_envvar=True, help=help_text, metavar="PATH")


def check_server_packages(extra: str, *packages: str) -> None:
    """Check that the packages of an extra for servers are installed.

    Args:
        extra: The extra.
        packages: Packages in addition to those of every server.

    Raises:
        MissingExtra: If one is missing.
    """
    from stair_es.optional import import_optional

    for package in ("starlette", "uvicorn", "cachetools", "threadpoolctl", *packages):
        import_optional(package, extra)


def build_access_policy(
    host: str, token: str, no_token: bool, allowed_hosts: list[str] | None, *, exposed: str, bearer_only: bool = False
) -> AccessPolicy:
    """Build the access policy that the options describe.

    Args:
        host: Address to listen on.
        token: The access token, or an empty string.
        no_token: Whether other machines may have access without a token.
        allowed_hosts: Additional names of the server.
        exposed: What others could do without a token, for messages.
        bearer_only: As in `AccessPolicy`.

    Raises:
        UsageError: If they contradict each other, or would give access to everybody.
    """
    from stair_es.web.auth import AccessPolicy, is_loopback

    if token and no_token:
        raise UsageError("a token and --no-token are mutually exclusive", "Keep one of the two.")
    is_local = is_loopback(host)
    if not is_local and not token and not no_token:
        raise UsageError(
            f"{host} is reachable from other machines, which could {exposed}",
            "Give a token with --token-file, or use --no-token behind a proxy that authenticates users.",
        )
    extra_hosts = frozenset(map(_parse_host_name, allowed_hosts or []))
    return AccessPolicy(
        hosts=frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) | extra_hosts,
        origins=extra_hosts,
        allow_addresses=not is_local,
        token=token,
        bearer_only=bearer_only,
    )


def _parse_host_name(text: str) -> str:
    from stair_es.web.auth import parse_host

    try:
        name = parse_host(text.encode("idna").decode("ascii"))  # as browsers send it
    except UnicodeError:
        name = None
    if name is None:
        raise UsageError(f"{text!r} is not a host name", "Write it as in a URL, without http:// and path.")
    return name


def read_access_token(path: Path | None, variable: str) -> str:
    """Read the token. Errors show neither the token nor a missing file's name, which may be the token itself.

    Args:
        path: File with the token; None for the environment variable.
        variable: Name of the environment variable.

    Raises:
        UsageError: If the token can't be read, is not UTF-8 or too short.
    """
    from stair_es.cluster.client.auth import describe_read_error, read_secret
    from stair_es.types import is_utf8

    if path is None:
        token = read_secret(variable, config_file.get_config().environ) or ""
    else:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = describe_read_error(error)
            raise UsageError(f"--token-file: can't read the token: {reason}", "Specify a text file with the token.") from None
        if not token:
            raise UsageError("--token-file: the file is empty", "Write the token into it.")
    if not is_utf8(token):
        raise UsageError("the token isn't UTF-8", "Generate one: openssl rand -hex 24")
    if token and len(token) < _MIN_TOKEN_LENGTH:
        raise UsageError(
            f"the token has {len(token)} characters; at least {_MIN_TOKEN_LENGTH} are required",
            "Generate one: openssl rand -hex 24",
        )
    return token
