"""Tables and tars on servers that refuse them: errors without the secrets of URLs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.errors import expect_error

from stair_es.errors import SourceError
from stair_es.sources.base import ListingFailure
from stair_es.sources.registry import open_source


class _RefusingHandler(BaseHTTPRequestHandler):
    """Lists the files below /there and gives none of them."""

    def do_HEAD(self) -> None:
        self._send_head(200 if self.path.startswith("/there") else 403, "5000")

    def do_GET(self) -> None:
        self._send_head(403, "0")

    def _send_head(self, status: int, length: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", length)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing_host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _RefusingHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.jsonl", "x.csv", "x.txt"])
@pytest.mark.parametrize("folder", ["there", "refused"])
def test_a_denied_file_is_reported_without_login_and_signature(refusing_host: str, folder: str, name: str) -> None:
    source = open_source(f"http://user:hunter2@{refusing_host}/{folder}/{name}?X-Amz-Signature=hunter3")
    if folder == "there":
        [failure] = source.list_items()
        assert isinstance(failure, ListingFailure)
        description = repr(failure)
    else:
        with pytest.raises(SourceError) as caught:
            list(source.list_items())
        description = repr(caught.value)
    assert "403" in description
    assert refusing_host in description
    assert not [secret for secret in ("hunter2", "hunter3") if secret in description]


def test_missing_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with expect_error("listing-failed", SourceError) as caught:
        list(open_source(f"ftp://user:hunter2@127.0.0.1:{port}/x").list_items())
    assert f"ftp://user@127.0.0.1:{port}/x" in caught.value.message
    assert "hunter2" not in str(caught.value)
