"""A small Hugging Face hub on loopback, for tests: it serves what `snapshot_download` requests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support.servers.fault_proxy import Request, Response, start_server

SHA = "0123456789abcdef0123456789abcdef01234567"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass
class HubServer:
    """A hub with the repositories `root/ORG/NAME`."""

    root: Path
    url: str = ""
    downloads: list[str] = field(default_factory=list)
    """Names of the downloaded files."""
    request_paths: list[str] = field(default_factory=list)
    """The paths of all requests."""
    truncated: set[str] = field(default_factory=set)
    """Names of files whose bytes stop half-way, as when a connection breaks."""

    def serve_request(self, request: Request) -> Response:
        """Respond to any request, and record it."""
        self.request_paths.append(request.path)
        parts = [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]
        commit = next(filter(_COMMIT.fullmatch, parts), SHA)  # each commit has the same files
        response = self._route_request(request, parts, commit)
        return replace(response, headers={**response.headers, "X-Repo-Commit": commit})

    def _route_request(self, request: Request, parts: list[str], commit: str) -> Response:
        if parts[:2] == ["api", "models"]:
            folder, route = self.root / "/".join(parts[2:4]), parts[4] if len(parts) > 4 else ""
        else:
            folder, route = self.root / "/".join(parts[:2]), "file"
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return _build_not_found("RepoNotFound")
        if route == "file":
            return self._serve_file(folder / "/".join(parts[4:]), is_download=request.method == "GET")
        names = [path.relative_to(folder).as_posix() for path in files]
        if route == "tree":
            return Response.json(
                [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _hash_file(path)}
                    for name, path in zip(names, files, strict=True)
                ]
            )
        return Response.json({"id": "/".join(parts[2:4]), "sha": commit, "siblings": [{"rfilename": name} for name in names]})

    def _serve_file(self, path: Path, *, is_download: bool) -> Response:
        if not path.is_file():
            return _build_not_found("EntryNotFound")
        if is_download:
            self.downloads.append(path.name)
        data = path.read_bytes()
        sent = len(data) // 2 if path.name in self.truncated else None
        return Response(body=data, sent=sent, headers={"ETag": f'"{_hash_file(path)}"'})


def _build_not_found(code: str) -> Response:
    return Response(status=404, body=b"{}", headers={"X-Error-Code": code})


def _hash_file(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serve_hub(root: Path) -> Iterator[HubServer]:
    """Serve the repositories `root/ORG/NAME`."""
    hub = HubServer(root)
    with start_server(hub.serve_request) as hub.url:
        yield hub


def build_environment(url: str, home: Path) -> dict[str, str]:
    """Return the environment of a process that uses the hub at `url` and the cache `home`."""
    return {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
