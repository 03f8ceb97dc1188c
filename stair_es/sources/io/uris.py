"""Paths, `file://` URIs and URLs: conversion, schemes, suffixes, hidden names, file versions."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from stair_es.errors import ReadError
from stair_es.system.user_files import NotARegularFile, open_regular_file

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
JXL_SUFFIXES = frozenset({".jxl"})
JPEG_2000_SUFFIXES = frozenset({".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"})
RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".erf"}
)
IMAGE_SUFFIXES = HEIF_SUFFIXES.union(
    JXL_SUFFIXES,
    JPEG_2000_SUFFIXES,
    RAW_SUFFIXES,
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".avifs"},
    {".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"},
)
_PACKED = ("", ".gz")
PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
CSV_SUFFIXES = frozenset(suffix + packed for suffix in (".csv", ".tsv") for packed in _PACKED)
JSONL_SUFFIXES = frozenset(suffix + packed for suffix in (".jsonl", ".ndjson") for packed in _PACKED)
TAR_SUFFIXES = frozenset({".tar", ".tar.gz", ".tgz"})
LIST_SUFFIXES = frozenset({".txt", ".txt.gz"})
CONTAINER_SUFFIXES = PARQUET_SUFFIXES | CSV_SUFFIXES | JSONL_SUFFIXES | TAR_SUFFIXES | LIST_SUFFIXES
STDIN_URI = "stdin:"
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN"})
"""Folders of macOS, Synology and Windows for thumbnails, attributes and deleted files."""
SETTLED_NS = 2_000_000_000
"""Age of a modification time from which it identifies a version (FAT has a resolution of two seconds)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_QUOTED_SCHEMES = ("file", "http", "https")
"""Schemes whose paths have `%` escapes; names of objects are used unchanged."""
_PAGE = re.compile(r"([^#]*)#page=([0-9]{1,9})")
_ROW = re.compile(r"(?:row|line|page)=[0-9]+")


def to_file_uri(path: str | Path) -> str:
    """Return the `file://` URI of a local path, without resolving links."""
    return Path(os.path.abspath(path)).as_uri()  # noqa: PTH100  resolves `..` without following links


def from_file_uri(uri: str) -> Path:
    """Return the local path of a `file://` URI, for names with any bytes. A `?` is that of a glob: it begins no query."""
    parts = urlsplit(uri.replace("?", "%3F"))
    path = os.fsdecode(unquote_to_bytes(parts.path))
    return Path(to_windows_path(parts.netloc, path) if os.name == "nt" else path)


def to_windows_path(host: str, path: str) -> str:
    """Return the path of `file:///C:/photos` or, on another machine, of `file://host/share`."""
    return f"//{host}{path}" if host else path.removeprefix("/")


def open_regular(uri: str) -> BinaryIO:
    """Open the regular file of a `file://` URI, without waiting for the writer of a named pipe.

    Raises:
        ReadError: If it is not a regular file.
    """
    try:
        return open_regular_file(from_file_uri(uri))
    except NotARegularFile:
        raise ReadError("not a regular file", code="not-a-regular-file") from None


def find_file(named: str) -> Path | None:
    """Return the file that a path or a `file:` URI names; None if there is none."""
    try:
        path = from_file_uri(named) if named.startswith("file:") else Path(named)
        return path if path.is_file() else None
    except (OSError, ValueError):  # too long for a path, or with a NUL: perhaps an id
        return None


def join_uri(folder_uri: str, name: str) -> str:
    """Return the URI of `name` in a folder. Equals converting the whole path, in a tenth of the time."""
    return f"{folder_uri.rstrip('/')}/{quote_from_bytes(os.fsencode(name))}"


def get_file_version(status: os.stat_result) -> str | None:
    """Return size and modification time; None while another change could get the same time."""
    return build_version_stamp(status.st_size, status.st_mtime_ns)


def build_version_stamp(size: int, mtime_ns: int) -> str | None:
    """Return a version from size and modification time; None while another change could get the same time."""
    return f"{size}-{mtime_ns}" if mtime_ns < time.time_ns() - SETTLED_NS else None


