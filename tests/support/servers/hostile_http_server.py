"""The page of an index, served for a test by a real server on loopback, and a client that sends exactly what it is told.

with serve_page(Connection(url=node_url), "photos") as page:
page.post("/api/search", {"text": "red car"}).json["hits"]
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.search.index_encoder import load_query_encoder
from stair_es.telemetry.server import ServerTelemetry
from stair_es.web.app import ServerConfig, create_app
from stair_es.web.auth import AccessPolicy
from stair_es.web.images.file_access import AllowedRoots
from stair_es.web.limits import ServerLimits
from stair_es.web.server import bind_socket, create_server
from support.messages import forward_messages

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
) -> Iterator[PageClient]:
    """Serve a page within the context."""
    observer = observer or ServerTelemetry()
    connection = replace(connection, request_hooks=observer.request_hooks)
    site = ServerConfig(
        index=index,
        load_encoder=partial(load_query_encoder, index=index, model_name=model),
        roots=AllowedRoots.from_folders(roots),
        limits=limits or ServerLimits(),
        hooks=observer.hooks,
        extra_routes=observer.routes,
        root_path=root_path,
    )
    started = threading.Event()
    with bind_socket("127.0.0.1", 0) as (listener, port), Cluster(connection) as cluster, ExitStack() as stack:
        page = PageClient(port=port)
        stack.enter_context(forward_messages(page.messages.append))
        app = observer.wrap_app(create_app(site, cluster, guard or AccessPolicy(), port))
        server = create_server(app, started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            if not started.wait(_TIMEOUT_S):
                raise TimeoutError("the server doesn't start")
            yield page
        finally:
            server.should_exit = True
            thread.join()
