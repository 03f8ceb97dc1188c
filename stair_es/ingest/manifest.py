"""Which images a run came across, and which of them have their outcome: on disk, so that memory stays flat over millions."""

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
from stair_es.ingest.sink import Fate

_SCHEMA = (
    "create table image (key blob primary key, id text, uri text, source text) without rowid",
    "create index image_id on image (id) where id is not null",
)
_CACHE_KIB = 8192


class Manifest:
    """A table of one run, in a temporary file without a name: it ends with the process, even with a killed one.

    Used from one thread. Each method raises IngestError when the file can't be written.
    """

    def __init__(self, folder: Path | None = None, *, keep_uris: bool = False) -> None:
        """An empty manifest.

        Args:
            folder: Where the temporary file goes; None for the platform's place.
            keep_uris: Keep each URI, with its source, and not only its hash: for `image_of`.

        Raises:
            IngestError: The file can't be made.
        """
        self._folder = folder
        self._keep_uris = keep_uris
        try:
            file, path = tempfile.mkstemp(prefix="stair-es-manifest-", dir=folder)
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error
        os.close(file)
        self._path = Path(path)
        try:
            with self._translate_errors():
                self._db = sqlite3.connect(path, isolation_level=None)
            self._set_up()
        finally:
            self._unlink()  # SQLite has it open, and opens no other

    def _set_up(self) -> None:
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
        self._unlink()

    def _unlink(self) -> None:
        """Remove the name of the file, if it is there still; Windows does that only once nobody has the file open."""
        with suppress(FileNotFoundError, PermissionError):
            self._path.unlink()

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        with self._translate_errors():
            return self._db.execute(statement, values)

    def _first(self, statement: str, values: tuple[object, ...] = ()) -> Any:  # noqa: ANN401  a row
        with self._translate_errors():
            return self._db.execute(statement, values).fetchone()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unwritable(str(error)) from error

    def _unwritable(self, why: str) -> IngestError:
        folder = self._folder or tempfile.gettempdir()
        return IngestError(
            f"can't keep the list of this run's images in a temporary file in {folder}: {why}",
            "Free some space there, or name another folder: TMPDIR=/a/folder/with/room",
        )

    def add(self, uri: str, source: str) -> bool:
        """Take note of an image; whether it is the first time that it comes up."""
        kept = (uri, source) if self._keep_uris else (None, None)
        done = self._execute("insert or ignore into image values (?, null, ?, ?)", (_key(uri), *kept))
        return done.rowcount == 1

    def fate(self, uri: str) -> Fate:
        """What became of an image; one without an outcome yet counts as taken."""
        row = self._first("select id from image where key = ?", (_key(uri),))
        return "unseen" if row is None else "dead" if row[0] == "" else "taken"

    def __len__(self) -> int:
        return int(self._first("select count(*) from image")[0])

    def settle(self, outcomes: Iterable[tuple[str, str]]) -> None:
        """Enter the outcomes `(uri, _id)` of some images; `_id` is empty for one without a document.

        Raises:
            IngestError: An image was never added, or has its outcome already.
        """
        self._execute("begin")
        for uri, id_ in outcomes:
            done = self._execute("update image set id = ? where key = ? and id is null", (id_, _key(uri)))
            if done.rowcount != 1:
                raise IngestError(f"an outcome too many for {uri}")
        self._execute("commit")

    def unsettled(self) -> int:
        """How many images have no outcome."""
        return int(self._first("select count(*) from image where id is null")[0])

    def documents(self) -> int:
        """How many different documents the settled images have."""
        return int(self._first("select count(distinct id) from image where id != ''")[0])

    def image_of(self, id_: str) -> tuple[str, str] | None:
        """URI and source of an image whose document is `id_`; None where there is none, or URIs aren't kept."""
        row = self._first("select uri, source from image where id = ? order by key limit 1", (id_,))
        return (row[0], row[1]) if row and row[0] is not None else None

    def has_document(self, id_: str) -> bool:
        """Whether an image of this run has this document."""
        return self._first("select 1 from image where id = ? limit 1", (id_,)) is not None


def _key(uri: str) -> bytes:
    return hashlib.blake2b(uri.encode(errors="surrogatepass"), digest_size=16).digest()
