"""Files that may be shown: those of `file:` URIs which lie, links followed, below a folder that the operator named."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stair_es.errors import UsageError
from stair_es.sources.paths import path_of

_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, kw_only=True)
class Original:
    """A file as it was read."""

    key: tuple[str, int, int]
    """Its path, and what changes with its bytes."""
    data: bytes


@dataclass(frozen=True)
class Roots:
    """Folders, links in them resolved. Build it with `of`."""

    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Roots:
        """The roots of folders as people name them.

        Raises:
            UsageError: One is no folder.
        """
        resolved = []
        for folder in folders:
            try:
                found = folder.expanduser().resolve(strict=True)
            except (OSError, RuntimeError, ValueError) as error:
                raise UsageError(f"no folder {str(folder)!r}: {error}", "Name the folder that the images are in.") from None
            if not found.is_dir():
                raise UsageError(f"{str(folder)!r} is no folder", "Name the folder that the images are in.")
            resolved.append(found)
        return cls(tuple(resolved))

    def __bool__(self) -> bool:
        return bool(self.folders)

    def hold(self, uri: str) -> bool:
        """Whether there is a file at a URI that may be shown, so far as its place tells."""
        return self._allowed(uri) is not None

    def read(self, uri: str, most: int) -> Original | None:
        """The file at a URI; None if there is none that may be shown, for whatever reason.

        Args:
            uri: What a document says.
            most: Larger files are none.
        """
        found = self._allowed(uri)
        if found is None:
            return None
        folder, path = found
        try:
            handle = opened(folder, path)
            with os.fdopen(handle, "rb") as file:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                    return None
                data = file.read(most + 1)
        except OSError:
            return None
        return Original(key=(str(path), status.st_mtime_ns, status.st_size), data=data) if len(data) <= most else None

    def _allowed(self, uri: str) -> tuple[Path, Path] | None:
        """The folder that a file is below, and its path without links."""
        if not self.folders:
            return None
        try:
            parts = urlsplit(uri)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                return None
            path = path_of(uri).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a NUL
            return None
        return next(((folder, path) for folder in self.folders if path.is_relative_to(folder)), None)


def opened(folder: Path, path: Path) -> int:
    """The file, reached step by step, so that a link which was put into the way meanwhile leads nowhere.

    Raises:
        OSError: There is one, or no such file.
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
