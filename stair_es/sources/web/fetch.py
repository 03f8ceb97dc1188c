"""An image behind a URL."""

from __future__ import annotations

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

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The bytes; None if the server says that they still are those of version `known`.

        Raises:
            ReadError: Not allowed, or not to be had, with the reason.
            MissingExtra: The HTTP library isn't installed.
        """
        need("httpx2", "urls")
        from stair_es.sources.web.client import fetcher

        return fetcher(reading.urls).fetch(self.url, reading.max_bytes, known)

    def to_json(self) -> dict[str, Json]:
        """What `places.from_json` makes the same place of. Holds the whole URL, with its signature if it has one."""
        return {"kind": "url", "url": self.url}
