"""An image behind a URL."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.extras import need
from stair_es.sources.web.text import shown

if TYPE_CHECKING:
    from stair_es.sources.item import Read, Reading
    from stair_es.types import Json


@dataclass(frozen=True, repr=False)
class UrlAt:
    """Bytes behind an http(s) URL, fetched under the limits of `Reading.urls`."""

    url: str

    def __repr__(self) -> str:
        return f"UrlAt({shown(self.url)!r})"

    @property
    def host(self) -> str:
        """Its host, by the name that the fetcher gives it: in lower case, Punycode decoded; empty for a malformed URL.

        Raises:
            MissingExtra: The HTTP library isn't installed.
        """
        need("httpx2", "urls")
        import httpx2

        with suppress(httpx2.InvalidURL, ValueError):
            return httpx2.URL(self.url).host
        return ""

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The bytes; None if the server says that they still are those of version `known`.

        Raises:
            ReadError: Not allowed, or not to be had, with the reason.
            TryLater: With `reading.defer`, the host asks to wait.
            MissingExtra: The HTTP library isn't installed.
        """
        need("httpx2", "urls")
        from stair_es.sources.web.client import fetcher

        return fetcher(reading.urls).fetch(self.url, reading.max_bytes, known, defer=reading.defer)

    def to_json(self) -> dict[str, Json]:
        """What `places.from_json` makes the same place of. Holds the whole URL, with its signature if it has one."""
        return {"kind": "url", "url": self.url}
