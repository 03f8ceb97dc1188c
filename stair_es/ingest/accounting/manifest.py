"""The images of a run and their outcomes, kept on disk so that memory stays flat over millions of images."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from stair_es.errors import IngestError
from stair_es.ingest.sinks.base import ImageStatus

_SCHEMA = (
    "create table image (key blob primary key, id text, uri text, source text) without rowid",
    "create index image_id on image (id) where id is not null",
)
_CACHE_KIB = 8192


class Manifest:
    """The table of one run, in a temporary file without a name: it disappears with the process, even a killed one.

    Not thread-safe. Each method raises IngestError if the file can't be written.
    """

    def __init__(self, folder: Path | None = None, *, keep_uris: bool = False) -> None:
        """Create an empty manifest.

        Args:
            folder: Folder of the temporary file; None for the platform's default.
            keep_uris: Store each URI with its source instead of only its hash; required by `find_image`.
        """
        self._folder = folder
        self._keep_uris = keep_uris
        try:
            file, path = tempfile.mkstemp(prefix="stair-es-manifest-", dir=folder)
        except OSError as error:
            raise self._build_write_error(error.strerror or str(error)) from error
        os.close(file)
        self._path = Path(path)
        try:
            with self._translate_errors():
                self._db = sqlite3.connect(path, isolation_level=None)
            self._create_tables()
        finally:
            self._remove_file()  # SQLite keeps it open, and opens no other file

    def _create_tables(self) -> None:
        try:
            for pragma in ("journal_mode=off", "synchronous=off", f"cache_size=-{_CACHE_KIB}", "locking_mode=exclusive"):
                self._execute(f"pragma {pragma}")
            for statement in _SCHEMA:
                self._execute(statement)
        except IngestError:
            self._db.close()
            raise

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()
        self._remove_file()

    def _remove_file(self) -> None:
        """Remove the file's name, if it still exists. Windows allows that only after the file was closed."""
        with suppress(FileNotFoundError, PermissionError):
            self._path.unlink()

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        with self._translate_errors():
            return self._db.execute(statement, values)

    def _fetch_one(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401  a row
        with self._translate_errors():
            return self._db.execute(statement, values).fetchone()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._build_write_error(str(error)) from error

    def _build_write_error(self, reason: str) -> IngestError:
        folder = self._folder or tempfile.gettempdir()
        return IngestError(
            f"can't keep the list of this run's images in a temporary file in {folder}: {reason}",
            "Free some space there, or specify another folder: TMPDIR=/a/folder/with/room",
            code="run-list-not-writable",
        )

    def add_image(self, uri: str, source: str) -> bool:
        """Record an image; return whether it is new to the run."""
        stored = (uri, source) if self._keep_uris else (None, None)
        cursor = self._execute("insert or ignore into image values (?, null, ?, ?)", (_hash_uri(uri), *stored))
        return cursor.rowcount == 1

    def get_status(self, uri: str) -> ImageStatus:
        """Return the status of an image; one without an outcome counts as stored."""
        row = self._fetch_one("select id from image where key = ?", (_hash_uri(uri),))
        return "unlisted" if row is None else "failed" if row[0] == "" else "stored"

    def __len__(self) -> int:
        return int(self._fetch_one("select count(*) from image")[0])

    def record_outcomes(self, outcomes: Iterable[tuple[str, str]]) -> None:
        """Record the outcomes `(uri, _id)` of some images; `_id` is "" for an image without a document.

        Raises:
            IngestError: If an image was never added, or already has an outcome.
        """
        self._execute("begin")
        for uri, id_ in outcomes:
            cursor = self._execute("update image set id = ? where key = ? and id is null", (id_, _hash_uri(uri)))
            if cursor.rowcount != 1:
                raise IngestError(f"an unexpected outcome for {uri}", code="unexpected-outcome")
        self._execute("commit")

    def count_pending(self) -> int:
        """Return the number of images without an outcome."""
        return int(self._fetch_one("select count(*) from image where id is null")[0])

    def count_documents(self) -> int:
        """Return the number of distinct documents."""
        return int(self._fetch_one("select count(distinct id) from image where id != ''")[0])

    def find_image(self, id_: str) -> tuple[str, str] | None:
        """Return URI and source of an image with the document `id_`; None if there is none, or URIs aren't kept."""
        row = self._fetch_one("select uri, source from image where id = ? order by key limit 1", (id_,))
        return (row[0], row[1]) if row and row[0] is not None else None

    def has_document(self, id_: str) -> bool:
        """Return whether an image of this run has this document."""
        return self._fetch_one("select 1 from image where id = ? limit 1", (id_,)) is not None


def _hash_uri(uri: str) -> bytes:
    return hashlib.blake2b(uri.encode(errors="surrogatepass"), digest_size=16).digest()
