"""`stair-es serve`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import UsageError

from ..options import config_file, connections, shared
from ..output.console import emit_json, print_notice, stdout

if TYPE_CHECKING:
    from stair_es.model.base import Backend, Encoder, TextTower
    from stair_es.search.index_info import IndexInfo
    from stair_es.web.auth import AccessPolicy

ENV_SERVE_TOKEN = "STAIR_ES_SERVE_TOKEN"
_MIN_TOKEN_LENGTH = 16

_Host = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all interfaces.")]
_Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one. [default: first free port >= 8077]")
]
_ImageRoots = Annotated[
    list[Path] | None,
    typer.Option("--images", help="Folder of images that may be shown in full size; may be given several times.", metavar="ROOT"),
]
_TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help=f"File with the access token. [env: {ENV_SERVE_TOKEN}, or {ENV_SERVE_TOKEN}_FILE]"),
]
_NoToken = Annotated[bool, typer.Option("--no-token", help="Allow access from other machines without a token.")]
_AllowHosts = Annotated[
    list[str] | None,
    typer.Option("--allow-host", help="Additional host name of the page, for example behind a proxy.", metavar="NAME"),
]
_Metrics = Annotated[bool, typer.Option("--metrics", help="Expose Prometheus metrics at /metrics (requires the token).")]
_Title = Annotated[str, typer.Option("--title", help="Title of the page. [default: the index]")]
_RootPath = Annotated[
    str,
    typer.Option(
        "--root-path",
        envvar="STAIR_ES_SERVE_ROOT_PATH",
        show_envvar=True,
        help="Path of the page behind a proxy, such as /images; the proxy may strip it or not.",
        metavar="PATH",
    ),
]
_Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


def serve_command(
    index: shared.IndexOption = DEFAULT_INDEX,
    host: _Host = "127.0.0.1",
    port: _Port = None,
    images: _ImageRoots = None,
    token_file: _TokenFile = None,
    no_token: _NoToken = False,
    allow_host: _AllowHosts = None,
    metrics: _Metrics = False,
    title: _Title = "",
    root_path: _RootPath = "",
    open_: _Open = False,
    as_json: shared.JsonOption = False,
    url: shared.UrlOption = None,
    model: shared.IndexModelOption = None,
    backend: shared.BackendOption = "auto",
    text_tower: shared.TextTowerOption = "full",
) -> None:
    """Serve the web page for search and inspection, until Ctrl-C.

    Read-only: search permissions are sufficient. Listens on this machine only by default, and prints its URL.

    **Examples**

    - `stair-es serve --index photos --open`

    - `stair-es serve --index photos --images ~/Pictures`

    - `stair-es serve --host 0.0.0.0 --token-file /run/secrets/page --allow-host photos.example.org`

    - `stair-es serve --root-path /photos --allow-host example.org`
    """
    from dataclasses import replace

    _check_packages()
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.telemetry.server import open_server_telemetry
    from stair_es.web.app import ServerConfig, create_app
    from stair_es.web.images.file_access import AllowedRoots
    from stair_es.web.root_path import parse_root_path
    from stair_es.web.server import bind_socket, build_page_url, create_server

    policy = _build_access_policy(host, _read_token(token_file), no_token, allow_host or [])
    roots, root_path = AllowedRoots.from_folders(images or []), parse_root_path(root_path)
    with open_server_telemetry(metrics=metrics) as telemetry, bind_socket(host, port) as (listener, bound_port):
        connection = replace(connections.resolve_connection(url), timeout_s=10.0, request_hooks=telemetry.request_hooks)
        config = ServerConfig(
            index=index,
            load_encoder=_prepare_encoder(index, model, backend, text_tower),
            roots=roots,
            title=title,
            root_path=root_path,
            hooks=telemetry.hooks,
            extra_routes=telemetry.routes,
        )
        page_url = build_page_url(host, bound_port, root_path)
        ready = partial(_report_ready, page_url, as_json=as_json, with_token=bool(policy.token), open_page=open_)
        with Cluster(connection) as cluster:
            create_server(telemetry.wrap_app(create_app(config, cluster, policy, bound_port)), ready).run(sockets=[listener])


def _check_packages() -> None:
    """Check that the extra `serve` is installed."""
    from stair_es.optional import import_optional

    for package in ("starlette", "uvicorn", "cachetools"):
        import_optional(package, "serve")


def _prepare_encoder(index: str, model: str | None, backend: Backend, text_tower: TextTower) -> Callable[[IndexInfo], Encoder]:
    """Return a function that loads the encoder for the index, given its info."""
    from stair_es.search.index_encoder import load_query_encoder

    settings = config_file.get_config().settings
    return partial(load_query_encoder, index=index, model_name=model, backend=backend, text_tower=text_tower, settings=settings)


def _report_ready(url: str, *, as_json: bool, with_token: bool, open_page: bool) -> None:
    """Print the URL of the page, and open it if requested."""
    if as_json:
        emit_json({"url": url})
    else:
        stdout.print(url, markup=False)
    if with_token:
        print_notice(f"visitors need the token once: {url}?token=...")
    if open_page:
        typer.launch(url)


def _build_access_policy(host: str, token: str, no_token: bool, allowed_hosts: list[str]) -> AccessPolicy:
    from stair_es.web.auth import AccessPolicy, is_loopback

    if token and no_token:
        raise UsageError("a token and --no-token are mutually exclusive", "Keep one of the two.")
    is_local = is_loopback(host)
    if not is_local and not token and not no_token:
        raise UsageError(
            f"{host} is reachable from other machines, which could see all images",
            "Give a token with --token-file, or use --no-token behind a proxy that authenticates users.",
        )
    extra_hosts = frozenset(_parse_host_name(name) for name in allowed_hosts)
    names = frozenset({"localhost", "127.0.0.1", "::1", host.lower()})
    return AccessPolicy(hosts=names | extra_hosts, origins=extra_hosts, allow_addresses=not is_local, token=token)


def _parse_host_name(text: str) -> str:
    from stair_es.web.auth import parse_host

    try:
        name = parse_host(text.encode("idna").decode("ascii"))  # as browsers send it
    except UnicodeError:
        name = None
    if name is None:
        raise UsageError(f"{text!r} is not a host name", "Write it as in a URL, without http:// and path.")
    return name


def _read_token(path: Path | None) -> str:
    """Read the token. Errors show neither the token nor a missing file's name, which may be the token itself."""
    from stair_es.cluster.client.auth import describe_read_error, is_utf8, read_secret

    if path is None:
        token = read_secret(ENV_SERVE_TOKEN, config_file.get_config().environ) or ""
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
