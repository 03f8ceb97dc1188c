"""`stair-es encoder`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_MODEL

from ..options import server, shared
from ..options.connections import ConnectionArguments, resolve_connection
from ..options.encoder import load_named_encoder, prepare_index_encoder
from ..output.console import emit_json, stdout

if TYPE_CHECKING:
    from collections.abc import Callable

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.search.index_info import IndexInfo
    from stair_es.types import Backend, ResizeMode, TextTower
    from stair_es.web.encoding.service import EncodingTarget

ENV_ENCODER_TOKEN = "STAIR_ES_ENCODER_TOKEN"
ENCODER_PORT = 8078

_TokenFile = Annotated[Path | None, server.define_token_file_option(ENV_ENCODER_TOKEN)]
_RootPath = Annotated[str, server.define_root_path_option("STAIR_ES_ENCODER_ROOT_PATH")]
_Port = Annotated[int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port to listen on; 0 picks a free port.")]
_Index = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        metavar="ALIAS",
        help="Use the model, text tower and token policy of this index, and follow its alias when it moves.",
    ),
]
_MaxBatch = Annotated[
    int, typer.Option("--max-batch", metavar="N", min=1, max=1024, help="Maximum number of texts to encode in one batch.")
]
_MaxWaiting = Annotated[
    int,
    typer.Option(
        "--max-waiting",
        metavar="N",
        min=1,
        help="Maximum number of queued texts, and of queued images. Requests beyond it get HTTP status 429.",
    ),
]
_Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time after which a request gets HTTP status 503.")
]


def serve_encoder_command(
    model: shared.OptionalModelOption = None,
    index: _Index = None,
    host: server.HostOption = "127.0.0.1",
    port: _Port = ENCODER_PORT,
    token_file: _TokenFile = None,
    no_token: server.NoTokenOption = False,
    allow_host: server.AllowHostsOption = None,
    root_path: _RootPath = "",
    max_batch: _MaxBatch = 32,
    max_waiting: _MaxWaiting = 256,
    timeout: _Timeout = 30.0,
    as_json: shared.JsonOption = False,
    *,
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
    ```

    `POST /v1/encode` returns tokens with weights, `POST /v1/query` the body of a search request, and `POST /embed_sparse` what
    text-embeddings-inference returns. Requires no cluster, unless you give `--index`.
    """
    server.check_server_packages("encoder", "prometheus_client")
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.telemetry.server import open_server_telemetry
    from stair_es.web.app import EncoderConfig, create_encoder_app, parse_root_path
    from stair_es.web.config import BatchLimits
    from stair_es.web.server import bind_socket, build_page_url, create_server

    token = server.read_access_token(token_file, ENV_ENCODER_TOKEN)
    policy = server.build_access_policy(host, token, no_token, allow_host, exposed="use the encoder", bearer_only=True)
    with ExitStack() as stack:
        telemetry = stack.enter_context(open_server_telemetry(metrics=True))
        listener, bound_port = stack.enter_context(bind_socket(host, port))
        if index is None:
            connected, get_target = None, _load_target(model or DEFAULT_MODEL, fit, backend, text_tower or "full")
        else:
            connected = replace(resolve_connection(connection), timeout_s=10.0, request_hooks=telemetry.request_hooks)
            load_encoder = prepare_index_encoder(index, model, fit, backend, text_tower)
            get_target = _follow_index(stack.enter_context(Cluster(connected)), index, load_encoder)
        config = EncoderConfig(
            get_target=get_target,
            connection=connected,
            batch_limits=BatchLimits(max_batch=max_batch, max_waiting=max_waiting, timeout_s=timeout),
            root_path=parse_root_path(root_path),
            hooks=telemetry.hooks,
            extra_routes=telemetry.routes,
        )
        app = telemetry.wrap_app(create_encoder_app(config, policy, bound_port))
        base_url = build_page_url(host, bound_port, config.root_path).rstrip("/")
        create_server(app, partial(_report_ready, base_url, as_json)).run(sockets=[listener])


def _load_target(model: str, fit: ResizeMode | None, backend: Backend, text_tower: TextTower) -> Callable[[], EncodingTarget]:
    """Return a function that returns the target for a model."""
    from stair_es.web.encoding.service import EncodingTarget

    return partial(EncodingTarget, encoder=load_named_encoder(model, fit, backend, text_tower))


def _follow_index(cluster: Cluster, index: str, load_encoder: Callable[[IndexInfo], Encoder]) -> Callable[[], EncodingTarget]:
    """Return a function that returns the target for an index as it is now."""
    from stair_es.search.index_cache import create_state_cache
    from stair_es.web.encoding.service import follow_index

    return follow_index(create_state_cache(cluster, index, load_encoder))


def _report_ready(url: str, as_json: bool) -> None:
    """Print the URL of the encoder."""
    if as_json:
        emit_json({"url": url})
    else:
        stdout.print(url, markup=False)
