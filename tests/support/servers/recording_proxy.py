"""An HTTP server in front of a search node, with or without TLS: it looks at each request, answers it itself or passes it on.

::

    with RecordingProxy(node_url, tls=context, gate=lambda request: None) as proxy:
        ...  # proxy.url; proxy.requests

A request that asks for all indices, since its path names none (`/_alias/photos`), is refused whatever the gate says: OpenSearch's
security plugin refuses it to whoever may use some indices only. Those that the project sends without an index, since there is no
other way, are listed below; all others are refused.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_TIMEOUT_S = 30.0
_WITHOUT_INDEX = re.compile(
    r"/("
    r"_nodes/(_local|plugins|stats/fs)"
    r"|_cluster/(allocation/explain|health|settings)"
    r"|_aliases"  # names its indices in the body
    r"|_search/scroll|_tasks(/[^/]+(/_cancel)?)?|_script_language"  # token policies
    r"|_scripts/[^/]+"  # search templates
    r"|_security/user/_has_privileges"
    r")"
)
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True, kw_only=True)
class RecordedRequest:
    """A received request."""

    method: str
    target: str
    """Path and query, as on the wire."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes


@dataclass(frozen=True, kw_only=True)
class StubResponse:
    """A response in place of the node's."""

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


Gate = Callable[[RecordedRequest], StubResponse | None]
Rewrite = Callable[[RecordedRequest, StubResponse], StubResponse]


def is_refused(target: str) -> bool:
    """Return whether a path names all indices, or no index although it could."""
    path = unquote(urlsplit(target).path)
    first = path.split("/")[1] if path.startswith("/") else ""
    if first.startswith("_"):
        return _WITHOUT_INDEX.fullmatch(path) is None
    return not {"*", "_all"}.isdisjoint(first.split(","))


def _build_refusal(request: RecordedRequest) -> StubResponse:
    reason = f"no permissions for {request.method} {urlsplit(request.target).path}, which names no index"
    error = {"type": "security_exception", "reason": reason, "root_cause": [{"type": "security_exception", "reason": reason}]}
    return StubResponse(status=403, body=json.dumps({"error": error, "status": 403}).encode())


class RecordingProxy(ThreadingHTTPServer):
    """`node_url` may be None if the gate answers all. `kill` is a crash: the port is closed, and so is what was open."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        node_url: str | None,
        *,
        tls: ssl.SSLContext | None = None,
        gate: Gate = lambda _: None,
        rewrite: Rewrite = lambda _, response: response,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node_url, self.tls, self.gate, self.rewrite = node_url, tls, gate, rewrite
        self.requests: list[RecordedRequest] = []
        self._open: set[Any] = set()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.tls else 'http'}://localhost:{self.server_address[1]}"

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as the standard library has it
        """Runs in the thread of this connection, so a slow handshake holds nobody up."""
        request.settimeout(_TIMEOUT_S)
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                return
        self._open.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            if self.tls is not None:
                request.close()  # wrapping has detached the socket that the server would close

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Clients that leave are part of the tests."""

    def kill(self) -> None:
        """Close the port and all connections, like a crash."""
        self.shutdown()
        self.server_close()
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(2)

    def __exit__(self, *_error: object) -> None:
        self.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RecordingProxy

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _serve_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = RecordedRequest(method=self.command, target=self.path, headers=headers, body=body)
        self.server.requests.append(request)
        response = (
            _build_refusal(request)
            if is_refused(request.target)
            else self.server.gate(request) or self.server.rewrite(request, self._forward_request(request))
        )
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _forward_request(self, request: RecordedRequest) -> StubResponse:
        connection = http.client.HTTPConnection(urlsplit(self.server.node_url or "").netloc, timeout=_TIMEOUT_S)
        try:
            headers_sent = {
                name: value for name, value in request.headers.items() if name not in {*_HOP, "authorization", "host"}
            }
            connection.request(request.method, request.target, request.body, headers_sent)
            response = connection.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
            return StubResponse(status=response.status, body=response.read(), headers=headers)
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve_request
