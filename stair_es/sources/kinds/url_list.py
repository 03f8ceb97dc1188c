"""The source kinds `urls` and `stdin`: lists of URLs and paths, one per line, and single http(s) URLs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stair_es.errors import UsageError
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.http.urls import find_credentials_error
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.open_file import StdinFileLister, create_file_lister, open_unpacked
from stair_es.sources.io.remote import strip_credentials
from stair_es.sources.io.uris import LIST_SUFFIXES, get_scheme, has_source_suffix, is_container
from stair_es.sources.kinds.table import TableSource
from stair_es.sources.limits import MAX_LIST_LINE_BYTES


class UrlListSource(TableSource):
    """URLs and paths, one per line; empty lines and lines that start with `#` are skipped."""

    def _read_rows(self, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        with open_unpacked(table) as file:
            for number, line in read_numbered_lines(file, MAX_LIST_LINE_BYTES, comment=b"#"):
                where = f"{table.uri}#line={number}"
                if line is None:
                    yield ListingFailure(where, self.uri, "the line is too long")
                    continue
                try:
                    text = line.decode().strip()
                except UnicodeDecodeError:
                    if number == 1:  # a table or tar without its suffix: one error, not a dead letter per line
                        raise UsageError(
                            f"{table.uri} is not a list in UTF-8",
                            "A list has one URL or path per line. Use --format if it is something else.",
                            code="list-not-utf-8",
                        ) from None
                    yield ListingFailure(where, self.uri, "not UTF-8")
                    continue
                if text:
                    yield self._try_item({"image": text}, "image", table, f"line={number}")


@dataclass(frozen=True)
class SingleUrlSource:
    """An image at a URL."""

    url: str = field(repr=False)
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Return the URL without credentials and signature."""
        return strip_credentials(self.url)

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the one item."""
        yield SourceItem(self.uri, self.uri, UrlLocator(self.url))


class UrlsKind:
    """Opens `urls` sources."""

    name = "urls"
    description = "lists of URLs and paths (.txt, one per line), and single http(s):// images"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument is a `.txt`, or a web URL that does not look like a table or a tar."""
        return has_source_suffix(argument, LIST_SUFFIXES) or (
            get_scheme(argument) in ("http", "https") and not is_container(argument)
        )

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        if get_scheme(argument) in ("http", "https") and not has_source_suffix(argument, LIST_SUFFIXES):
            if reason := find_credentials_error(argument):
                raise UsageError(
                    reason, "A password in a URL would end up in shell histories, reports and documents.", code="url-with-login"
                )
            return SingleUrlSource(argument)
        return UrlListSource(create_file_lister(argument, LIST_SUFFIXES, options.walk), options)


URLS_KIND = UrlsKind()


class StdinKind:
    """Opens `-`."""

    name = "stdin"
    description = "- : URLs and paths on standard input, one per line (or --format jsonl, csv)"

    def can_open(self, argument: str) -> bool:
        """Return whether the argument is `-`."""
        return argument == "-"

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        if argument != "-":
            raise UsageError(
                f"standard input is written as -, not {argument!r}",
                "Write - as SOURCE, or leave --format out.",
                code="stdin-name-invalid",
            )
        return UrlListSource(StdinFileLister(), options)


STDIN_KIND = StdinKind()
