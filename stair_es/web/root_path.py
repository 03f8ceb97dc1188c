"""The path below which a proxy shows the page, such as `/images`: requests come with it, or without if the proxy strips it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stair_es.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_SEGMENT = re.compile(r"(?!\.{1,2}$)[\w.~-]+", re.ASCII)
_OWN_SEGMENTS = frozenset(
    {
        "api",
        "compare",
        "embed",
        "embed_all",
        "embed_sparse",
        "health",
        "image",
        "info",
        "metrics",
        "original",
        "predict",
        "rerank",
        "similarity",
        "static",
        "thumb",
        "v1",
    }
)
"""First segments of the server's own paths: below one of them a stripped path would look like one that still has the prefix."""


def parse_root_path(text: str) -> str:
    """Parse a root path: return it with one slash in front and none at its end; empty for the root itself.

    Raises:
        UsageError: If it isn't a path, needs percent-encoding, or begins like a path of the server.
    """
    path = text.strip("/")
    if not path:
        return ""
    segments = path.split("/")
    if not all(map(_SEGMENT.fullmatch, segments)):
        raise UsageError(
            f"{text[:80]!r} is not a root path", "Write a path such as /images, of letters, digits and . _ ~ -, without a host."
        )
    if segments[0] in _OWN_SEGMENTS:
        raise UsageError(
            f"the root path can't begin with /{segments[0]}: the server has paths of that name", "Choose another one."
        )
    return f"/{path}"


class RootPathMiddleware:
    """ASGI middleware that strips the root path from requests that have it, so that other code sees the server's own paths."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """Wrap an application.

        Args:
            app: The application.
            root_path: As `parse_root_path` returns it.
        """
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope."""
        if scope["type"] == "http" and self._root_path:
            # Both paths or none: routes read the one, ids the other. The prefix itself is never percent-encoded.
            raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
            if raw_path == self._root_path or raw_path.startswith(f"{self._root_path}/"):
                raw_path, path = (value[len(self._root_path) :] or "/" for value in (raw_path, scope["path"]))
                scope.update(path=path, raw_path=raw_path.encode("latin-1"))  # in place: metrics read the route from it
        await self._app(scope, receive, send)
