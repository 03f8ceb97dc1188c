"""An iterator that runs ahead in a thread of its own: listing an object store mustn't hold up the stages."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")
_POLL_S = 0.1
_LOOK_S = 0.01


class Ahead(Generic[_T]):
    """The items of an iterable, at most `room` of them ahead of whoever takes them. Close it, or use it in a `with`."""

    def __init__(self, items: Iterable[_T], room: int) -> None:
        self._queue: queue.Queue[_T] = queue.Queue(room)
        self._over = threading.Event()
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(iter(items),), name="listing", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ahead[_T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def exhausted(self) -> bool:
        """Nothing is left to take, and nothing will come."""
        return self._over.is_set() and self._queue.empty()

    def check(self) -> None:
        """Nothing, if the iterable came to its end.

        Raises:
            BaseException: What it raised instead, after everything before was there to take.
        """
        if self._error is not None:
            raise self._error

    def take(self, most: int, wait_s: float = 0.0) -> list[_T]:
        """Up to `most` items that are there; waits up to `wait_s` for the first one."""
        taken: list[_T] = []
        try:
            if wait_s:
                taken.append(self._queue.get(timeout=wait_s))
            while len(taken) < most:
                taken.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return taken

    def wait_for(self, count: int, timeout_s: float) -> tuple[int, bool]:
        """How many items are there, once `count` are or no more will come or the time is over; and whether no more will."""
        end_s = time.monotonic() + timeout_s
        while self._queue.qsize() < count and not self._over.is_set():
            if time.monotonic() >= end_s and self._queue.qsize():
                break
            self._over.wait(_LOOK_S)
        over = self._over.is_set()
        return self._queue.qsize(), over

    def close(self) -> None:
        """Stop the thread; the iterable is left where it is."""
        self._closed.set()

    def _run(self, items: Iterator[_T]) -> None:
        try:
            for item in items:
                while not self._closed.is_set():
                    try:
                        self._queue.put(item, timeout=_POLL_S)
                        break
                    except queue.Full:
                        continue
                if self._closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  handed to the thread that takes
            self._error = error
        finally:
            self._over.set()
