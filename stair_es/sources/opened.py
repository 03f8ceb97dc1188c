"""Open files of tables, lists and tars: local, remote, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from stair_es.errors import ReadError, SourceError, StairError, UsageError
from stair_es.sources.files import Files, Found, LeftOut
from stair_es.sources.item import Unlisted, Walk
from stair_es.sources.local_file import FileAt
from stair_es.sources.local_files import LocalFiles
from stair_es.sources.object_places import ObjectAt
from stair_es.sources.paths import STDIN, open_regular, path_of, scheme_of
from stair_es.sources.remote import AGAIN, file_system, reason_of
from stair_es.sources.remote_files import RemoteFiles

_BLOCK = 1 << 20


class StdinFiles:
    """Standard input as the only file of a source."""

    uri = STDIN

    def __init__(self) -> None:
        self.ignored: dict[str, int] = {}
        self.left_out: dict[LeftOut, int] = {}

    def found(self) -> Iterator[Found | Unlisted]:
        """Yield standard input."""
        yield Found(STDIN, FileAt(STDIN))


def not_stdin(argument: str, what: str) -> None:
    """Raise UsageError if a source that needs random access is read from standard input.

    Args:
        argument: The SOURCE argument.
        what: The kind of source, for the message.

    Raises:
        UsageError: If the argument is `-`.
    """
    if argument == "-":
        raise UsageError(f"{what} can't be read from standard input", "Write it into a file, and name that as SOURCE.")


def files_at(argument: str, suffixes: frozenset[str], walk: Walk | None = None, *, check: bool = True) -> Files:
    """Return the lister for a SOURCE argument: local, remote, or standard input for `-`.

    Args:
        argument: What the user wrote.
        suffixes: Suffixes of the files to list.
        walk: What else of a folder to include.
        check: Whether a local path must exist: better reported now than after hours of other sources.

    Raises:
        UsageError: If a local path does not exist.
    """
    if argument == "-":
        return StdinFiles()
    if scheme_of(argument) not in ("", "file"):
        return RemoteFiles(argument, suffixes, walk)
    files = LocalFiles(argument, suffixes, walk)
    if check:
        files.check()
    return files


@contextmanager
def opened(found: Found) -> Iterator[BinaryIO]:
    """Open the file as a seekable stream (standard input is not seekable), decompressed if its name ends with `.gz`.

    Raises:
        SourceError: If it cannot be opened or read.
    """
    try:
        with raw(found) as file:
            if found.uri.endswith((".gz", ".tgz")):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast("BinaryIO", unpacked)
            else:
                yield file
    except StairError:
        raise
    except EOFError as error:
        raise SourceError(
            f"{found.uri} is cut off: {error}", "Replace it by the complete file and run again: the run resumes."
        ) from error
    except Exception as error:  # each store has its own errors
        raise SourceError(f"{found.uri} can't be read: {reason_of(error)}", AGAIN) from error


@contextmanager
def raw(found: Found) -> Iterator[BinaryIO]:
    """Open the file like `open_unpacked`, without decompressing it."""
    if found.uri == STDIN:
        yield sys.stdin.buffer
    elif isinstance(found.place, ObjectAt):
        try:
            fs, path = file_system(found.place.secret_url or found.place.uri)
            file = fs.open(path, "rb", block_size=_BLOCK)
        except OSError as error:
            raise SourceError(f"{found.uri} can't be opened: {reason_of(error)}", AGAIN) from error
        with file, io.BufferedReader(file, 1 << 16) as buffered:  # readline of fsspec files takes no length
            yield buffered
    else:
        with path_of(found.uri).open("rb") if found.named else _open_listed(found.uri) as local:
            yield local


def _open_listed(uri: str) -> BinaryIO:
    """Open a file found in a folder, without waiting for the writer of a named pipe."""
    try:
        return open_regular(uri)
    except ReadError as error:
        raise SourceError(f"{uri} can't be read: {error.message}", "Name it as SOURCE itself if it is a pipe.") from None
