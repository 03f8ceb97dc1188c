"""`stair-es serve`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stair_es.config.defaults import DEFAULT_INDEX

from ..options import server, shared
from ..options.connections import ConnectionArguments, resolve_connection
from ..options.encoder import prepare_index_encoder
from ..output.console import emit_json, print_notice, stdout

ENV_SERVE_TOKEN = "STAIR_ES_SERVE_TOKEN"

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
_Metrics = Annotated[bool, typer.Option("--metrics", help="Expose Prometheus metrics at /metrics; they require the token.")]
_Title = Annotated[str, typer.Option("--title", metavar="TEXT", help="Title of the page. [default: the alias]")]
_TokenFile = Annotated[Path | None, server.define_token_file_option(ENV_SERVE_TOKEN)]
_RootPath = Annotated[str, server.define_root_path_option("STAIR_ES_SERVE_ROOT_PATH")]
_Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


def serve_command(
    index: shared.IndexOption = DEFAULT_INDEX,
    host: server.HostOption = "127.0.0.1",
    port: _Port = None,
    images: _ImageRoots = None,
    token_file: _TokenFile = None,
    no_token: server.NoTokenOption = False,
    allow_host: server.AllowHostsOption = None,
    metrics: _Metrics = False,
    title: _Title = "",
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
    stair-es serve --index photos --open
    stair-es serve --index photos --images ~/Pictures
    stair-es serve --host 0.0.0.0 --token-file /run/secrets/page --allow-host photos.example.org
    stair-es serve --root-path /photos --allow-host example.org
    ```

    Prints the URL of the page and runs until you press Ctrl-C. By default only this machine can connect. The page never writes to
    the cluster, so read permissions are enough.
    """
    from dataclasses import replace

    server.check_server_packages("serve")
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.telemetry.server import open_server_telemetry
    from stair_es.web.app import create_app, parse_root_path
    from stair_es.web.config import ServerConfig
    from stair_es.web.originals import AllowedRoots
    from stair_es.web.server import bind_socket, build_page_url, create_server

    token = server.read_access_token(token_file, ENV_SERVE_TOKEN)
    policy = server.build_access_policy(host, token, no_token, allow_host, exposed="see all images")
    roots, root_path = AllowedRoots.from_folders(images or []), parse_root_path(root_path)
    with open_server_telemetry(metrics=metrics) as telemetry, bind_socket(host, port) as (listener, bound_port):
        connected = replace(resolve_connection(connection), timeout_s=10.0, request_hooks=telemetry.request_hooks)
        config = ServerConfig(
            index=index,
            load_encoder=prepare_index_encoder(index, model, None, backend, text_tower),
            roots=roots,
            title=title,
            root_path=root_path,
            hooks=telemetry.hooks,
            extra_routes=telemetry.routes,
        )
        page_url = build_page_url(host, bound_port, root_path)
        ready = partial(_report_ready, page_url, as_json=as_json, with_token=bool(policy.token), open_page=open_)
        with Cluster(connected) as cluster:
            create_server(telemetry.wrap_app(create_app(config, cluster, policy, bound_port)), ready).run(sockets=[listener])


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
