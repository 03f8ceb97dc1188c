"""Access to original files: `file:` URIs whose path, with links resolved, is below an allowed folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import urlsplit

from stair_es.errors import UsageError
from stair_es.sources.io.uris import from_file_uri

FileKey: TypeAlias = tuple[str, int, int]
"""Path, modification time (ns) and size."""
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, kw_only=True)
class OriginalFile:
    """The content of a file."""

    key: FileKey
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
                path = folder.expanduser().resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(f"no folder {str(folder)!r}: {error}", "Specify the folder that contains the images.") from None
            if not path.is_dir():
                raise UsageError(f"{str(folder)!r} is not a folder", "Specify the folder that contains the images.")
            resolved.append(path)
        return cls(tuple(resolved))

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
            parts = urlsplit(uri)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                return None
            path = from_file_uri(uri).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # missing, a loop of links, a NUL character
            return None
        return next(((folder, path) for folder in self.folders if path.is_relative_to(folder)), None)


def open_beneath(folder: Path, path: Path) -> int:
    """Open a file component by component without following links, so that a link created concurrently can't escape.

    Returns:
        A file descriptor.

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
