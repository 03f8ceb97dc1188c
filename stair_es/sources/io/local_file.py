"""Locators of local files and of bytes in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from stair_es.errors import ReadError
from stair_es.sources.base import ReadLimits, ReadResult
from stair_es.sources.io.uris import format_modification_time, get_file_version, open_regular
from stair_es.sources.limits import check_size
from stair_es.types import Json


@dataclass(frozen=True)
class FileLocator:
    """A local file."""

    uri: str

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the file's bytes, or None if its version is still `known_version`."""
        try:
            with open_regular(self.uri) as file:
                status = os.fstat(file.fileno())
                version = get_file_version(status)
                if known_version is not None and version == known_version:
                    return None
                check_size(status.st_size, limits.max_bytes)
                data = file.read(limits.max_bytes + 1)
        except OSError as error:
            raise ReadError(f"can't be read: {error.strerror or error}", code="file-unreadable") from error
        check_size(len(data), limits.max_bytes)
        return ReadResult(data, version, format_modification_time(status.st_mtime))

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`."""
        return {"kind": "file", "uri": self.uri}


@dataclass(frozen=True)
class InlineBytes:
    """Bytes already in memory, because their source cannot be read again."""

    data: bytes = field(repr=False)
    modified_at: str | None = None

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the bytes."""
        check_size(len(self.data), limits.max_bytes)
        return ReadResult(self.data, modified_at=self.modified_at)

    def to_json(self) -> dict[str, Json] | None:
        """Return None: the bytes exist only in memory."""
        return None
