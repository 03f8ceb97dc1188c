"""A reverse proxy that shows a server below a path, as nginx, Caddy or Traefik do: with the path kept or stripped.

::

    with PathProxy(server_url, "/images", strip=True) as proxy:
        ...  # proxy.url ends in /images; proxy.strays are requests for anything else
"""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_TIMEOUT_S = 30.0
_HOP = {"connection", "transfer-encoding", "keep-alive"}


class PathProxy(ThreadingHTTPServer):
    """What lies outside the path isn't the server's: it gets 404, as from the proxy's other sites."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, server_url: str, prefix: str, *, strip: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.prefix, self.strip = urlsplit(server_url).netloc, prefix, strip
        self.strays: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where the server is shown, without a slash at its end."""
        return f"http://localhost:{self.server_address[1]}{self.prefix}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Browsers leave when they like."""

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PathProxy

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _serve_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        proxy = self.server
        path = urlsplit(self.path).path
        if path != proxy.prefix and not path.startswith(f"{proxy.prefix}/"):
            proxy.strays.append(self.path)
            self.send_error(404)
            return
        target = self.path.removeprefix(proxy.prefix) if proxy.strip else self.path
        connection = http.client.HTTPConnection(proxy.upstream, timeout=_TIMEOUT_S)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, target if target.startswith("/") else f"/{target}", body, headers)
            response = connection.getresponse()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.read())
        finally:
            connection.close()

    do_GET = do_POST = do_HEAD = _serve_request
