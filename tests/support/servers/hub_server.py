"""A small hub of our own on loopback, for tests: it answers what `snapshot_download` asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """`<root>/<org>/<name>` are its repositories. It answers what `snapshot_download` asks."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.root = root
        self.downloads: list[str] = []
        """Names of the files that went out."""
        self.request_paths: list[str] = []
        """The paths of all requests."""
        self.truncated: set[str] = set()
        """Names of files whose bytes stop half-way, as when a connection breaks."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubHandler(BaseHTTPRequestHandler):
    """A request."""

    server: HubServer

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(body=False)

    def do_GET(self) -> None:
        """Answer."""
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        self.server.request_paths.append(self.path)
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            folder, route = self.server.root / "/".join(parts[2:4]), parts[4] if len(parts) > 4 else ""
        else:
            folder, route = self.server.root / "/".join(parts[:2]), "file"
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        if route == "file":
            return self._file(folder / "/".join(parts[4:]), body=body)
        names = [path.relative_to(folder).as_posix() for path in files]
        if route == "tree":
            entries = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _sum(path)}
                for name, path in zip(names, files, strict=True)
            ]
            return self._send(200, json.dumps(entries).encode(), {}, body=body)
        info = {"id": "/".join(parts[2:4]), "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
        return self._send(200, json.dumps(info).encode(), {}, body=body)

    def _file(self, path: Path, *, body: bool) -> None:
        if not path.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)
        if body:
            self.server.downloads.append(path.name)
        return self._send(200, path.read_bytes(), {"ETag": f'"{_sum(path)}"'}, body=body, cut=path.name in self.server.truncated)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": SHA, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut


def _sum(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serve_hub(root: Path) -> Iterator[HubServer]:
    """Serve the repositories `root/ORG/NAME`."""
    server = HubServer(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build_environment(url: str, home: Path) -> dict[str, str]:
    """Return the environment of a process that uses the hub at `url` and the cache `home`."""
    return {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
