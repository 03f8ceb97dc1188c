"""Tars listed by their headers: where each member's bytes are, without reading them where the tar can seek."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stair_es.errors import StairError
from stair_es.sources.files import Found
from stair_es.sources.item import Place
from stair_es.sources.object_places import MemberOf, ObjectAt
from stair_es.sources.opened import raw
from stair_es.sources.places import Inline
from stair_es.sources.remote import reason_of

TEXT_BYTES = 1 << 20
"""The longest text member that is read into the fields of a sample."""


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    place: Place
    data: bytes | None
    """Of text members."""


@dataclass(frozen=True)
class Broken:
    """A member that can't be had, or (without a name) that the rest of the tar can't be."""

    name: str
    reason: str


def members(tar: Found, max_bytes: int, is_text: Callable[[str], bool]) -> Iterator[Member | Broken]:
    """The files of a tar, one after another. A compressed one is unpacked as it comes, its members held in memory one by one."""
    packed = tar.uri.endswith((".gz", ".tgz"))
    try:
        with raw(tar) as file, tarfile.open(fileobj=file, mode="r|gz" if packed else "r:") as opened:
            while (info := opened.next()) is not None:
                opened.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                if each := _member(opened, info, tar, max_bytes, is_text, packed=packed):
                    yield each
            if not packed and (reason := _unfinished(file, opened.offset)):
                yield Broken("", reason)
    except Exception as error:  # noqa: BLE001  tarfile, zlib and each store have errors of their own
        reason = error.message if isinstance(error, StairError) else reason_of(error)
        yield Broken("", f"the rest of the tar can't be read: {reason}")


def _member(
    opened: tarfile.TarFile, info: tarfile.TarInfo, tar: Found, max_bytes: int, is_text: Callable[[str], bool], *, packed: bool
) -> Member | Broken | None:
    if info.isdir():
        return None
    name = info.name.removeprefix("./")
    if not info.isreg() or info.issparse():
        return Broken(name, "a link or a special file, not a file with bytes of its own")
    text = is_text(name)
    if (text and info.size > TEXT_BYTES) or (packed and info.size > max_bytes):
        return Broken(name, f"{info.size} bytes exceed the limit of {TEXT_BYTES if text else max_bytes}")
    data = _bytes(opened, info) if packed or text else None
    if data is not None and len(data) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    if packed and data is not None:
        return Member(name, Inline(data), data if text else None)
    secret = tar.place.secret_url if isinstance(tar.place, ObjectAt) else None
    return Member(name, MemberOf(tar.uri, info.offset_data, info.size, tar.version, secret), data)


def _bytes(opened: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(info)
    return file.read() if file else b""


def _unfinished(file: BinaryIO, offset: int) -> str | None:
    """Why what stands where tarfile stopped isn't the end: it takes a broken header, and a cut between members, for one."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        file.seek(offset - tarfile.BLOCKSIZE)
        return None if not any(file.read(tarfile.BLOCKSIZE)) else "the tar has no end mark: the rest may be cut off"
    return f"the rest of the tar can't be read: bad header at byte {offset}" if any(block) else None
