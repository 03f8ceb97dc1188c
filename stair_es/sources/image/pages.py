"""Pages of documents: those of a PDF, and of a TIFF with several. Each is an image with the document's URI and `#page=3`."""

from __future__ import annotations

import io
import sys
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from stair_es.errors import DecodeError, ReadError
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, SourceItem, UnreadableLocator
from stair_es.sources.image.decode import convert_to_layer
from stair_es.sources.image.exif import MAX_ENTRIES
from stair_es.sources.image.isolated import PDF, TIFF, IsolatedFormat, count_pages, render_page
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import has_suffix, open_regular
from stair_es.types import Json

MAX_PAGES = 10_000
"""Pages of a document; the rest is one failed entry."""
DOCUMENT_CACHE_BYTES = 128 << 20
"""Documents that are kept for their next pages; at least one."""
_MAX_TIFF_ENTRIES = 1_000_000
"""Entries that are looked at for the pages of a TIFF."""
_SUBFILE_TYPE, _NO_PAGE = 254, 0b101
"""A tag of a directory, and its bits for a smaller copy and for a mask of another one, which are no pages."""


@dataclass(frozen=True)
class PageLocator:
    """A page of a document."""

    uri: str
    """Of the document."""
    document: Locator
    format: str
    page: int
    """As `render_page` counts."""
    version: str | None = None
    """Of the document as it was listed: its pages share the bytes."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the page as a PNG with the text that it has, or None if the version of the document is still `known_version`."""
        document = _documents.read(self.uri, self.version, self.document, limits, known_version)
        if document is None:
            return None
        try:
            kind = TIFF if self.format == TIFF.name else PDF
            png, text = _render_png(document.data, kind, self.page, limits.max_pixels)
        except DecodeError as error:
            raise ReadError(error.message, code=error.code) from None
        return replace(document, data=png, format=self.format, fields={"text": text} if text else {})

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`; None if the document's bytes exist only in memory."""
        document = self.document.to_json()
        return document and {"kind": "page", "uri": self.uri, "document": document, "format": self.format, "page": self.page}


def render_numbered_page(data: bytes, number: int, max_pixels: int) -> bytes:
    """Render the page of a document with this number in its URI, as a PNG.

    Raises:
        DecodeError: If it has no such page, or it can't be rendered.
    """
    is_pdf = data.startswith(b"%PDF-")
    pages = range(1, number + 1) if is_pdf else _number_tiff_pages(io.BytesIO(data))
    if not 0 < number <= len(pages):
        raise DecodeError(f"no page {number}", code="no-such-page")
    return _render_png(data, PDF if is_pdf else TIFF, pages[number - 1], max_pixels)[0]


def _render_png(data: bytes, kind: IsolatedFormat, page: int, max_pixels: int) -> tuple[bytes, str]:
    image, text = render_page(data, kind, page, max_pixels)
    buffer = io.BytesIO()
    convert_to_layer(image, 1).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), _clean_text(text)


def _clean_text(text: str) -> str:
    """Return the lines of a text without control characters and spaces that aren't needed."""
    spaced = ("".join(" " if unicodedata.category(char) == "Cc" else char for char in line) for line in text.splitlines())
    lines = ("".join(char for char in line if unicodedata.category(char)[0] != "C") for line in spaced)
    return "\n".join(filter(None, (" ".join(line.split()) for line in lines)))


class _DocumentCache:
    """The last documents that were read, by URI and version: the pages of one follow each other. Thread safe."""

    def __init__(self) -> None:
        self._results: OrderedDict[tuple[str, str], ReadResult] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, uri: str, version: str | None, locator: Locator, limits: ReadLimits, known_version: str | None
    ) -> ReadResult | None:
        if version is None:  # it may be another document at any time
            return locator.read(limits, known_version)
        if known_version == version:
            return None
        with self._lock:
            found = self._results.get((uri, version))
            if found is not None:
                self._results.move_to_end((uri, version))
        result = found or locator.read(limits)
        if result is not None and found is None:
            with self._lock:
                self._results[uri, version] = result
                while len(self._results) > 1 and sum(len(each.data) for each in self._results.values()) > DOCUMENT_CACHE_BYTES:
                    self._results.popitem(last=False)
        return result


_documents = _DocumentCache()


def list_pages(file: ListedFile, source: str, limits: ReadLimits) -> Iterator[SourceItem | ListingFailure]:
    """Yield the pages of a document; a file that is none, or a TIFF with a single page, as one image.

    A PDF is read, to count its pages, and so are the headers of a local TIFF. A document that can't be read is one failed image.
    """
    kind, pages = TIFF, list[int]()
    try:
        if has_suffix(file.uri, PDF.suffixes):
            kind, pages = PDF, _number_pdf_pages(file, limits)
        elif isinstance(file.locator, FileLocator) and has_suffix(file.uri, TIFF.suffixes):
            pages = _number_local_pages(file.uri)
    except (ReadError, DecodeError) as error:
        failed = UnreadableLocator(error.message, file.locator.to_json())
        yield SourceItem(file.uri, source, failed, file.version)
        return
    if kind is TIFF and len(pages) < 2:
        yield SourceItem(file.uri, source, file.locator, file.version)
        return
    for number, page in enumerate(pages[:MAX_PAGES], 1):
        locator = PageLocator(file.uri, file.locator, kind.name, page, file.version)
        fields: dict[str, Json] = {"page": number, "pages": len(pages), "parent": file.uri}
        yield SourceItem(f"{file.uri}#page={number}", source, locator, file.version, fields)
    if len(pages) > MAX_PAGES:
        yield ListingFailure(file.uri, source, f"only its first {MAX_PAGES:,} pages are read")


def is_document(uri: str) -> bool:
    """Return whether a URI names a document that is read by its pages only."""
    return has_suffix(uri, PDF.suffixes)


def _number_pdf_pages(file: ListedFile, limits: ReadLimits) -> list[int]:
    document = _documents.read(file.uri, file.version, file.locator, limits, None)
    pages = count_pages(document.data) if document else 0
    if not pages:
        raise DecodeError("a PDF without pages", code="document-empty")
    return list(range(1, pages + 1))


def _number_local_pages(uri: str) -> list[int]:
    try:
        with open_regular(uri) as file:
            return _number_tiff_pages(file)
    except OSError as error:
        raise ReadError(f"can't be read: {error.strerror or error}", code="file-unreadable") from None


def _number_tiff_pages(file: BinaryIO) -> list[int]:
    """Return the numbers of the directories with a page, as far as they can be read: decoding reports what is wrong."""
    head = file.read(4)
    if head[:2] not in (b"II", b"MM"):
        return []
    order: Literal["little", "big"] = "little" if head[:1] == b"I" else "big"
    is_big = head[2:4] in (b"+\0", b"\0+")
    offset_bytes, count_bytes, entry_bytes, value_at = (8, 8, 20, 12) if is_big else (4, 2, 12, 8)
    tag = _SUBFILE_TYPE.to_bytes(2, order)
    file.seek(8 if is_big else 4)
    offset = int.from_bytes(file.read(offset_bytes), order)
    pages, seen, entries = list[int](), set[int](), 0
    while 0 < offset < sys.maxsize and offset not in seen and len(pages) <= MAX_PAGES and entries < _MAX_TIFF_ENTRIES:
        file.seek(offset)
        count = min(int.from_bytes(file.read(count_bytes), order), MAX_ENTRIES)
        block = file.read(count * entry_bytes)
        values = (
            block[at + value_at : at + value_at + 4] for at in range(0, len(block), entry_bytes) if block[at : at + 2] == tag
        )
        if not int.from_bytes(next(values, b""), order) & _NO_PAGE:
            pages.append(len(seen))
        seen.add(offset)
        entries += 1 + count
        offset = int.from_bytes(file.read(offset_bytes), order)
    return pages
