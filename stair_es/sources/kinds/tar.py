"""List tars by their headers: the byte range of each member, without reading members if the tar is seekable."""

from __future__ import annotations

import gzip
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, cast

from stair_es.errors import ReadError, StairError
from stair_es.sources.base import Locator
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.io.object_store import ObjectLocator, TarMemberLocator
from stair_es.sources.io.open_file import DEFAULT_BLOCK, open_raw
from stair_es.sources.io.remote import describe_store_error
from stair_es.sources.io.uris import format_modification_time
from stair_es.sources.limits import (
    MAX_MEMBER_NAME_CHARS,
    MAX_TAR_GLOBAL_RECORDS,
    MAX_TAR_HEADER_BYTES,
    MAX_TAR_PADDING_BYTES,
    MAX_TEXT_BYTES,
    cut_name,
)

MemberKind: TypeAlias = Literal["image", "text"]
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 256
"""Longer than a file name may be. Python before 3.11.10 takes quadratic time for such a number (CVE-2024-6232)."""
_PADDING_READ = 1 << 16
_STREAM_BLOCK = 1 << 24
"""Bytes per request to an object store when a tar is read as a stream."""


@dataclass(frozen=True)
class TarMember:
    """A file in a tar."""

    name: str
    locator: Locator
    data: bytes | None


@dataclass(frozen=True)
class BrokenMember:
    """A member that cannot be read, or (without a name) the unreadable rest of a tar."""

    name: str
    reason: str


def read_tar_members(
    tar: ListedFile, max_bytes: int, find_kind: Callable[[str], MemberKind | None], *, stream: bool = False
) -> Iterator[TarMember | BrokenMember]:
    """Yield the files of a tar. A compressed tar is decompressed as a stream, with one member in memory at a time.

    Members for whose name `find_kind` returns None are not read and may have any size.

    Args:
        tar: The tar.
        max_bytes: Limit on the size of an image.
        find_kind: Returns what a member is, by its name.
        stream: Whether to read the images on the way, in one long sequential read, instead of locating them.
    """
    compressed = tar.uri.endswith((".gz", ".tgz"))
    try:
        with open_raw(tar, _STREAM_BLOCK if stream else DEFAULT_BLOCK) as file:
            limited_file = _HeaderLimitedFile(cast("BinaryIO", gzip.GzipFile(fileobj=file)) if compressed else file)
            with tarfile.open(fileobj=cast("BinaryIO", limited_file), mode="r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    limited_file.begin_member(archive, info)
                    if member := _build_member(archive, info, tar, max_bytes, find_kind, inline=compressed or stream):
                        yield member
                    limited_file.begin_header()
                if reason := limited_file.explain_end(archive.offset):
                    yield BrokenMember("", reason)
    except Exception as error:  # noqa: BLE001  tarfile, zlib and each store have their own errors
        reason = error.message if isinstance(error, StairError) else describe_store_error(error)
        yield BrokenMember("", f"the rest of the tar can't be read: {reason}")


class _HeaderLimitedFile:
    """The file of a tar with a limit on headers: tarfile reads extended headers completely, whatever their declared length."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._remaining = MAX_TAR_HEADER_BYTES
        self._last = b""
        self.seek, self.tell = file.seek, file.tell

    def begin_header(self) -> None:
        self._remaining = MAX_TAR_HEADER_BYTES

    def begin_member(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        """Expect the bytes of a member.

        Raises:
            ReadError: If there are too many global headers, or the next member starts before this one.
        """
        if archive.offset <= info.offset:
            raise ReadError(f"a member of {info.size} bytes at byte {info.offset}", code="tar-header-invalid")
        if len(archive.pax_headers) > MAX_TAR_GLOBAL_RECORDS:
            raise ReadError(f"more than {MAX_TAR_GLOBAL_RECORDS} global pax records", code="tar-header-limit")
        self._remaining = sys.maxsize

    def read(self, size: int) -> bytes:
        """Read for tarfile, within the limit on headers."""
        if size > self._remaining:
            raise ReadError(f"the headers of one member have more than {MAX_TAR_HEADER_BYTES:,} bytes", code="tar-header-limit")
        self._remaining -= size
        self._last = self._file.read(size)
        if size > tarfile.BLOCKSIZE and self._remaining <= MAX_TAR_HEADER_BYTES and _LONG_NUMBER in self._last.translate(_DIGITS):
            raise ReadError(f"a number of {len(_LONG_NUMBER)} digits in the headers of a member", code="tar-header-invalid")
        return self._last

    def explain_end(self, offset: int) -> str | None:
        """Return why the position where tarfile stopped is not the end, or None if it is.

        tarfile also stops at a broken header or a cut between members. An end mark is followed by padding, which is read up
        to a limit to detect joined tars and to verify the checksum of a gzip file.
        """
        if not self._last:
            return "the tar has no end-of-archive marker: the rest may be missing"
        if any(self._last):
            return f"the rest of the tar can't be read: bad header at byte {offset}"
        remaining = MAX_TAR_PADDING_BYTES
        while remaining > 0 and (block := self._file.read(min(remaining, _PADDING_READ))):
            if data := block.lstrip(b"\0"):
                position = self._file.tell() - len(data)
                return (
                    f"the rest of the tar isn't read: data follows the end-of-archive marker at byte {position:,} (joined tars?)"
                )
            remaining -= len(block)
        return None


def _build_member(
    archive: tarfile.TarFile,
    info: tarfile.TarInfo,
    tar: ListedFile,
    max_bytes: int,
    find_kind: Callable[[str], MemberKind | None],
    *,
    inline: bool,
) -> TarMember | BrokenMember | None:
    if info.isdir():
        return None
    name = info.name.removeprefix("./")
    if len(name) > MAX_MEMBER_NAME_CHARS:
        return BrokenMember(f"{cut_name(name)}@{info.offset}", f"its name has {len(name):,} characters")
    if info.size < 0:
        return BrokenMember(name, "its size is negative")
    if not info.isreg() or info.issparse():
        return BrokenMember(name, "a link or a special file, not a regular file")
    kind = find_kind(name)
    if kind is None:
        return TarMember(name, InlineBytes(b""), None)
    text = kind == "text"
    limit = MAX_TEXT_BYTES if text else max_bytes
    if (text or inline) and info.size > limit:
        return BrokenMember(name, f"{info.size} bytes exceed the limit of {limit}")
    file = archive.extractfile(info) if inline or text else None
    data = file.read() if file else None
    if data is not None and len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    modified_at = format_modification_time(info.mtime)
    if inline and data is not None:
        return TarMember(name, InlineBytes(data, modified_at), data if text else None)
    secret = tar.locator.secret_url if isinstance(tar.locator, ObjectLocator) else None
    return TarMember(name, TarMemberLocator(tar.uri, info.offset_data, info.size, tar.version, secret, modified_at), data)
