"""Tables and tars on servers that refuse them: error messages without the secrets of URLs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stair_es.errors import SourceError
from stair_es.sources.base import ListingFailure
from stair_es.sources.registry import open_source


class _RefusingHandler(BaseHTTPRequestHandler):
    """Lists the files below /there and gives none of them."""

    def do_HEAD(self) -> None:
        self._answer(200 if self.path.startswith("/there") else 403, "5000")

    def do_GET(self) -> None:
        self._answer(403, "0")

    def _answer(self, status: int, length: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", length)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _RefusingHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.jsonl", "x.csv", "x.txt"])
@pytest.mark.parametrize("folder", ["there", "refused"])
def test_a_denied_file_is_reported_without_login_and_signature(host: str, folder: str, name: str) -> None:
    source = open_source(f"http://user:hunter2@{host}/{folder}/{name}?X-Amz-Signature=hunter3")
    if folder == "there":
        [unlisted] = source.list_items()
        assert isinstance(unlisted, ListingFailure)
        text = repr(unlisted)
    else:
        with pytest.raises(SourceError) as refused:
            list(source.list_items())
        text = repr(refused.value)
    assert "403" in text
    assert host in text
    assert not [secret for secret in ("hunter2", "hunter3") if secret in text]


def test_missing_server_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SourceError, match=f"ftp://user@127.0.0.1:{port}/x can't be listed") as refused:
        list(open_source(f"ftp://user:hunter2@127.0.0.1:{port}/x").list_items())
    assert "hunter2" not in str(refused.value)