def format_modification_time(modified: datetime | float | None) -> str | None:
    """Format a time (without a zone: UTC), or seconds since 1970, in UTC and in the format of `ingested_at`.

    Returns:
        None for no time, for one that no date can hold, and for 1970 itself: stores and tars write 0 for "unknown".
    """
    try:
        if not isinstance(modified, datetime):
            modified = datetime.fromtimestamp(modified or 0, UTC)
        elif modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        modified = modified.astimezone(UTC)
        return modified.isoformat(timespec="milliseconds") if modified.timestamp() else None
    except (OverflowError, ValueError, OSError):
        return None


def split_page_uri(uri: str) -> tuple[str, int | None]:
    """Split the `file://` URI of a page of a document into that of the document and the number; None if it is no page."""
    found = _PAGE.fullmatch(uri)
    return (found[1], int(found[2])) if found else (uri, None)


def is_row_uri(uri: str) -> bool:
    """Return whether a URI is that of an image, or of a text, in a row or line of a file."""
    return bool(_ROW.match(uri.rpartition("#")[2])) and split_page_uri(uri)[1] is None and "#" in uri


def split_image_uri(uri: str) -> tuple[str, str | None]:
    """Split the URI of an image into name and folder, as people write them.

    The folder of a member of a tar begins with the name of the tar. A row has the name and the folder of its table.

    Returns:
        The name; and the folder, a path for local files, else a URL, or None if there is none.
    """
    scheme, (place, _, inner) = get_scheme(uri), uri.partition("#")
    is_row = bool(_ROW.fullmatch(inner))
    if not is_row and scheme not in _QUOTED_SCHEMES and not is_container(place):
        place, inner = uri, ""  # an object with a # in its name
    ending = f"#{inner}" if is_row else ""
    if scheme in ("http", "https"):
        place, _, query = place.partition("?")
        if query and not inner and not has_suffix(place, IMAGE_SUFFIXES):
            ending = f"?{_unquote(query)}"  # image.php?id=7
    path = place.partition("://")[2] if scheme else place
    path = _unquote(path) if scheme in _QUOTED_SCHEMES else path.encode("utf-8", "replace").decode()
    folder, slash, name = (path if is_row or not inner else f"{path}/{_unquote(inner)}").rpartition("/")
    if scheme in ("", "file"):
        return name + ending, folder or slash or None
    return (name or folder) + ending, f"{scheme}://{folder}" if folder else None


def _unquote(text: str) -> str:
    """Decode `%` escapes; what isn't UTF-8 becomes U+FFFD."""
    return unquote_to_bytes(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Return whether `name` ends with one of `suffixes` (lower case, with the dot) after at least one character."""
    lower = name.lower()
    return any(lower.endswith(suffix) and not lower.endswith("/" + suffix) and lower != suffix for suffix in suffixes)


def is_hidden(name: str) -> bool:
    """Return whether a name starts with a dot or is one that operating systems reserve for their own files."""
    return (name.startswith(".") and name not in (".", "..")) or name in _HIDDEN  # dots alone are parts of keys in object stores


def get_suffix(name: str) -> str:
    """Return the last suffix in lower case, for counts of skipped files."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  object names aren't paths of this machine


def get_scheme(argument: str) -> str:
    """Return the scheme in lower case; empty for a local path."""
    match = _SCHEME.match(argument)
    return match[1].lower() if match else ""


def has_source_suffix(argument: str, suffixes: frozenset[str]) -> bool:
    """Return whether the argument names a file with such a suffix; `?query` of a web URL is ignored."""
    text = urlsplit(argument).path if get_scheme(argument) in ("http", "https") else argument
    return text.lower().endswith(tuple(suffixes))


def is_container(argument: str) -> bool:
    """Return whether it looks like a table, a tar or a list."""
    return has_source_suffix(argument, CONTAINER_SUFFIXES)


def get_base_uri(uri: str) -> str:
    """Return the folder of a table, the base of its relative paths; for standard input, the working directory."""
    return to_file_uri(os.curdir) if uri == STDIN_URI else uri.rpartition("/")[0]
