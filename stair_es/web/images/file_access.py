"""Access to original files: `file:` URIs whose path, with links resolved, is below an allowed folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stair_es.errors import UsageError
from stair_es.sources.io.uris import from_file_uri

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, kw_only=True)
class OriginalFile:
    """The content of a file."""

    key: tuple[str, int, int]
    """Path, modification time (ns) and size."""
    data: bytes


@dataclass(frozen=True)
class AllowedRoots:
    """Folders whose files may be shown, with links resolved. Create it with `from_folders`."""

    folders: tuple[Path, ...] = ()

    @classmethod
    def from_folders(cls, folders: Sequence[Path]) -> AllowedRoots:
        """Create from folders as named by the user.

        Raises:
            UsageError: If one is not a folder.
        """
        resolved = []
        for folder in folders:
            try:
                found = folder.expanduser().resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(f"no folder {str(folder)!r}: {error}", "Specify the folder that contains the images.") from None
            if not found.is_dir():
                raise UsageError(f"{str(folder)!r} is not a folder", "Specify the folder that contains the images.")
            resolved.append(found)
        return cls(tuple(resolved))

    def __bool__(self) -> bool:
        return bool(self.folders)

    def contains(self, uri: str) -> bool:
        """Check whether a URI leads to an existing path below an allowed folder."""
        return self._resolve_allowed(uri) is not None

    def read(self, uri: str, max_bytes: int) -> OriginalFile | None:
        """Read the file at a URI; None if it doesn't exist or may not be shown.

        Args:
            uri: The URI of a document (untrusted).
            max_bytes: The maximum size, in bytes.
        """
        found = self._resolve_allowed(uri)
        if found is None:
            return None
        folder, path = found
        try:
            handle = open_beneath(folder, path)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
                    return None
                data = file.read(max_bytes + 1)
        except OSError:
            return None
        return OriginalFile(key=(str(path), status.st_mtime_ns, status.st_size), data=data) if len(data) <= max_bytes else None

    def _resolve_allowed(self, uri: str) -> tuple[Path, Path] | None:
        """Return the allowed folder that contains a file, and the file's path without links."""
        if not self.folders:
            return None
        try:
            parts = urlsplit(uri)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                return None
            path = from_file_uri(uri).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a NUL character
            return None
        return next(((folder, path) for folder in self.folders if path.is_relative_to(folder)), None)


def open_beneath(folder: Path, path: Path) -> int:
    """Open a file component by component without following links, so that a link created concurrently can't escape.

    Args:
        folder: The allowed folder.
        path: The file, below `folder`.

    Returns:
        A file descriptor.

    Raises:
        OSError: If a component is a link, or the file doesn't exist.
    """
    if os.open not in os.supports_dir_fd:
        return os.open(path, _FLAGS)
    handle = os.open(folder, _FLAGS)
    for part in path.relative_to(folder).parts:
        try:
            below = os.open(part, _FLAGS, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    return handle
