"""The commands that serve HTTP: `stair-es serve`, the page, and `stair-es encoder`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_PRICE_FIELD
from stair_es.errors import OptionConflict, UsageError
from stair_es.model.own_code import ask_with

from ..options import config_file, shared
from ..options.connections import ConnectionArguments, resolve_connection
from ..options.search import EncoderArguments
from ..output.console import emit_json, print_notice, stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from stair_es.cluster.client.connection import Connection
    from stair_es.telemetry.server import ServerTelemetry
    from stair_es.web.auth import AccessPolicy
    from stair_es.web.coverage import CoverageReport
    from stair_es.web.encoding.service import EncodingTarget

_ENV_SERVE_TOKEN = "STAIR_ES_SERVE_TOKEN"
_ENV_ENCODER_TOKEN = "STAIR_ES_ENCODER_TOKEN"
_ENCODER_PORT = 8078
_MIN_TOKEN_LENGTH = 16
_EXPOSED = {False: "see all images", True: "see all images and teach the index words"}
"""Whether the page teaches -> what others could do without a token."""

_Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all interfaces.")]
_NoToken = Annotated[bool, typer.Option("--no-token", help="Allow other machines to connect without a token.")]
_AllowHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", help="Additional host name of the server, for example behind a proxy (repeatable).", metavar="NAME"
    ),
]


def _define_token_file(variable: str) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--token-file`, given the environment variable for the token."""
    return typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"File with the access token; or set {variable} to the token, or {variable}_FILE to the file.",
    )


def _define_root_path(variable: str) -> Any:  # noqa: ANN401  an option for Typer
    """Return the option `--root-path`, given its environment variable."""
    help_text = "URL path under which a proxy serves this server, such as /images. The proxy may strip it."
    return typer.Option("--root-path", envvar=variable, show_envvar=True, help=help_text, metavar="PATH")


_Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="PORT",
        min=0,
        max=65535,
        help="Port to listen on; 0 picks a free port. [default: the first free port from 8077]",
    ),
]
_ImageRoots = Annotated[
    list[Path] | None,
    typer.Option("--images", help="Folder with originals that the page may show in full size (repeatable).", metavar="FOLDER"),
]
_StripLocation = Annotated[
    bool,
    typer.Option(
        "--strip-location",
        envvar="STAIR_ES_SERVE_STRIP_LOCATION",
        show_envvar=True,
        help="Remove where a photo was taken from each downloaded original.",
    ),
]
_AllowFrames = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-frame",
        help="Site that may show the page in a frame, as https://example.org (repeatable). Without a token and --teach only.",
        metavar="ORIGIN",
    ),
]
_Metrics = Annotated[bool, typer.Option("--metrics", help="Expose Prometheus metrics at /metrics; they require the token.")]
_Title = Annotated[str, typer.Option("--title", metavar="TEXT", help="Title of the page. [default: the alias]")]
_Coverage = Annotated[
    Path | None,
    typer.Option(
        "--coverage",
        envvar="STAIR_ES_SERVE_COVERAGE",
        show_envvar=True,
        help="Report of `stair-es coverage --json`, to show on the page.",
        metavar="FILE",
    ),
]
_Teach = Annotated[
    bool,
    typer.Option(
        "--teach",
        envvar="STAIR_ES_SERVE_TEACH",
        show_envvar=True,
        help="Allow the visitors to teach the index words from marked images. Requires permission to write.",
    ),
]
_TokenFile = Annotated[Path | None, _define_token_file(_ENV_SERVE_TOKEN)]
_RootPath = Annotated[str, _define_root_path("STAIR_ES_SERVE_ROOT_PATH")]
_Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
_EncoderTokenFile = Annotated[Path | None, _define_token_file(_ENV_ENCODER_TOKEN)]
_EncoderRootPath = Annotated[str, _define_root_path("STAIR_ES_ENCODER_ROOT_PATH")]
_EncoderPort = Annotated[
    int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0 picks a free port.")
]
_EncoderIndex = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        metavar="ALIAS",
        help="Use the model, text tower and token policy of this index, and follow its alias when it moves.",
    ),
]


