"""The page or the encoder, served for a test by a real server on loopback, and a client that sends exactly what it is told.

with serve_page(Connection(url=node_url), "photos") as page:
page.post("/api/search", {"text": "red car"}).json["hits"]
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.sinks.live import open_live_indices
from stair_es.model.base import ModelSpec
from stair_es.search.index_encoder import load_query_encoder
from stair_es.telemetry.server import ServerTelemetry, open_server_telemetry
from stair_es.web.app import EncoderConfig, create_app, create_encoder_app
from stair_es.web.auth import AccessPolicy
from stair_es.web.config import BatchLimits, ServerConfig, ServerLimits
from stair_es.web.coverage import CoverageReport
from stair_es.web.encoding.service import EncodingTarget
from stair_es.web.originals import AllowedRoots
from stair_es.web.server import bind_socket, create_server
from support.messages import forward_messages

if TYPE_CHECKING:
    import socket

    from starlette.types import ASGIApp

_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    cookies: tuple[str, ...]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  JSON
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class PageClient:
    """A served page."""

    port: int
    messages: list[str] = field(default_factory=list)
    """Messages to the operator."""

    def request(self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Response:
        """Send a request with an unchanged target."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            pairs = [(name.lower(), value) for name, value in response.getheaders()]
            cookies = tuple(value for name, value in pairs if name == "set-cookie")
            return Response(status=response.status, headers=dict(pairs), cookies=cookies, body=response.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Response:
        """GET; an underscore in a header's name is a dash."""
        return self.request("GET", target, None, {name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, target: str, value: object, **headers: str) -> Response:
        """POST JSON."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", target, json.dumps(value).encode(), {"content-type": "application/json", **more})

    def post_image(self, data: bytes, kind: str = "image/jpeg") -> Response:
        """POST an image."""
        return self.request("POST", "/api/image", data, {"content-type": kind})


@contextmanager
def serve_page(
    connection: Connection,
    index: str,
    *,
    roots: tuple[Path, ...] = (),
    guard: AccessPolicy | None = None,
    limits: ServerLimits | None = None,
    model: str | None = None,
    observer: ServerTelemetry | None = None,
    root_path: str = "",
    coverage: CoverageReport | None = None,
    teach: bool = False,
    strips_location: bool = False,
) -> Iterator[PageClient]:
    """Serve a page within the context."""
    observer = observer or ServerTelemetry()
    connection = replace(connection, request_hooks=observer.request_hooks)
    site = ServerConfig(
        index=index,
        load_encoder=partial(load_query_encoder, index=index, model_name=model),
        roots=AllowedRoots.from_folders(roots, strips_location=strips_location),
        limits=limits or ServerLimits(),
        hooks=observer.hooks,
        extra_routes=observer.routes,
        root_path=root_path,
        coverage=coverage,
        teach=teach,
    )
    with bind_socket("127.0.0.1", 0) as (listener, port), Cluster(connection) as cluster, ExitStack() as stack:
        page = PageClient(port=port)
        stack.enter_context(forward_messages(page.messages.append))
        stack.enter_context(_run_app(observer.wrap_app(create_app(site, cluster, guard or AccessPolicy(), port)), listener))
        yield page


@contextmanager
def serve_encoder(
    target: EncodingTarget | Callable[[], EncodingTarget],
    *,
    guard: AccessPolicy | None = None,
    root_path: str = "",
    connection: Connection | None = None,
    write_indices: Sequence[str] = (),
    allow_private_urls: bool = False,
    **limits: Any,  # noqa: ANN401
) -> Iterator[PageClient]:
    """Serve an encoder with its metrics within the context; `limits` are fields of `BatchLimits` and `ServerLimits`."""
    batch_names = {each.name for each in fields(BatchLimits)}
    with bind_socket("127.0.0.1", 0) as (listener, port), open_server_telemetry(metrics=True) as observer, ExitStack() as stack:
        get_target = target if callable(target) else lambda: target
        encoder = get_target().encoder
        opening = open_live_indices(connection, write_indices, ModelSpec(name=encoder.card.name), encoder)
        config = EncoderConfig(
            get_target=get_target,
            connection=connection,
            write_indices=stack.enter_context(opening),
            allow_private_urls=allow_private_urls,
            batch_limits=BatchLimits(**{name: value for name, value in limits.items() if name in batch_names}),
            limits=ServerLimits(**{name: value for name, value in limits.items() if name not in batch_names}),
            root_path=root_path,
            hooks=observer.hooks,
            extra_routes=observer.routes,
        )
        client = PageClient(port=port)
        stack.enter_context(forward_messages(client.messages.append))
        app = create_encoder_app(config, guard or AccessPolicy(bearer_only=True), port)
        stack.enter_context(_run_app(observer.wrap_app(app), listener))
        yield client


@contextmanager
def _run_app(app: ASGIApp, listener: socket.socket) -> Iterator[None]:
    started = threading.Event()
    server = create_server(app, started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        if not started.wait(_TIMEOUT_S):
            raise TimeoutError("the server doesn't start")
        yield
    finally:
        server.should_exit = True
        thread.join()
