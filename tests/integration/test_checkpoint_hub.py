"""Models by hub id, from a hub of our own on this machine: what is fetched, what isn't, and what is said when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from tiny_checkpoints import vdr_config, vdr_weights, write

from stair_es.model import catalogue

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """`<root>/<org>/<name>` are its repositories. It answers what `snapshot_download` asks."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.root = root
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Asked(BaseHTTPRequestHandler):
    """One request."""

    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, *, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            folder, inside = self.server.root / "/".join(parts[2:4]), parts[4] if len(parts) > 4 else ""
        else:
            folder, inside = self.server.root / "/".join(parts[:2]), "file"
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        if inside == "file":
            return self._file(folder / "/".join(parts[4:]), body=body)
        names = [path.relative_to(folder).as_posix() for path in files]
        if inside == "tree":
            tree = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _sum(path)}
                for name, path in zip(names, files, strict=True)
            ]
            return self._send(200, json.dumps(tree).encode(), {}, body=body)
        about = {"id": "/".join(parts[2:4]), "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
        return self._send(200, json.dumps(about).encode(), {}, body=body)

    def _file(self, path: Path, *, body: bool) -> None:
        if not path.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)
        if body:
            self.server.fetched.append(path.name)
        return self._send(200, path.read_bytes(), {"ETag": f'"{_sum(path)}"'}, body=body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": SHA, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _sum(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _resolve(name: str, hub_url: str, home: Path, **environment: str) -> dict[str, str]:
    """The card of a model as a new process sees it, or what it said. The hub's address is read when its library is imported."""
    code = (
        "import json, sys\nfrom stair_es.errors import StairError\nfrom stair_es.model import catalogue\n"
        "try:\n    card = catalogue.resolve(sys.argv[1])\n    print(json.dumps({'id': card.model_id, 'name': card.name}))\n"
        "except StairError as error:\n    print(json.dumps({'error': error.message, 'remedy': error.remedy}))\n"
    )
    given = {**os.environ, "HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True, env=given)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_repository_is_the_same_model_as_its_folder(hub: Hub, tmp_path: Path) -> None:
    folder = write(hub.root / "org" / "Tiny_VDR", vdr_config(), vdr_weights(), pickled=True)
    for name in ("run.py", "training_args.bin", "flax_model.msgpack", "README.md"):
        (folder / name).write_text("---\nlicense: mit\n---\n")
    found = _resolve("org/Tiny_VDR", hub.url, tmp_path / "home")
    assert found["name"] == "org/Tiny_VDR"
    assert set(hub.fetched) == {"config.json", "vocab.txt", "README.md", "pytorch_model.bin"}
    (folder / "run.py").unlink()  # a folder's code counts: a hub's wasn't fetched
    assert found["id"] == catalogue.resolve(str(folder)).model_id
    assert found["id"].startswith("tiny-vdr-")

    hub.fetched.clear()
    assert _resolve("org/Tiny_VDR", hub.url, tmp_path / "home") == found  # from the cache
    assert not hub.fetched
    assert _resolve("org/Tiny_VDR", "http://127.0.0.1:9", tmp_path / "home") == found  # without a network
    assert _resolve("org/Tiny_VDR", hub.url, tmp_path / "home", HF_HUB_OFFLINE="1") == found


def test_a_pickle_is_left_where_there_are_safetensors(hub: Hub, tmp_path: Path) -> None:
    folder = write(hub.root / "org" / "both", vdr_config(), vdr_weights())
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    assert _resolve("org/both", hub.url, tmp_path / "home")["id"].startswith("both-")
    assert "pytorch_model.bin" not in hub.fetched


def test_an_unknown_format_costs_no_weights(hub: Hub, tmp_path: Path) -> None:
    write(hub.root / "org" / "llama", {"model_type": "llama"}, vdr_weights())
    assert "unknown format" in _resolve("org/llama", hub.url, tmp_path / "home")["error"]
    assert "model.safetensors" not in hub.fetched


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    found = _resolve("org/none", hub.url, tmp_path / "home")
    assert "no folder 'org/none' here, and no such repository" in found["error"]
    assert "hf auth login" in found["remedy"]


def test_a_hub_out_of_reach(tmp_path: Path) -> None:
    found = _resolve("org/none", "http://127.0.0.1:9", tmp_path / "home")
    assert "the hub can't give it" in found["error"]
    assert "hf download org/none" in found["remedy"]