def serve_command(
    index: shared.IndexOption = DEFAULT_INDEX,
    host: _Host = "127.0.0.1",
    port: _Port = None,
    images: _ImageRoots = None,
    strip_location: _StripLocation = False,
    token_file: _TokenFile = None,
    no_token: _NoToken = False,
    allow_host: _AllowHosts = None,
    allow_frame: _AllowFrames = None,
    metrics: _Metrics = False,
    title: _Title = "",
    price_field: shared.PriceFieldOption = DEFAULT_PRICE_FIELD,
    coverage: _Coverage = None,
    teach: _Teach = False,
    root_path: _RootPath = "",
    open_: _Open = False,
    as_json: shared.JsonOption = False,
    *,
    connection: ConnectionArguments,
    model: shared.IndexModelOption = None,
    backend: shared.BackendOption = "auto",
    text_tower: shared.TextTowerOption = "full",
) -> None:
    """Serve a web page to search and inspect an index.

    **Examples**

    ```text
    stair-es serve --index photos --open --images ~/Pictures
    stair-es serve --host 0.0.0.0 --token-file /run/secrets/page --allow-host photos.example.org
    ```

    Runs until you press Ctrl-C. By default only this machine can connect, and the page only reads.
    """
    _check_packages("serve")
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.telemetry.server import open_server_telemetry
    from stair_es.web.app import create_app, parse_root_path
    from stair_es.web.config import ServerConfig
    from stair_es.web.originals import AllowedRoots
    from stair_es.web.server import bind_socket, build_page_url, create_server

    policy = _build_access_policy(_ENV_SERVE_TOKEN, token_file, no_token, host, allow_host, _EXPOSED[teach], allow_frame, teach)
    with open_server_telemetry(metrics=metrics) as telemetry, bind_socket(host, port) as (listener, bound_port):
        config = ServerConfig(
            index=index,
            load_encoder=EncoderArguments(model=model, backend=backend, text_tower=text_tower).prepare_for_index(index),
            roots=AllowedRoots.from_folders(images or [], strips_location=strip_location),
            title=title,
            price_field=price_field,
            coverage=_read_coverage(coverage),
            teach=teach,
            root_path=parse_root_path(root_path),
            hooks=telemetry.hooks,
            extra_routes=telemetry.routes,
        )
        ready = partial(_report_ready, build_page_url(host, bound_port, config.root_path), as_json, bool(policy.token), open_)
        with Cluster(_resolve_connection(connection, telemetry)) as cluster, ask_with(None):  # no request waits for the terminal
            create_server(telemetry.wrap_app(create_app(config, cluster, policy, bound_port)), ready).run(sockets=[listener])


def serve_encoder_command(
    model: shared.OptionalModelOption = None,
    index: _EncoderIndex = None,
    host: _Host = "127.0.0.1",
    port: _EncoderPort = _ENCODER_PORT,
    token_file: _EncoderTokenFile = None,
    no_token: _NoToken = False,
    allow_host: _AllowHosts = None,
    root_path: _EncoderRootPath = "",
    as_json: shared.JsonOption = False,
    *,
    service: shared.ServiceArguments,
    connection: ConnectionArguments,
    fit: shared.FitOption = None,
    backend: shared.BackendOption = "auto",
    text_tower: shared.IndexTextTowerOption = None,
) -> None:
    """Serve a model over HTTP, to encode texts and images as token weights.

    **Examples**

    ```text
    stair-es encoder --model photos
    stair-es encoder --index photos  # with the model and the token policy of that index
    stair-es encoder --index photos --write-index photos  # also takes images in
    ```

    `POST /v1/encode` returns tokens with weights, `POST /v1/query` the body of a search request, `POST /v1/documents` the
    documents of images, and `POST /embed_sparse` what text-embeddings-inference returns. Requires no cluster, unless you give
    `--index` or `--write-index`.
    """
    _check_packages("encoder", "prometheus_client")
    from stair_es.telemetry.server import open_server_telemetry
    from stair_es.web.app import EncoderConfig, create_encoder_app, parse_root_path
    from stair_es.web.config import BatchLimits
    from stair_es.web.server import bind_socket, build_page_url, create_server

    exposed = f"write into {', '.join(service.write_index)}" if service.write_index else "use the encoder"
    policy = _build_access_policy(_ENV_ENCODER_TOKEN, token_file, no_token, host, allow_host, exposed, bearer_only=True)
    encoder = EncoderArguments(model=model or None, fit=fit, backend=backend, text_tower=text_tower)
    with ExitStack() as stack:
        telemetry = stack.enter_context(open_server_telemetry(metrics=True))
        listener, bound_port = stack.enter_context(bind_socket(host, port))
        connected = _resolve_connection(connection, telemetry) if index or service.write_index else None
        get_target = _open_target(stack, encoder, connected, index)
        config = EncoderConfig(
            get_target=get_target,
            connection=connected,
            write_indices=stack.enter_context(service.open_indices(connected, encoder.model, encoder.fit, get_target())),
            allow_private_urls=service.allow_private_urls,
            batch_limits=BatchLimits(max_batch=service.max_batch, max_waiting=service.max_waiting, timeout_s=service.timeout),
            root_path=parse_root_path(root_path),
            hooks=telemetry.hooks,
            extra_routes=telemetry.routes,
        )
        app = telemetry.wrap_app(create_encoder_app(config, policy, bound_port))
        base_url = build_page_url(host, bound_port, config.root_path).rstrip("/")
        with ask_with(None):
            create_server(app, partial(_report_ready, base_url, as_json=as_json)).run(sockets=[listener])


