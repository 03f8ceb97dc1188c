"""The routes: each parses a request, runs the work in a thread, and builds a response. The files of the page are read once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec import to_builtins
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from stair_es.web.config import ServerConfig
from stair_es.web.errors import RequestRejected
from stair_es.web.hooks import ROUTE_PATTERN_KEY
from stair_es.web.originals import DownloadResponse
from stair_es.web.request_body import BodyReader, check_json_type, get_media_type
from stair_es.web.search.params import parse_search_params
from stair_es.web.search.serializers import LARGE_THUMBNAIL_PX, encode_json
from stair_es.web.search.service import SearchService
from stair_es.web.search.teaching import TeachingService, parse_forget_params, parse_teach_params
from stair_es.web.thumbnails import ServedFile, ThumbnailService

ParamsT = TypeVar("ParamsT")

STATIC_DIR = Path(__file__).parent / "static"
_BASE = '<base href="/">'
_MODULE = re.compile(r"""^import\s[^;]*?["']\./([\w-]+\.js)["']""", re.MULTILINE)
_DOC_COMMENTS = re.compile(rb"/\*\*.*?\*/", re.DOTALL)
"""Comments in a module that describe what follows, and have the types that `make lint` checks: a sixth of its bytes. The
pattern doesn't know strings and other comments; a test checks that none has `/**`."""
_START = "main.js"
_MEDIA_TYPES = {
    ".js": "text/javascript",
    ".json": "application/json",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
}
_IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
_REVALIDATE = {"cache-control": "private, no-cache"}
_NO_CACHE = {"cache-control": "no-cache"}
_INLINE = {"content-disposition": "inline"}
_MAX_NEIGHBORS = 100
_COMPRESSED = (Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),)
"""Middleware of the routes that send text. Images are compressed already, and below 1,000 bytes there is nothing to gain."""


@dataclass(frozen=True, kw_only=True)
class PageFiles:
    """The page and its files, under addresses that change with their content: browsers never ask for one twice."""

    page: ServedFile
    files: Mapping[str, ServedFile]
    """Name below `static/` -> file."""
    version: str
    """Digest of all files: `static/VERSION/NAME` never changes. Modules import each other by relative paths, so that all
    have the same version."""

    def find(self, path: str) -> tuple[ServedFile | None, bool]:
        """Find a file by its path below `static/`; also tell whether the path has its version, so that it never changes."""
        version, _, name = path.partition("/")
        if version == self.version:
            return self.files.get(name), True
        return self.files.get(path), False


def load_page_files(root_path: str = "") -> PageFiles:
    """Read the page and its files; `root_path` is that of the page, without a slash at its end."""
    files = {
        path.name: _build_file(_read_file(path), path.suffix)
        for path in sorted(STATIC_DIR.iterdir())
        if path.suffix in _MEDIA_TYPES and path.name != "index.html"
    }
    version = hashlib.sha256("".join(name + file.etag for name, file in files.items()).encode()).hexdigest()[:12]
    html = (STATIC_DIR / "index.html").read_text(encoding="utf-8").replace("static/", f"static/{version}/")
    html = html.replace(_BASE, f'<base href="{escape(root_path)}/">')
    links = "".join(f'<link rel="modulepreload" href="static/{version}/{name}">\n' for name in list_modules(files))
    return PageFiles(page=_build_file(html.replace("</head>", f"{links}</head>").encode(), ".html"), files=files, version=version)


def list_modules(files: Mapping[str, ServedFile]) -> list[str]:
    """List the modules that the page imports, directly or not: a browser that knows them needs no round trip for each level."""
    found: dict[str, None] = {}
    pending = [_START]
    while pending:
        for name in _MODULE.findall(files[pending.pop().removeprefix("./")].data.decode()):
            if name not in found:
                found[name] = None
                pending.append(name)
    return list(found)


def _read_file(path: Path) -> bytes:
    """Read a file of the page. A module loses its doc comments, but no line: the lines of its errors are those of the source."""
    data = path.read_bytes()
    return _DOC_COMMENTS.sub(lambda found: b"\n" * found[0].count(b"\n"), data) if path.suffix == ".js" else data


