"""Paths, `file://` URIs and URLs: schemes, suffixes, hidden names, and file versions."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from stair_es.errors import ReadError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif", ".avifs"}
    | {".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
_PACKED = ("", ".gz")
PARQUET = frozenset({".parquet", ".pq"})
CSV = frozenset(suffix + packed for suffix in (".csv", ".tsv") for packed in _PACKED)
JSONL = frozenset(suffix + packed for suffix in (".jsonl", ".ndjson") for packed in _PACKED)
TAR = frozenset({".tar", ".tar.gz", ".tgz"})
LIST = frozenset({".txt", ".txt.gz"})
CONTAINERS = PARQUET | CSV | JSONL | TAR | LIST
STDIN = "stdin:"
"""URI of standard input."""
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN"})
"""Folders of thumbnails, attributes and deleted files, of macOS, Synology and Windows."""
SETTLED_NS = 2_000_000_000
"""How long ago a file must have changed until its time of change tells its versions apart (FAT keeps two seconds)."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""O_NONBLOCK: opening a named pipe must not wait for somebody to write into it."""


def uri_of(path: str | Path) -> str:
    """The `file://` URI of a local path, links in it left as they are."""
    return Path(os.path.abspath(path)).as_uri()  # noqa: PTH100  resolves `..` without following links


def path_of(uri: str) -> Path:
    """The local path of a `file://` URI, whatever bytes are in its name."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(uri).path)))


def open_regular(uri: str) -> BinaryIO:
    """Open the regular file of a `file://` URI, without waiting for the writer of a named pipe.

    Raises:
        ReadError: It isn't a regular file.
        OSError: It can't be opened.
    """
    file = os.fdopen(os.open(path_of(uri), _FLAGS), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ReadError("not a regular file")
    return file


def file_at(named: str) -> Path | None:
    """The file that a path or a `file:` URI names; None if there is none."""
    try:
        path = path_of(named) if named.startswith("file:") else Path(named)
        return path if path.is_file() else None
    except (OSError, ValueError):  # too long for a path, or a NUL in it: an id, perhaps
        return None


def child_uri(folder_uri: str, name: str) -> str:
    """The URI of what is called `name` in a folder: the same as of its whole path, at a tenth of the time."""
    return f"{folder_uri.rstrip('/')}/{quote_from_bytes(os.fsencode(name))}"


def file_version(status: os.stat_result) -> str | None:
    """Size and time of change; None while a second change could have the same time."""
    return stamp(status.st_size, status.st_mtime_ns)


def stamp(size: int, mtime_ns: int) -> str | None:
    """The version of something that only has a size and a time of change."""
    return f"{size}-{mtime_ns}" if mtime_ns < time.time_ns() - SETTLED_NS else None


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Whether `name` ends with one of `suffixes` (lower case, with the dot) and has something before it."""
    lower = name.lower()
    return any(lower.endswith(suffix) and not lower.endswith("/" + suffix) and lower != suffix for suffix in suffixes)


def is_hidden(name: str) -> bool:
    """Whether it is a name with a dot before it, or one of those that systems keep things of their own under."""
    return (name.startswith(".") and name not in (".", "..")) or name in _HIDDEN  # dots alone are parts of keys in object stores


def suffix_of(name: str) -> str:
    """The last suffix in lower case, for counts of what was passed over."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  object names aren't paths of this machine


def scheme_of(argument: str) -> str:
    """The scheme in lower case; empty for a local path."""
    match = _SCHEME.match(argument)
    return match[1].lower() if match else ""


def ends_with(argument: str, suffixes: frozenset[str]) -> bool:
    """Whether the argument names such files by its suffix, `?query` of a web address left aside."""
    text = urlsplit(argument).path if scheme_of(argument) in ("http", "https") else argument
    return text.lower().endswith(tuple(suffixes))


def names_container(argument: str) -> bool:
    """Whether it looks like a table, a tar or a list."""
    return ends_with(argument, CONTAINERS)


def base_of(uri: str) -> str:
    """The folder of a table, that paths in it are relative to; of standard input, the working directory."""
    return uri_of(os.curdir) if uri == STDIN else uri.rpartition("/")[0]
