"""Telemetry hooks of the server, which do nothing by default, and what telemetry knows of its routes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeAlias

EncodedKind: TypeAlias = Literal["text", "image"]
HEALTH_PATH = "/health"
"""The only path without access checks: probes of a pod have no token, and use its address as host. It only reports that the
server responds."""
ROUTE_PATTERN_KEY = "stair_es.pattern"
"""Key in the ASGI scope: the path pattern of the matched route, such as `/image/{id}`. Absent if no route matched."""


class ServerHooks:
    """Hooks for metrics and traces, which do nothing here. Called from many threads concurrently."""

    def track_encoding(self, kind: EncodedKind) -> AbstractContextManager[object]:
        """Track the encoding of a text or an image, without the time waiting for a slot."""
        return nullcontext()

    def record_search_time(self, seconds: float) -> None:
        """Record the time of a search in the cluster, in seconds (`took`)."""

    def track_upload(self) -> AbstractContextManager[object]:
        """Track the processing of an uploaded image, from its first byte to its tokens."""
        return nullcontext()

    def count_thumbnail(self, *, cached: bool) -> None:
        """Count a request for a thumbnail; `cached` is true if it was in the cache."""

    def watch_queue(self, count_waiting: Callable[[], int]) -> None:
        """Watch a queue of texts and images that wait to be encoded; `count_waiting` returns how many there are."""

    def record_batch(self, size: int, waited_s: Sequence[float]) -> None:
        """Record a batch of texts or images that begins to be encoded, and how long each has waited, in seconds."""

    def record_encode_request(self, input_count: int, error_type: str | None, seconds: float) -> None:
        """Record a finished request of the encoder's API. `seconds` excludes its body; `error_type` is None on success."""
