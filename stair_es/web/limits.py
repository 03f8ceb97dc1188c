"""Limiters for concurrent work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

from stair_es.web.errors import RequestRejected


class TooManyRequests(RequestRejected):
    """Too many requests are waiting already."""

    def __init__(self) -> None:
        super().__init__(429, "too many requests", "Try again in a moment.")


class ConcurrencyLimiter:
    """Limiter for CPU-bound work."""

    def __init__(self, max_concurrent: int, max_waiting: int, wait_s: float) -> None:
        """Create a limiter; `max_waiting` further calls may wait, for `wait_s` seconds at most."""
        self._running = threading.BoundedSemaphore(max_concurrent)
        self._admitted = threading.BoundedSemaphore(max_concurrent + max_waiting)
        self._wait_s = wait_s

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for a slot and hold it during the `with` statement.

        Raises:
            TooManyRequests: If too many calls wait, or the waiting time is over.
        """
        if not self._admitted.acquire(blocking=False):
            raise TooManyRequests
        try:
            if not self._running.acquire(timeout=self._wait_s):
                raise TooManyRequests
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._admitted.release()


class SharedCores:
    """Lets one call use all threads of BLAS, and each of several calls only one.

    The threads of OpenBLAS spin while they wait: several calls with all of them take each other's time, and on a busy machine
    many times their own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._controller: ThreadpoolController | None = None
        self._limiter: Any = None

    @contextmanager
    def share(self) -> Iterator[None]:
        """Share the cores with other calls during the `with` statement."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._calls += change
            if self._calls > 1 and self._limiter is None:
                self._controller = self._controller or ThreadpoolController()  # looks for the libraries: milliseconds
                self._limiter = self._controller.limit(limits=1)
            elif self._calls <= 1 and self._limiter is not None:
                self._limiter.restore_original_limits()
                self._limiter = None
