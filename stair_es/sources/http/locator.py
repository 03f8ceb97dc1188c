"""The locator of an image at a URL."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stair_es.optional import import_optional
from stair_es.sources.http.urls import redact_web_url

if TYPE_CHECKING:
    from stair_es.sources.base import ReadLimits, ReadResult
    from stair_es.types import Json


@dataclass(frozen=True, repr=False)
class UrlLocator:
    """Bytes at an http(s) URL, fetched under the limits of `ReadLimits.url_policy`."""

    url: str

    def __repr__(self) -> str:
        return f"UrlLocator({redact_web_url(self.url)!r})"

    @property
    def host(self) -> str:
        """Return the host as the fetcher names it: lower case, Punycode decoded; empty for a malformed URL."""
        import_optional("httpx2", "urls")
        import httpx2

        with suppress(httpx2.InvalidURL, ValueError):
            return httpx2.URL(self.url).host
        return ""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the bytes, or None if the server reports that `known_version` is still current."""
        import_optional("httpx2", "urls")
        from stair_es.sources.http.fetcher import get_fetcher

        return get_fetcher(limits.url_policy).fetch(self.url, limits.max_bytes, known_version, defer=limits.defer)

    def to_json(self) -> dict[str, Json]:
        """Return JSON for `restore_locator`. It contains the whole URL, including a signature."""
        return {"kind": "url", "url": self.url}
