"""The source kind `zip`: the images inside a .zip archive, read without unpacking it.

It shows three things: the listing yields one item after another, the locator is a small value that reads the bytes on
whichever worker receives it, and the version comes from the table of contents, so that a rerun reads no unchanged image.
"""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from stair_es.api import ListingFailure, ReadError, ReadLimits, ReadResult, Source, SourceItem, SourceOptions, UsageError

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".bmp"})


class ZipKind:
    """See `SourceKind`. `api_version` is the API that it was written for: stair-es rejects a plugin for another one."""

    api_version = 1
    name = "zip"
    description = "images inside a .zip archive on this machine"

    def can_open(self, argument: str) -> bool:
        """Judge by the text only: this is called for every SOURCE of every run, so it opens nothing."""
        return argument.lower().endswith(".zip") and "://" not in argument

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source; nothing is read yet."""
        path = Path(argument).absolute()
        if not path.is_file():
            raise UsageError(f"no such file: {argument!r}", "Give the path of a .zip archive.")
        return ZipSource(path)


class ZipSource:
    """See `Source`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = path.as_uri()
        self.ignored: Counter[str] = Counter()

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the images, in the archive's order."""
        try:
            archive = zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(f"can't list {self._path}: {error}", "Is it a .zip archive?") from error
        with archive:
            for member in archive.infolist():
                suffix = PurePosixPath(member.filename).suffix.lower()
                if suffix in _SUFFIXES:
                    # The URI is the identity of the image: the same in the next run, and never with a credential in it.
                    uri = f"{self.uri}!/{quote(member.filename)}"
                    yield SourceItem(uri, self.uri, ZipMember(str(self._path), member.filename), _build_version(member))
                elif not member.is_dir():
                    self.ignored[suffix] += 1


@dataclass(frozen=True)
class ZipMember:
    """The locator of one image. It is pickled to workers: path and name travel, the open archive doesn't."""

    archive: str
    name: str

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """See `Locator.read`. A problem of one image is a ReadError: that image fails, the run continues."""
        try:
            status = Path(self.archive).stat()
            archive = _open_archive(self.archive, status.st_mtime_ns, status.st_size)
            member = archive.getinfo(self.name)
            version = _build_version(member)
            if version == known_version:
                return None
            if member.file_size > limits.max_bytes:
                raise ReadError(f"{member.file_size} bytes exceed the limit of {limits.max_bytes}")
            return ReadResult(archive.read(member), version)
        except KeyError as error:
            raise ReadError("it isn't in the archive any more") from error
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            raise ReadError(f"can't be read: {error}") from error

    def to_json(self) -> None:
        """Return None: `ingest --retry-failed` can't restore this locator, and advises to ingest the archive again."""


def _build_version(member: zipfile.ZipInfo) -> str:
    return f"{member.CRC:08x}-{member.file_size}"


@lru_cache(maxsize=4)
def _open_archive(path: str, mtime_ns: int, size: int) -> zipfile.ZipFile:
    """Return the open archive, one per process: reading its table of contents for every image would take longer than the images.

    An archive that was replaced has another time or size, and is opened again. Several threads may read a ZipFile concurrently.
    """
    return zipfile.ZipFile(path)


KIND = ZipKind()
