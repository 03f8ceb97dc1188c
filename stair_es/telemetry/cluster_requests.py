"""Requests to the cluster: what they do, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from stair_es.cluster.transport import Asked, Watch

Timed = Callable[["Asked", str, float], None]
"""Gets a request that is over, its operation, and its seconds."""


def timed(watch: Timed) -> Watch:
    """Times each request."""

    @contextmanager
    def around(asked: Asked) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            watch(asked, operation_of(asked)[0], time.perf_counter() - start)

    return around


def failed(asked: Asked) -> bool:
    """Whether a request that is over failed. 404 is an answer: there is no such index, or document."""
    return asked.status is None or (asked.status >= 400 and asked.status != 404)


def operation_of(asked: Asked) -> tuple[str, str]:
    """What a request does, as `search`, and the index, alias or list of them that it names, or nothing.

    The first word of the cluster's own in the path: ids of documents and tasks come after it, and make no name.
    """
    parts = [unquote(part) for part in asked.path.split("/") if part]
    names = [part for part in parts if part.startswith("_")]
    target = parts[0] if parts and not parts[0].startswith("_") else ""
    return (names[0].lstrip("_") if names else "indices" if target else "info"), target
