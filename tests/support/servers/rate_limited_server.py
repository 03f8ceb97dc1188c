"""A server of photos under two names, each of which may ask to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from support.corpora.ingest_sources import PHOTOS
from support.servers.fault_proxy import Request, Response, start_server

_PHOTOS = sorted(PHOTOS.glob("*.jpg"))


@dataclass
class RateLimitedServer:
    """A server under two names; the test sets what it answers under each."""

    get_retry_after: Callable[[str], float | None] = lambda path: None
    """Returns the Retry-After of the response for a path; None for the image."""
    requests: list[tuple[float, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer_request(self, request: Request) -> Response:
        """Answer with an image, or with 429."""
        with self.lock:
            wait_s = self.get_retry_after(request.path)
            self.requests.append((time.monotonic(), request.path))
        if wait_s is not None:
            return Response(status=429, headers={"retry-after": f"{wait_s:.0f}"})
        return Response(kind="image/jpeg", body=_PHOTOS[int(request.path[2:-4])].read_bytes())

    def list_items(self, host: Literal["a", "b"], count: int) -> list[SourceItem | ListingFailure]:
        """List the images of one host."""
        base = self.url if host == "a" else self.url.replace("127.0.0.1", "127.1")
        urls = [f"{base}/{host}{number}.jpg" for number in range(count)]
        return [SourceItem(url, "given:", UrlLocator(url)) for url in urls]


@contextmanager
def start_rate_limited_server() -> Iterator[RateLimitedServer]:
    """Start a server that answers with images at first."""
    server = RateLimitedServer()
    with start_server(server.answer_request) as server.url:
        yield server
