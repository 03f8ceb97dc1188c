"""So many at a time, some more may wait, the others are turned away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Busy(Exception):
    """Too many wait already."""


class Gate:
    """Around work that keeps a core busy."""

    def __init__(self, at_once: int, waiting: int, wait_s: float) -> None:
        """An open gate.

        Args:
            at_once: How many may be inside.
            waiting: How many more may stand in front of it.
            wait_s: How long they do at most.
        """
        self._inside = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + waiting)
        self._wait_s = wait_s

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside.

        Raises:
            Busy: There is no place.
        """
        if not self._places.acquire(blocking=False):
            raise Busy
        try:
            if not self._inside.acquire(timeout=self._wait_s):
                raise Busy
            try:
                yield
            finally:
                self._inside.release()
        finally:
            self._places.release()
