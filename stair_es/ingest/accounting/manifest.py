"""The images of a run and their outcomes, kept on disk so that memory stays flat over millions of images."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, compress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from stair_es._itertools import batched
from stair_es.errors import IngestError
from stair_es.ingest.sinks.base import ImageStatus
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.image.isolated import list_missing_formats
from stair_es.sources.io.uris import has_suffix, split_page_uri

_SCHEMA = (
    "create table image (key blob primary key, number integer) without rowid",
    "create table outcome (number integer primary key, id text, uri text, source text)",
)
_CACHE_KIB = 65536
_ROWS_PER_STATEMENT = 200
"""Some builds of SQLite accept 999 values."""
_L = TypeVar("_L", bound="SourceItem | ListingFailure")


class Manifest:
    """The tables of one run, in a temporary file without a name: it disappears with the process, even a killed one.

    Images are numbered as they are listed. Their outcomes are appended, and only the images in between are in memory. Nothing is
    ever committed: the file is of no use to anybody else, and its pages are written only when the cache is full.

    Not thread-safe. Each method raises IngestError if the file can't be written.
    """

    def __init__(self, folder: Path | None = None, *, by_content: bool = False) -> None:
        """Create an empty manifest.

        Args:
            folder: Folder of the temporary file; None for the platform's default.
            by_content: Whether ids go by content, so that images can share a document: `find_image` then needs their URIs.
        """
        self._folder = folder
        self._by_content = by_content
        self._listed = self._numbers = self._stored = 0
        self._pending: dict[str, int] = {}
        """URI -> number of each image without an outcome."""
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
            for statement in (*_SCHEMA, "begin"):
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

    def add_images(self, images: Sequence[_L]) -> list[_L]:
        """Record listed images, and return those that are new to the run."""
        numbers: Sequence[int] = range(self._numbers, self._numbers + len(images))
        self._numbers += len(images)
        rows = list(zip([_hash_uri(image.uri) for image in images], numbers, strict=True))
        new = list(images)
        if self._insert_rows("insert or ignore into image", rows) < len(rows):
            is_new = [self._fetch_one("select 1 from image where key = ? and number = ?", row) is not None for row in rows]
            new, numbers = list(compress(new, is_new)), list(compress(numbers, is_new))
        self._pending.update(zip([image.uri for image in new], numbers, strict=True))
        self._listed += len(new)
        return new

    def get_status(self, uri: str) -> ImageStatus:
        """Return the status of an image; one without an outcome counts as stored, and so does a forgotten one: it isn't missing.

        A page has failed with its document, and so have images that need an extra that isn't installed here: they aren't gone.
        """
        status = self._get_listed_status(uri)
        if status != "unlisted":
            return status
        document, page = split_page_uri(uri)
        needs_extra = any(has_suffix(document, kind.suffixes) for kind in list_missing_formats())
        has_document = page is not None and self._get_listed_status(document) != "unlisted"
        return "failed" if needs_extra or has_document else status

    def _get_listed_status(self, uri: str) -> ImageStatus:
        query = "select id from image left join outcome using (number) where key = ?"
        row = self._fetch_one(query, (_hash_uri(uri),))
        return "unlisted" if row is None else "failed" if row[0] == "" else "stored"

    def __len__(self) -> int:
        return self._listed

    def record_outcomes(self, outcomes: Sequence[tuple[str, str, str | None]]) -> None:
        """Record the outcomes `(uri, source, _id)` of some images; `_id` is "" for a failed one, and None for a forgotten one.

        Raises:
            IngestError: If an image was never added, or already has an outcome.
        """
        table = "outcome (number, id)"
        try:
            rows: list[tuple[object, ...]] = [(self._pending.pop(uri), id_) for uri, _, id_ in outcomes]
        except KeyError as error:
            raise IngestError(f"an unexpected outcome for {error.args[0]}", code="unexpected-outcome") from None
        if self._by_content:
            table = "outcome"
            rows = [(*row, uri, source) for row, (uri, source, _) in zip(rows, outcomes, strict=True)]
        self._stored += sum(bool(id_) for _, _, id_ in outcomes)
        self._insert_rows(f"insert into {table}", rows)

    def _insert_rows(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Insert rows and return how many were new.

        A statement has many rows, because SQLite releases the interpreter lock for each one, and the listing thread takes it.
        """
        added = 0
        for part in batched(rows, _ROWS_PER_STATEMENT):
            row = f"({', '.join('?' * len(part[0]))})"
            values = f"{statement} values {', '.join([row] * len(part))}"
            added += self._execute(values, tuple(chain.from_iterable(part))).rowcount
        return added

    def count_pending(self) -> int:
        """Return the number of images without an outcome."""
        return len(self._pending)

    def count_documents(self) -> int:
        """Return the number of distinct documents."""
        if not self._by_content:
            return self._stored  # counting distinct ids takes as long as recording half of them
        self._index_ids()
        return int(self._fetch_one("select count(distinct id) from outcome where id != ''")[0])

    def find_image(self, id_: str) -> tuple[str, str] | None:
        """Return URI and source of the first image with the document `id_`; None if there is none, or ids go by URI."""
        self._index_ids()
        row = self._fetch_one("select uri, source from outcome where id = ? order by number limit 1", (id_,))
        return (row[0], row[1]) if row and row[0] is not None else None

    def has_document(self, id_: str) -> bool:
        """Return whether an image of this run has this document."""
        self._index_ids()
        return self._fetch_one("select 1 from outcome where id = ? limit 1", (id_,)) is not None

    def _index_ids(self) -> None:
        """Create the index of `_id`s when the first one is looked up: most runs only count them at the end."""
        self._execute("create index if not exists outcome_id on outcome (id)")


def _hash_uri(uri: str) -> bytes:
    return hashlib.blake2b(uri.encode(errors="surrogatepass"), digest_size=16).digest()