def _build_file(data: bytes, suffix: str) -> ServedFile:
    return ServedFile(data=data, media_type=_MEDIA_TYPES[suffix], etag=f'W/"{hashlib.sha256(data).hexdigest()[:32]}"')


class PatternRoute(Route):
    """A route that stores its path pattern in the scope, for telemetry."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a scope, and add the path pattern to it."""
        match, child_scope = super().matches(scope)
        return match, {**child_scope, ROUTE_PATTERN_KEY: self.path.replace(":path", "")}


class PageRoutes:
    """The routes of the page and its API."""

    def __init__(
        self, config: ServerConfig, service: SearchService, thumbnails: ThumbnailService, teaching: TeachingService | None
    ) -> None:
        self._limits, self._hooks, self._service, self._thumbnails = config.limits, config.hooks, service, thumbnails
        self._teaching = teaching
        self._files, self._body_reader = load_page_files(config.root_path), BodyReader(config.limits)
        self._coverage = _build_file(encode_json(to_builtins(config.coverage)), ".json") if config.coverage else None

    def list_routes(self) -> list[Route]:
        """List the routes for the application."""
        return [
            PatternRoute("/", self._get_page, middleware=_COMPRESSED),
            PatternRoute("/compare", self._get_page, middleware=_COMPRESSED),
            PatternRoute("/coverage", self._get_page, middleware=_COMPRESSED),
            PatternRoute("/image/{id:path}", self._get_page, middleware=_COMPRESSED),
            PatternRoute("/static/{name:path}", self._get_static_file, middleware=_COMPRESSED),
            PatternRoute("/api/about", self._describe_index, middleware=_COMPRESSED),
            PatternRoute("/api/coverage", self._get_coverage, middleware=_COMPRESSED),
            PatternRoute("/api/fields/{name:path}", self._list_field_values, middleware=_COMPRESSED),
            PatternRoute("/api/search", self._handle_search, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/api/facets", self._handle_facets, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/api/image", self._handle_upload, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/api/image/{id:path}", self._get_image, middleware=_COMPRESSED),
            PatternRoute("/api/taught", self._list_taught_words, middleware=_COMPRESSED),
            PatternRoute("/api/teach", self._preview_word, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/api/teach/apply", self._teach_word, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/api/teach/forget", self._forget_word, methods=["POST"], middleware=_COMPRESSED),
            PatternRoute("/thumb/{id:path}", self._get_thumbnail),
            PatternRoute("/original/{id:path}", self._get_original),
        ]

    async def _get_page(self, request: Request) -> Response:
        return _respond_with_file(request, self._files.page, _NO_CACHE)

    async def _get_static_file(self, request: Request) -> Response:
        file, is_immutable = self._files.find(request.path_params["name"])
        if file is None:
            raise RequestRejected(404, "file not found", code="no-such-file")
        return _respond_with_file(request, file, _IMMUTABLE if is_immutable else _NO_CACHE)

    async def _describe_index(self, request: Request) -> Response:
        return await _respond_with_json(self._service.describe_index)

    async def _get_coverage(self, request: Request) -> Response:
        if self._coverage is None:
            raise RequestRejected(
                404,
                "this page has no coverage report",
                "Start the server with one: stair-es serve --coverage FILE",
                code="no-coverage-report",
            )
        return _respond_with_file(request, self._coverage, _REVALIDATE)

    async def _list_field_values(self, request: Request) -> Response:
        prefix = request.query_params.get("prefix", "")
        return await _respond_with_json(self._service.list_field_values, request.path_params["name"], prefix)

    async def _handle_search(self, request: Request) -> Response:
        return await self._respond_to_body(request, parse_search_params, self._service.search)

    async def _handle_facets(self, request: Request) -> Response:
        return await self._respond_to_body(request, parse_search_params, self._service.count_facets)

    async def _handle_upload(self, request: Request) -> Response:
        media_type = get_media_type(request)
        if not media_type.startswith("image/") or media_type.startswith("image/svg"):
            raise RequestRejected(
                415,
                f"the body is {media_type[:80] or 'untyped'!r}, not an image",
                "Send JPEG, PNG, WebP, GIF, TIFF or AVIF.",
                code="body-not-an-image",
            )
        with self._hooks.track_upload():
            async with self._body_reader(request, self._limits.upload_bytes) as body:
                return await _respond_with_json(self._service.encode_upload, body)

    async def _get_image(self, request: Request) -> Response:
        id_, rest = _parse_id(request, "/api/image/")
        if rest == "neighbors":
            return await _respond_with_json(self._service.find_neighbors, id_, _parse_k(request.query_params))
        if rest:
            raise RequestRejected(404, "page not found", code="no-such-page")
        return await _respond_with_json(self._service.get_image, id_)

    async def _list_taught_words(self, request: Request) -> Response:
        return await _respond_with_json(self._get_teaching().list_words)

    async def _preview_word(self, request: Request) -> Response:
        return await self._respond_to_body(request, parse_teach_params, self._get_teaching().preview)

    async def _teach_word(self, request: Request) -> Response:
        return await self._respond_to_body(request, parse_teach_params, self._get_teaching().apply)

    async def _forget_word(self, request: Request) -> Response:
        return await self._respond_to_body(request, parse_forget_params, self._get_teaching().forget)

    def _get_teaching(self) -> TeachingService:
        if self._teaching is None:
            raise RequestRejected(
                404, "this page teaches no words", "Start the server with: stair-es serve --teach", code="teaching-disabled"
            )
        return self._teaching

    async def _get_thumbnail(self, request: Request) -> Response:
        id_, _ = _parse_id(request, "/thumb/")
        version, px = request.query_params.get("v", ""), request.query_params.get("px")
        if px not in (None, str(LARGE_THUMBNAIL_PX)):
            raise RequestRejected(
                400, f"`px` is not {LARGE_THUMBNAIL_PX}", "Omit it for the small thumbnail.", code="invalid-thumbnail-size"
            )
        get_thumbnail = partial(self._thumbnails.get_thumbnail, id_, version, large=px is not None)
        image, is_immutable = await run_in_threadpool(get_thumbnail)
        return _respond_with_file(request, image, {**(_IMMUTABLE if is_immutable else _REVALIDATE), **_INLINE})

    async def _get_original(self, request: Request) -> Response:
        id_, _ = _parse_id(request, "/original/")
        if request.query_params.get("download"):
            return DownloadResponse(await run_in_threadpool(self._thumbnails.open_original, id_))
        original = await run_in_threadpool(self._thumbnails.get_original, id_)
        return _respond_with_file(request, original, {**_REVALIDATE, **_INLINE})

    async def _respond_to_body(
        self, request: Request, parse: Callable[[bytes], ParamsT], handle: Callable[[ParamsT], dict[str, Any]]
    ) -> Response:
        check_json_type(request)
        async with self._body_reader(request, self._limits.body_bytes) as body:
            return await _respond_with_json(handle, parse(body))


async def _respond_with_json(handle: Callable[..., dict[str, Any]], *arguments: object) -> Response:
    body = await run_in_threadpool(lambda: encode_json(handle(*arguments)))
    return Response(body, media_type="application/json")


def _respond_with_file(request: Request, file: ServedFile, headers: Mapping[str, str]) -> Response:
    headers = {"etag": file.etag, **headers}
    known_tags = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if file.etag.removeprefix("W/") not in known_tags:
        return Response(file.data, media_type=file.media_type, headers=headers)
    if file.etag.startswith("W/"):
        headers["vary"] = "Accept-Encoding"  # as the middleware adds to the file
    return Response(status_code=304, headers=headers)


def _parse_id(request: Request, prefix: str) -> tuple[str, str]:
    """Return the id in the path, and the rest of the path. Reads the raw path, where a slash in an id is %2F."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    id_, _, rest = raw.decode("latin-1").removeprefix(prefix).partition("/")
    try:
        return unquote_to_bytes(id_).decode(), rest
    except UnicodeDecodeError:
        raise RequestRejected(404, "image not found", code="no-such-image") from None


def _parse_k(query: Mapping[str, str]) -> int:
    k = query.get("k", "12")
    if not k.isascii() or not k.isdecimal() or len(k) > 4 or not 1 <= int(k) <= _MAX_NEIGHBORS:
        raise RequestRejected(400, f"`k` is not an integer from 1 to {_MAX_NEIGHBORS}", code="invalid-k")
    return int(k)
