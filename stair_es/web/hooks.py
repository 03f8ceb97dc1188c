"""Telemetry hooks of the server; by default they do nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeAlias

EncodedKind: TypeAlias = Literal["text", "image"]
ROUTE_PATTERN_KEY = "stair_es.pattern"
"""Key in the ASGI scope: the path pattern of the matched route, such as `/image/{id}`. Absent if no route matched."""


class ServerHooks(Protocol):
    """Hooks for metrics and traces. Called from many threads concurrently."""

    def track_encoding(self, kind: EncodedKind) -> AbstractContextManager[object]:
        """Track the encoding of a text or an image, without the time waiting for a slot."""

    def record_search_time(self, seconds: float) -> None:
        """Record the time of a search in the cluster, in seconds (`took`)."""

    def track_upload(self) -> AbstractContextManager[object]:
        """Track the processing of an uploaded image, from its first byte to its tokens."""

    def count_thumbnail(self, *, cached: bool) -> None:
        """Count a request for a thumbnail; `cached` tells whether it was in the cache."""


class NoopHooks:
    """Hooks that do nothing."""

    def track_encoding(self, kind: EncodedKind) -> AbstractContextManager[object]:
        """Ignore an encoding."""
        return nullcontext()

    def record_search_time(self, seconds: float) -> None:
        """Ignore the time of a search."""

    def track_upload(self) -> AbstractContextManager[object]:
        """Ignore an upload."""
        return nullcontext()

    def count_thumbnail(self, *, cached: bool) -> None:
        """Ignore a request for a thumbnail."""
