"""The files of the page, read once: under addresses that change with their content, so that browsers never ask for them twice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

STATIC_DIR = Path(__file__).parent / "static"
_BASE = '<base href="/">'
_MODULE = re.compile(r"""^import\s[^;]*?["']\./([\w-]+\.js)["']""", re.MULTILINE)
_START = "main.js"
_MEDIA_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, kw_only=True)
class StaticFile:
    """The content of a file, ready to be served."""

    data: bytes
    media_type: str
    etag: str
    """Weak, since the same content is sent with and without compression."""


@dataclass(frozen=True, kw_only=True)
class PageFiles:
    """The page and its files."""

    page: StaticFile
    files: Mapping[str, StaticFile]
    """Name below `static/` -> file."""
    version: str
    """Digest of all files: `static/VERSION/NAME` never changes. Modules import each other by relative paths, so that all
    have the same version."""

    def find(self, path: str) -> tuple[StaticFile | None, bool]:
        """Find a file by its path below `static/`, with or without a version.

        Returns:
            The file, and whether the path has its version, so that it never changes.
        """
        version, _, name = path.partition("/")
        if version == self.version:
            return self.files.get(name), True
        return self.files.get(path), False


def load_page_files(root_path: str = "") -> PageFiles:
    """Read the page and its files.

    Args:
        root_path: The path of the page's root, without a slash at its end.
    """
    files = {
        path.name: _build_file(path.read_bytes(), path.suffix)
        for path in sorted(STATIC_DIR.iterdir())
        if path.suffix in _MEDIA_TYPES and path.name != "index.html"
    }
    version = hashlib.sha256("".join(name + file.etag for name, file in files.items()).encode()).hexdigest()[:12]
    html = (STATIC_DIR / "index.html").read_text(encoding="utf-8").replace("static/", f"static/{version}/")
    html = html.replace(_BASE, f'<base href="{escape(root_path)}/">')
    links = "".join(f'<link rel="modulepreload" href="static/{version}/{name}">\n' for name in list_modules(files))
    return PageFiles(page=_build_file(html.replace("</head>", f"{links}</head>").encode(), ".html"), files=files, version=version)


def list_modules(files: Mapping[str, StaticFile]) -> list[str]:
    """List the modules that the page imports, directly or not: a browser that knows them needs no round trip for each level."""
    found: dict[str, None] = {}
    pending = [_START]
    while pending:
        for name in _MODULE.findall(files[pending.pop().removeprefix("./")].data.decode()):
            if name not in found:
                found[name] = None
                pending.append(name)
    return list(found)


def _build_file(data: bytes, suffix: str) -> StaticFile:
    return StaticFile(data=data, media_type=_MEDIA_TYPES[suffix], etag=f'W/"{hashlib.sha256(data).hexdigest()[:32]}"')
