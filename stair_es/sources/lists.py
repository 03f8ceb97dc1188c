"""The source kinds `urls` and `stdin`: lists of URLs and paths, one per line, and single http(s) URLs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from stair_es.errors import UsageError
from stair_es.sources.files import Found
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.limits import LIST_LINE_BYTES
from stair_es.sources.lines import numbered
from stair_es.sources.opened import StdinFiles, files_at, opened
from stair_es.sources.paths import LIST, ends_with, names_container, scheme_of
from stair_es.sources.remote import clean
from stair_es.sources.tables import Table
from stair_es.sources.web.fetch import UrlAt
from stair_es.sources.web.text import with_login


class Lines(Table):
    """URLs and paths, one per line; empty lines and lines that start with `#` are skipped."""

    def _rows(self, table: Found) -> Iterator[Item | Unlisted]:
        with opened(table) as file:
            for number, line in numbered(file, LIST_LINE_BYTES, comment=b"#"):
                where = f"{table.uri}#line={number}"
                if line is None:
                    yield Unlisted(where, self.uri, "the line is too long")
                    continue
                try:
                    text = line.decode().strip()
                except UnicodeDecodeError:
                    if number == 1:  # a table or tar without its suffix: one error, not a dead letter per line
                        raise UsageError(
                            f"{table.uri} is not a list in UTF-8",
                            "A list has one URL or path per line. Use --format if it is something else.",
                        ) from None
                    yield Unlisted(where, self.uri, "not UTF-8")
                    continue
                if text:
                    yield self._take({"image": text}, "image", table, f"line={number}")


@dataclass(frozen=True)
class OneUrl:
    """An image at a URL."""

    url: str = field(repr=False)
    ignored: Mapping[str, int] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """Return the URL without credentials and signature."""
        return clean(self.url)

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield the one item."""
        yield Item(self.uri, self.uri, UrlAt(self.url))


@dataclass(frozen=True)
class UrlsKind:
    """Opens `urls` sources."""

    name: str = "urls"
    description: str = "lists of URLs and paths (.txt, one per line), and single http(s):// images"

    def claims(self, argument: str) -> bool:
        """Return whether the argument is a `.txt`, or a web URL that does not look like a table or a tar."""
        return ends_with(argument, LIST) or (scheme_of(argument) in ("http", "https") and not names_container(argument))

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            UsageError: If a local list does not exist, or the URL of an image contains credentials.
        """
        if scheme_of(argument) in ("http", "https") and not ends_with(argument, LIST):
            if reason := with_login(argument):
                raise UsageError(reason, "A password in a URL would end up in shell histories, reports and documents.")
            return OneUrl(argument)
        return Lines(files_at(argument, LIST, options.walk), options)


URLS_KIND = UrlsKind()


@dataclass(frozen=True)
class StdinKind:
    """Opens `-`."""

    name: str = "stdin"
    description: str = "- : URLs and paths on standard input, one per line (or --format jsonl, csv)"

    def claims(self, argument: str) -> bool:
        """Return whether the argument is `-`."""
        return argument == "-"

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            UsageError: If the argument is not `-`.
        """
        if argument != "-":
            raise UsageError(f"standard input is -, not {argument!r}", "Write - as SOURCE, or leave --format out.")
        return Lines(StdinFiles(), options)


STDIN_KIND = StdinKind()
