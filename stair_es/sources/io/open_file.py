"""Open files of tables, lists and tars: local, remote, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from stair_es.errors import ReadError, SourceError, StairError, UsageError
from stair_es.sources.base import ListingFailure, WalkOptions
from stair_es.sources.io.files import FileLister, LeftOutReason, ListedFile
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.local_listing import LocalFileLister
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.remote import RERUN_REMEDY, describe_store_error, open_file_system
from stair_es.sources.io.remote_listing import RemoteFileLister
from stair_es.sources.io.uris import STDIN_URI, from_file_uri, get_scheme, open_regular

DEFAULT_BLOCK = 1 << 20
"""Bytes per request to an object store."""


class StdinFileLister:
    """Standard input as the only file of a source."""

    uri = STDIN_URI

    def __init__(self) -> None:
        self.ignored: dict[str, int] = {}
        self.left_out: dict[LeftOutReason, int] = {}

    def list_files(self) -> Iterator[ListedFile | ListingFailure]:
        """Yield standard input."""
        yield ListedFile(STDIN_URI, FileLocator(STDIN_URI))


def check_not_stdin(argument: str, what: str) -> None:
    """Raise UsageError if a source that needs random access, described by `what`, is read from standard input."""
    if argument == "-":
        raise UsageError(
            f"{what} can't be read from standard input",
            "Save it to a file, and specify that as SOURCE.",
            code="stdin-not-supported",
        )


def create_file_lister(
    argument: str, suffixes: frozenset[str], walk: WalkOptions | None = None, *, check: bool = True
) -> FileLister:
    """Return the lister for a SOURCE argument: local, remote, or standard input for `-`.

    With `check` a local path must exist: better reported now than after hours of other sources.
    """
    if argument == "-":
        return StdinFileLister()
    if get_scheme(argument) not in ("", "file"):
        return RemoteFileLister(argument, suffixes, walk)
    files = LocalFileLister(argument, suffixes, walk)
    if check:
        files.check_exists()
    return files


@contextmanager
def open_unpacked(found: ListedFile) -> Iterator[BinaryIO]:
    """Open the file as a seekable stream (standard input is not seekable), decompressed if its name ends with `.gz`."""
    try:
        with open_raw(found) as file:
            if found.uri.endswith((".gz", ".tgz")):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast("BinaryIO", unpacked)
            else:
                yield file
    except StairError:
        raise
    except EOFError as error:
        raise SourceError(
            f"{found.uri} is truncated: {error}",
            "Replace it with the complete file and run again: the run resumes.",
            code="file-truncated",
        ) from error
    except Exception as error:  # each store has its own errors
        raise SourceError(
            f"{found.uri} can't be read: {describe_store_error(error)}", RERUN_REMEDY, code="file-unreadable"
        ) from error


@contextmanager
def open_raw(found: ListedFile, block_bytes: int = DEFAULT_BLOCK) -> Iterator[BinaryIO]:
    """Open the file like `open_unpacked`, without decompressing it; an object is requested in blocks of `block_bytes`."""
    if found.uri == STDIN_URI:
        # not `sys.stdin.buffer`, whose lock a thread that waits for input holds: the interpreter can't end then
        with open(sys.stdin.fileno(), "rb", closefd=False) as file:
            yield file
    elif isinstance(found.locator, ObjectLocator):
        try:
            fs, path = open_file_system(found.locator.secret_url or found.locator.uri)
            file = fs.open(path, "rb", block_size=block_bytes)
        except OSError as error:
            raise SourceError(
                f"{found.uri} can't be opened: {describe_store_error(error)}", RERUN_REMEDY, code="file-unreadable"
            ) from error
        with file, io.BufferedReader(file, 1 << 16) as buffered:  # readline of fsspec files takes no length
            yield buffered
    else:
        with from_file_uri(found.uri).open("rb") if found.is_named else _open_listed(found.uri) as local:
            yield local


def _open_listed(uri: str) -> BinaryIO:
    """Open a file found in a folder, without waiting for the writer of a named pipe."""
    try:
        return open_regular(uri)
    except ReadError as error:
        raise SourceError(
            f"{uri} can't be read: {error.message}", "Specify it as SOURCE itself if it is a pipe.", code=error.code
        ) from None
