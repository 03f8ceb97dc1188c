"""The routes: each parses a request, runs the work in a thread, and builds a response."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from stair_es.web.answers import encoded
from stair_es.web.asked import Asked, asked_of
from stair_es.web.faults import Refused
from stair_es.web.intake import Intake
from stair_es.web.security import ALIVE
from stair_es.web.watch import PATTERN

if TYPE_CHECKING:
    from starlette.routing import Match
    from starlette.types import Scope

    from stair_es.web.engine import Engine
    from stair_es.web.limits import Limits
    from stair_es.web.pictures import Picture
    from stair_es.web.thumbs import Thumbs
    from stair_es.web.watch import Watch

STATIC = Path(__file__).parent / "static"
_NAME = re.compile(r"(?:[\w-]+/)*[\w-]+(?:\.[\w-]+)*\.(?:js|css|svg|png|ico|webmanifest)", re.ASCII)
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "webmanifest": "application/manifest+json"}
_NEVER_CHANGES = "private, max-age=31536000, immutable"
_ASK_AGAIN = "private, no-cache"
_MAX_NEIGHBOURS = 100


class Told(Route):
    """A route that stores its path pattern in the scope, for telemetry."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a scope, and add the path pattern to it."""
        match, more = super().matches(scope)
        return match, {**more, PATTERN: self.path.replace(":path", "")}


class Routes:
    """The routes of the page and its API."""

    def __init__(self, engine: Engine, thumbs: Thumbs, limits: Limits, title: str, watch: Watch) -> None:
        """Create the routes.

        Args:
            engine: The search service.
            thumbs: The thumbnail service.
            limits: The limits of the server.
            title: The title of the page.
            watch: The telemetry hooks.
        """
        self._service, self._thumbnails, self._limits, self._title = engine, thumbs, limits, title
        self._body_reader, self._hooks = Intake(limits), watch

    def all(self) -> list[Route]:
        """List the routes for the application."""
        return [
            Told(ALIVE, self._alive),
            Told("/", self._page),
            Told("/compare", self._page),
            Told("/image/{id:path}", self._page),
            Told("/static/{name:path}", self._static),
            Told("/api/about", self._about),
            Told("/api/search", self._search, methods=["POST"]),
            Told("/api/facets", self._facets, methods=["POST"]),
            Told("/api/image", self._seen, methods=["POST"]),
            Told("/api/image/{id:path}", self._image),
            Told("/thumb/{id:path}", self._thumb),
            Told("/original/{id:path}", self._original),
        ]

    async def _alive(self, request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def _page(self, request: Request) -> Response:
        return _file(request, STATIC / "index.html", "text/html")

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        path = STATIC / name
        if not _NAME.fullmatch(name) or not path.is_file():
            raise Refused(404, "file not found")
        return _file(request, path, _TYPES.get(name.rpartition(".")[2]))

    async def _about(self, request: Request) -> Response:
        return await _json(self._service.about, self._title)

    async def _search(self, request: Request) -> Response:
        return await self._answered(request, self._service.search)

    async def _facets(self, request: Request) -> Response:
        return await self._answered(request, self._service.facets)

    async def _seen(self, request: Request) -> Response:
        kind = _media_type(request)
        if not kind.startswith("image/") or kind.startswith("image/svg"):
            raise Refused(
                415, f"the body is {kind[:80] or 'untyped'!r}, not an image", "Send JPEG, PNG, WebP, GIF, TIFF or AVIF."
            )
        with self._hooks.uploading():
            async with self._body_reader(request, self._limits.upload_bytes) as body:
                return await _json(self._service.seen, body)

    async def _image(self, request: Request) -> Response:
        id_, rest = _id(request, "/api/image/")
        if rest == "neighbours":
            return await _json(self._service.neighbours, id_, _k(request.query_params))
        if rest:
            raise Refused(404, "page not found")
        return await _json(self._service.image, id_)

    async def _thumb(self, request: Request) -> Response:
        id_, _ = _id(request, "/thumb/")
        version = request.query_params.get("v", "")
        picture, lasting = await run_in_threadpool(self._thumbnails.thumb, id_, version)
        return _picture(request, picture, _NEVER_CHANGES if lasting else _ASK_AGAIN)

    async def _original(self, request: Request) -> Response:
        id_, _ = _id(request, "/original/")
        return _picture(request, await run_in_threadpool(self._thumbnails.original, id_), _ASK_AGAIN)

    async def _answered(self, request: Request, answer: Callable[[Asked], dict[str, Any]]) -> Response:
        if _media_type(request) != "application/json":  # another site can't send this type without a CORS preflight
            raise Refused(415, "the body is not JSON", "Send it as Content-Type: application/json.")
        async with self._body_reader(request, self._limits.body_bytes) as body:
            return await _json(answer, asked_of(body))


async def _json(work: Callable[..., dict[str, Any]], *arguments: object) -> Response:
    body = await run_in_threadpool(lambda: encoded(work(*arguments)))
    return Response(body, media_type="application/json")


def _file(request: Request, path: Path, kind: str | None) -> Response:
    """Respond with a static file, which the browser revalidates each time."""
    response = FileResponse(path, media_type=kind, headers={"cache-control": "no-cache"}, stat_result=path.stat())
    headers = {name: response.headers[name] for name in ("etag", "cache-control")}
    return Response(status_code=304, headers=headers) if _has(request, headers["etag"]) else response


def _picture(request: Request, picture: Picture, caching: str) -> Response:
    headers = {"etag": picture.etag, "cache-control": caching, "content-disposition": "inline"}
    if _has(request, picture.etag):
        return Response(status_code=304, headers=headers)
    return Response(picture.data, media_type=picture.content_type, headers=headers)


def _has(request: Request, etag: str) -> bool:
    return etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]


def _id(request: Request, before: str) -> tuple[str, str]:
    """Return the id in the path, and the rest of the path. Reads the raw path, where a slash in an id is %2F."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    id_, _, rest = raw.decode("latin-1").removeprefix(before).partition("/")
    try:
        return unquote_to_bytes(id_).decode(), rest
    except UnicodeDecodeError:
        raise Refused(404, "image not found") from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _k(query: Mapping[str, str]) -> int:
    k = query.get("k", "12")
    if not k.isascii() or not k.isdecimal() or len(k) > 4 or not 1 <= int(k) <= _MAX_NEIGHBOURS:
        raise Refused(400, f"`k` is not an integer from 1 to {_MAX_NEIGHBOURS}")
    return int(k)