def _resolve_connection(arguments: ConnectionArguments, telemetry: ServerTelemetry) -> Connection:
    """Resolve the connection of a server, whose requests are measured."""
    return replace(resolve_connection(arguments), timeout_s=10.0, request_hooks=telemetry.request_hooks)


def _open_target(
    stack: ExitStack, encoder: EncoderArguments, connection: Connection | None, index: str | None
) -> Callable[[], EncodingTarget]:
    """Return a function that returns the target: a model, or that of an index as it is now."""
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.search.index_cache import create_state_cache
    from stair_es.search.searcher import create_query_runner
    from stair_es.web.encoding.service import EncodingTarget, follow_index

    if connection is None or index is None:
        return partial(EncodingTarget, encoder=encoder.load())
    cluster = stack.enter_context(Cluster(connection))
    states = create_state_cache(cluster, index, encoder.prepare_for_index(index))
    return follow_index(states, create_query_runner(cluster, index))


def _report_ready(url: str, as_json: bool, with_token: bool = False, open_page: bool = False) -> None:
    """Print the URL of the server, and open it if requested."""
    if as_json:
        emit_json({"url": url})
    else:
        stdout.print(url, markup=False)
    if with_token:
        print_notice(f"visitors need the token once: {url}?token=...")
    if open_page:
        typer.launch(url)


def _check_packages(extra: str, *packages: str) -> None:
    """Raise MissingExtra if a package of every server, or one of `packages`, isn't installed."""
    from stair_es.optional import import_optional

    for package in ("starlette", "uvicorn", "cachetools", "threadpoolctl", *packages):
        import_optional(package, extra)


def _build_access_policy(
    variable: str,
    token_file: Path | None,
    no_token: bool,
    host: str,
    allowed_hosts: list[str] | None,
    exposed: str,
    frames: list[str] | None = None,
    can_write: bool = False,
    *,
    bearer_only: bool = False,
) -> AccessPolicy:
    """Build the access policy that the options describe; `exposed` is what others could do without a token, for messages.

    Raises:
        UsageError: If they contradict each other, or would give access to everybody.
    """
    from stair_es.web.auth import AccessPolicy, is_loopback

    token = _read_access_token(token_file, variable)
    if token and no_token:
        raise OptionConflict("a token and --no-token are mutually exclusive", "Keep one of the two.")
    if frames and (token or can_write):  # in a frame, a click can be another than it seems
        raise OptionConflict("--allow-frame is for a page without a token and --teach", "Leave one of them out.")
    is_local = is_loopback(host)
    if not is_local and not token and not no_token:
        raise UsageError(
            f"{host} is reachable from other machines, which could {exposed}",
            "Give a token with --token-file, or use --no-token behind a proxy that authenticates users.",
            code="host-without-token",
        )
    extra_hosts = frozenset(map(_parse_host_name, allowed_hosts or []))
    return AccessPolicy(
        hosts=frozenset({"localhost", "127.0.0.1", "::1", host.lower()}) | extra_hosts,
        origins=extra_hosts,
        allow_addresses=not is_local,
        frame_origins=tuple(map(_parse_frame_origin, frames or [])),
        token=token,
        bearer_only=bearer_only,
    )


def _parse_frame_origin(text: str) -> str:
    from stair_es.web.auth import parse_origin

    origin = parse_origin(text)
    if origin is None:
        raise UsageError(f"{text!r} is not an origin", "Write it as https://example.org, without a path.", code="invalid-origin")
    return origin


def _parse_host_name(text: str) -> str:
    from stair_es.web.auth import parse_host

    try:
        name = parse_host(text.encode("idna").decode("ascii"))  # as browsers send it
    except UnicodeError:
        name = None
    if name is None:
        raise UsageError(
            f"{text!r} is not a host name", "Write it as in a URL, without http:// and path.", code="invalid-host-name"
        )
    return name


def _read_coverage(path: Path | None) -> CoverageReport | None:
    from stair_es.web.coverage import read_coverage_report

    return None if path is None else read_coverage_report(path)


def _read_access_token(path: Path | None, variable: str) -> str:
    """Read the token from a file, otherwise from the environment variable.

    Errors show neither the token nor a missing file's name, which may be the token itself.
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
            raise UsageError(
                f"--token-file: can't read the token: {reason}",
                "Specify a text file with the token.",
                code="access-token-file-unreadable",
            ) from None
        if not token:
            raise UsageError("--token-file: the file is empty", "Write the token into it.", code="access-token-file-empty")
    if not is_utf8(token):
        raise UsageError("the token isn't UTF-8", "Generate one: openssl rand -hex 24", code="access-token-not-utf-8")
    if token and len(token) < _MIN_TOKEN_LENGTH:
        raise UsageError(
            f"the token has {len(token)} characters; at least {_MIN_TOKEN_LENGTH} are required",
            "Generate one: openssl rand -hex 24",
            code="access-token-too-short",
        )
    return token
