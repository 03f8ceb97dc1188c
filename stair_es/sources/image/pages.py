"""Pages of documents: those of a PDF, and of a TIFF with several. Each is an image with the document's URI and `#page=3`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap

from stair_es.errors import DecodeError, ReadError
from stair_es.sources.base import ListingFailure, Locator, ReadLimits, ReadResult, SourceItem, UnreadableLocator
from stair_es.sources.image.exif import TiffDirectories
from stair_es.sources.image.isolated import PDF, TIFF, count_pages, render_page
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import has_suffix, open_regular
from stair_es.types import Json

MAX_PAGES = 10_000
"""Pages of a document; the rest is one failed entry."""
DOCUMENT_CACHE_BYTES = 64 << 20
"""Documents that are kept for their next pages; at least one."""
_SUBFILE_TYPE, _REDUCED = 254, 1
"""A tag of a directory, and its value for a smaller copy of another one, which is no page."""


@dataclass(frozen=True)
class PageLocator:
    """A page of a document."""

    uri: str
    """Of the document."""
    document: Locator
    format: str
    page: int
    """As `render_page` counts."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the page as a PNG with the text that it has, or None if the version of the document is still `known_version`."""
        document = _documents.read(self.uri, self.document, limits, known_version)
        if document is None:
            return None
        try:
            png, text = render_page(document.data, TIFF if self.format == TIFF.name else PDF, self.page)
        except DecodeError as error:
            raise ReadError(error.message, code=error.code) from None
        return replace(document, data=png, format=self.format, fields={"text": text} if text.strip() else {})

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`; None if the document's bytes exist only in memory."""
        document = self.document.to_json()
        return document and {"kind": "page", "uri": self.uri, "document": document, "format": self.format, "page": self.page}


def render_numbered_page(data: bytes, number: int, max_pixels: int) -> bytes:
    """Render the page of a document with this number in its URI.

    Raises:
        DecodeError: If it has no such page, or it can't be rendered.
    """
    is_pdf = data.startswith(b"%PDF-")
    pages = range(1, number + 1) if is_pdf else _number_tiff_pages(data)
    if not 0 < number <= len(pages):
        raise DecodeError(f"no page {number}", code="no-such-page")
    return render_page(data, PDF if is_pdf else TIFF, pages[number - 1], max_pixels)[0]


class _DocumentCache:
    """The last documents that were read: the pages of one follow each other. Thread safe."""

    def __init__(self) -> None:
        self._results: OrderedDict[str, ReadResult] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, uri: str, locator: Locator, limits: ReadLimits, known_version: str | None) -> ReadResult | None:
        with self._lock:
            found = self._results.get(uri)
            if found is not None:
                self._results.move_to_end(uri)
        if found is not None and (reread := locator.read(limits, found.version)) is None:
            return None if known_version is not None and found.version == known_version else found
        result = reread if found is not None else locator.read(limits, known_version)
        if result is not None and result.version is not None:
            with self._lock:
                self._results[uri] = result
                self._results.move_to_end(uri)
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
        locator = PageLocator(file.uri, file.locator, kind.name, page)
        fields: dict[str, Json] = {"page": number, "pages": len(pages), "parent": file.uri}
        yield SourceItem(f"{file.uri}#page={number}", source, locator, file.version, fields)
    if len(pages) > MAX_PAGES:
        yield ListingFailure(file.uri, source, f"only the first {MAX_PAGES:,} of its {len(pages):,} pages are read")


def _number_pdf_pages(file: ListedFile, limits: ReadLimits) -> list[int]:
    document = _documents.read(file.uri, file.locator, limits, None)
    pages = count_pages(document.data) if document else 0
    if not pages:
        raise DecodeError("a PDF without pages", code="document-empty")
    return list(range(1, pages + 1))


def _number_local_pages(uri: str) -> list[int]:
    try:
        with open_regular(uri) as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return _number_tiff_pages(data)
    except (OSError, ValueError, ReadError):  # empty, or not there: reading it reports the reason
        return []


def _number_tiff_pages(data: bytes | mmap) -> list[int]:
    """Return the numbers of the directories with a page, as far as they can be read: decoding reports what is wrong."""
    if data[:2] not in (b"II", b"MM"):
        return []
    tiff = TiffDirectories(data, big=data[2:4] in (b"+\0", b"\0+"))
    pages, seen, offset = list[int](), set[int](), tiff.first_offset
    while offset > 0 and offset not in seen and len(seen) <= MAX_PAGES:
        kinds = [tiff.read_number(entry) or 0 for entry in tiff.read_entries(offset) if entry.tag == _SUBFILE_TYPE]
        if not kinds or not kinds[0] & _REDUCED:
            pages.append(len(seen))
        seen.add(offset)
        offset = tiff.find_next(offset)
    return pages
