"""Locators of an object in a store that fsspec supports, and of a byte range of one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from stair_es.errors import ReadError
from stair_es.sources.base import ReadLimits, ReadResult
from stair_es.sources.io.remote import (
    get_modification_time,
    get_object_version,
    open_file_system,
    strip_credentials,
    translate_store_errors,
)
from stair_es.sources.io.uris import get_file_version, open_regular
from stair_es.sources.limits import check_size
from stair_es.types import Json


@dataclass(frozen=True)
class ObjectLocator:
    """An object by its URL."""

    uri: str
    """URI without password and signature."""
    size: int | None = None
    """Size from the listing; None to request it first."""
    secret_url: str | None = field(default=None, repr=False)
    """The URL with credentials, if it has any: for workers, never written to a file."""
    modified_at: str | None = None

    @classmethod
    def from_url(cls, url: str, size: int | None = None, modified_at: str | None = None) -> ObjectLocator:
        """Create it from a URL, with the credentials stored separately."""
        uri = strip_credentials(url)
        return cls(uri, size, url if url != uri else None, modified_at)

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the object's bytes, or None if its version is still `known_version`."""
        with translate_store_errors():
            fs, path = open_file_system(self.secret_url or self.uri)
            size, version, modified_at = self.size, None, self.modified_at
            if size is None or known_version is not None:
                info = fs.info(path)
                size, version, modified_at = info.get("size"), get_object_version(info), get_modification_time(info)
                if known_version is not None and version == known_version:
                    return None
            check_size(size or 0, limits.max_bytes)
            # the range keeps an object that grew since the listing out of memory; an empty object has no range
            data = bytes(fs.cat_file(path, start=0, end=limits.max_bytes + 1) if size else fs.cat_file(path))
        check_size(len(data), limits.max_bytes)
        return ReadResult(data, version, modified_at)

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`."""
        return {"kind": "object", "uri": self.uri, "size": self.size, "modified_at": self.modified_at}


@dataclass(frozen=True)
class TarMemberLocator:
    """A byte range of a file or an object: a member of an uncompressed tar."""

    uri: str
    """URI of the tar, without password and signature."""
    offset: int
    size: int
    version: str | None = None
    """Version of the tar when it was listed: with another version the range would be a different image."""
    secret_url: str | None = field(default=None, repr=False)
    modified_at: str | None = None

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the member's bytes."""
        check_size(self.size, limits.max_bytes)
        with translate_store_errors():
            data = self._read_local() if self.uri.startswith("file://") else self._read_remote()
        if len(data) > self.size:
            raise ReadError(
                "the server doesn't support range requests: copy the tar here, or to an object store", code="no-range-requests"
            )
        if len(data) < self.size:
            raise ReadError(f"truncated: only {len(data)} of {self.size} bytes are available", code="file-truncated")
        return ReadResult(data, modified_at=self.modified_at)

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`."""
        value: dict[str, Json] = {"kind": "member", "uri": self.uri, "offset": self.offset, "size": self.size}
        return {**value, "version": self.version, "modified_at": self.modified_at}

    def _read_local(self) -> bytes:
        with open_regular(self.uri) as file:
            if self.version is not None and get_file_version(os.fstat(file.fileno())) != self.version:
                raise ReadError("the file that contains it has changed since it was listed", code="file-changed")
            file.seek(self.offset)
            return file.read(self.size)

    def _read_remote(self) -> bytes:
        fs, path = open_file_system(self.secret_url or self.uri)
        if self.size == 0:
            return b""
        return bytes(fs.cat_file(path, start=self.offset, end=self.offset + self.size))
