"""Downloads of originals: the bytes of a file as they are, never shown by the browser within the page's origin."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from starlette.responses import StreamingResponse

from stair_es.sources.image.pillow import open_image
from stair_es.sources.io.uris import split_image_uri

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from stair_es.web.images.file_access import AllowedRoots
    from stair_es.web.limits import ServerLimits

_CHUNK_BYTES = 256 * 1024
_MAX_NAME_CHARS = 200
_RESERVED = frozenset('/\\:*?"<>|')
"""Characters that can't be part of a file's name on every system."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """An open file, ready to be sent in parts: hundreds of slow visitors must not hold hundreds of files in memory."""

    name: str
    size_bytes: int
    file: BinaryIO

    def read_chunks(self) -> Iterator[bytes]:
        """Read the file in parts."""
        while chunk := self.file.read(_CHUNK_BYTES):
            yield chunk


class DownloadResponse(StreamingResponse):
    """The answer with a file; the file is closed even if the visitor leaves before its first part."""

    def __init__(self, download: Download) -> None:
        headers = {
            "content-disposition": build_content_disposition(download.name),
            "content-length": str(download.size_bytes),
        }
        super().__init__(download.read_chunks(), media_type="application/octet-stream", headers=headers)
        self._download = download

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, and close it."""
        with self._download.file:
            await super().__call__(scope, receive, send)


def open_download(roots: AllowedRoots, uri: str, limits: ServerLimits) -> Download | None:
    """Open the file at a URI for a download.

    Only images can be downloaded: writers of the index choose the URI, and must not get other files below a root.

    Args:
        roots: The folders whose files may be shown.
        uri: The URI in the document.
        limits: The limits of the server.

    Returns:
        The download; None if there is no such file, it may not be shown, or it isn't an image.
    """
    opened = roots.open(uri, limits.original_bytes)
    if opened is None:
        return None
    file, _ = opened
    try:
        data = file.read()
        open_image(data, limits.decode_limits.max_pixels).close()
        file.seek(0)
    except Exception:  # noqa: BLE001  decoders raise anything on hostile bytes
        file.close()
        return None
    return Download(name=build_file_name(uri), size_bytes=len(data), file=file)


def build_file_name(uri: str) -> str:
    """Build the name under which a browser saves the file at a URI, without control characters and characters of paths."""
    name, _ = split_image_uri(uri)
    safe = "".join(
        "_" if character in _RESERVED or unicodedata.category(character)[0] == "C" else character for character in name
    )
    stem, dot, suffix = safe.strip(" .").rpartition(".")
    return (stem[: _MAX_NAME_CHARS - len(suffix) - 1] + dot + suffix)[-_MAX_NAME_CHARS:] or "image"


def build_content_disposition(name: str) -> str:
    """Build the header that makes browsers save a file under a name (RFC 6266): in ASCII, and in UTF-8 for all others."""
    plain = "".join(character if character.isascii() and character.isprintable() else "_" for character in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
