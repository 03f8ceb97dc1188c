"""Original files: `file:` URIs whose path, with links resolved, is below an allowed folder, and their downloads."""

from __future__ import annotations

import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast
from urllib.parse import quote, urlsplit

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stair_es.errors import UsageError
from stair_es.sources.image.pages import render_numbered_page
from stair_es.sources.image.pillow import open_image
from stair_es.sources.image.strip import strip_location
from stair_es.sources.io.uris import from_file_uri, split_image_uri, split_page_uri
from stair_es.web.errors import RequestRejected

FileKey: TypeAlias = tuple[str, int, int]
"""Path, modification time (ns) and size."""
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # the last is of Windows, which lacks the others
    _OPEN_FLAGS |= getattr(os, _flag, 0)


@dataclass(frozen=True, kw_only=True)
class OriginalFile:
    """The content of a file."""

    key: FileKey
    data: bytes


@dataclass(frozen=True)
class AllowedRoots:
    """Folders whose files may be shown, with links resolved. Create it with `from_folders`."""

    folders: tuple[Path, ...] = ()
    strips_location: bool = False
    """Whether downloads leave out where a photo was taken."""

    @classmethod
    def from_folders(cls, folders: Sequence[Path], *, strips_location: bool = False) -> AllowedRoots:
        """Create from folders as named by the user.

        Raises:
            UsageError: If one is not a folder.
        """
        resolved = []
        for folder in folders:
            try:
                path = folder.expanduser().resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(
                    f"no folder {str(folder)!r}: {error}", "Specify the folder that contains the images.", code="no-such-folder"
                ) from None
            if not path.is_dir():
                raise UsageError(
                    f"{str(folder)!r} is not a folder", "Specify the folder that contains the images.", code="not-a-folder"
                )
            resolved.append(path)
        return cls(tuple(resolved), strips_location)

    def __bool__(self) -> bool:
        return bool(self.folders)

    def contains(self, uri: str) -> bool:
        """Check whether a URI leads to an existing path below an allowed folder."""
        return self._resolve_allowed(uri) is not None

    def read(self, uri: str, max_bytes: int) -> OriginalFile | None:
        """Read the file at a URI; None if it doesn't exist or may not be shown."""
        opened = self.open(uri, max_bytes)
        if opened is None:
            return None
        file, key = opened
        with file:
            try:
                data = file.read(max_bytes + 1)
            except OSError:
                return None
        return OriginalFile(key=key, data=data) if len(data) <= max_bytes else None

    def open(self, uri: str, max_bytes: int) -> tuple[BinaryIO, FileKey] | None:
        """Open the file at a URI, to be closed by the caller; None if it doesn't exist, is too large or may not be shown."""
        resolved = self._resolve_allowed(uri)
        if resolved is None:
            return None
        folder, path = resolved
        try:
            file = os.fdopen(open_beneath(folder, path), "rb")
        except OSError:
            return None
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size <= max_bytes:
            return file, (str(path), status.st_mtime_ns, status.st_size)
        file.close()
        return None

    def _resolve_allowed(self, uri: str) -> tuple[Path, Path] | None:
        """Return the allowed folder that contains a file, and the file's path without links."""
        if not self.folders:
            return None
        try:
            uri, _ = split_page_uri(uri)
            parts = urlsplit(uri)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                return None
            path = from_file_uri(uri).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a NUL character
            return None
        return next(((folder, path) for folder in self.folders if path.is_relative_to(folder)), None)


def open_beneath(folder: Path, path: Path) -> int:
    """Open a file component by component without following links, so that a link created concurrently can't escape.

    Raises:
        OSError: If a component is a link, or the file doesn't exist.
    """
    if os.open not in os.supports_dir_fd:
        return os.open(path, _OPEN_FLAGS)
    descriptor = os.open(folder, _OPEN_FLAGS)
    for part in path.relative_to(folder).parts:
        try:
            child = os.open(part, _OPEN_FLAGS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = child
    return descriptor


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
    """The answer with a file as it is, which the browser never shows within the page's origin.

    The file is closed even if the visitor leaves before its first part.
    """

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


def open_download(roots: AllowedRoots, uri: str, max_bytes: int, max_pixels: int) -> Download | None:
    """Open the file at a URI for a download; None if there is no such file, it may not be shown, or it isn't an image.

    For a page it is the whole document. Only images and documents can be downloaded: writers of the index choose the URI, and
    must not get other files below a root.

    Raises:
        RequestRejected: If it is to be sent without where it was taken, and that can't be removed.
    """
    opened = roots.open(uri, max_bytes)
    if opened is None:
        return None
    file, _ = opened
    try:
        data = file.read()
        document, page = split_page_uri(uri)
        if page is None:
            open_image(data, max_pixels).close()
        else:
            render_numbered_page(data, page, max_pixels)
        stripped = strip_location(data, max_pixels) if roots.strips_location else data
        file.seek(0)
    except Exception:  # noqa: BLE001  decoders raise anything on hostile bytes
        file.close()
        return None
    if stripped is not data:
        file.close()
        file = _store_temporarily(stripped)
    return Download(name=build_file_name(document), size_bytes=len(data), file=file)


def _store_temporarily(data: bytes | None) -> BinaryIO:
    """Store the bytes of a changed file, which mustn't stay in memory while they are sent."""
    if data is None:
        raise RequestRejected(
            403,
            "where this file was taken can't be removed from it, so it isn't sent",
            "Open the picture instead of downloading it.",
            code="location-not-removable",
        )
    file = tempfile.TemporaryFile()  # noqa: SIM115  closed by the response
    file.write(data)
    file.seek(0)
    return cast("BinaryIO", file)


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
