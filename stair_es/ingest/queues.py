"""Queues that are bounded by the number of their items and by their total size."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class SizedQueue(Generic[_T]):
    """A queue that knows the total size of its items. It accepts items when it is full. Not thread-safe."""

    def __init__(self, size_of: Callable[[_T], int], max_items: int, max_size: int) -> None:
        """Start empty. `size_of` returns the size of an item."""
        self._size_of, self._max_items, self._max_size = size_of, max_items, max_size
        self._items: deque[tuple[_T, int]] = deque()
        self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether the items are many or large; a single one is never too large."""
        return bool(self._items) and (len(self._items) >= self._max_items or self.size >= self._max_size)

    def append(self, item: _T) -> None:
        """Add an item at the end."""
        size = self._size_of(item)
        self._items.append((item, size))
        self.size += size

    def take(self, count: int, is_wanted: Callable[[_T], bool] = lambda _: True) -> list[_T]:
        """Take the first items that are wanted, up to `count`."""
        taken, others = list[_T](), list[tuple[_T, int]]()
        while self._items and len(taken) < count:
            item, size = self._items.popleft()
            if is_wanted(item):
                taken.append(item)
                self.size -= size
            else:
                others.append((item, size))
        self._items.extendleft(reversed(others))
        return taken


class PrefetchQueue(Generic[_T]):
    """A bounded queue of the items of an iterable, filled by a thread. Close it, or use it in a `with` statement.

    Listing an object store must not hold up the stages. One thread appends and one takes, which a deque allows without a lock:
    the lock is only for waiting, so that a listed item costs neither a lock nor a wake-up.
    """

    def __init__(
        self,
        items: Iterable[_T],
        max_items: int,
        size_of: Callable[[_T], int] = lambda _: 0,
        max_size: int = 1 << 28,
    ) -> None:
        """Start the thread that iterates over `items`. An item larger than `max_size` is queued alone."""
        self._items: deque[tuple[_T, int]] = deque()
        self._size_of, self._max_items, self._max_size = size_of, max_items, max_size
        self._listed_size = self._taken_size = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._awaited: Callable[[], bool] | None = None
        """What the taking thread waits for."""
        self._thread = threading.Thread(target=self._fill_queue, args=(iter(items),), name="listing", daemon=True)
        self._thread.start()

    def __enter__(self) -> PrefetchQueue[_T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_exhausted(self) -> bool:
        """Whether the queue is empty and the iterable has ended."""
        return self._ended and not self._items

    def raise_error(self) -> None:
        """Raise the exception that ended the iterable, if one did.

        Everything listed before it can be taken first.
        """
        if self._error is not None:
            raise self._error

    def take(self, max_items: int, wait_s: float = 0.0) -> list[_T]:
        """Take up to `max_items` items from the queue, waiting up to `wait_s` seconds for the first one."""
        if wait_s and not self._items:
            self._wait_for(lambda: bool(self._items) or self._ended, wait_s)
        taken = [self._items.popleft() for _ in range(min(max_items, len(self._items)))]
        with self._changed:
            self._taken_size += sum(size for _, size in taken)
            self._changed.notify_all()
        return [item for item, _ in taken]

    def wait_for_items(self, count: int = 1) -> int:
        """Wait until `count` items are in the queue, it is full, or the iterable has ended; return how many there are."""
        self._wait_for(lambda: len(self._items) >= count or self._ended or self._is_full())
        return len(self._items)

    def close(self) -> None:
        """Stop the thread at the next item. The iterable is not closed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full(self) -> bool:
        is_large = self._listed_size - self._taken_size >= self._max_size
        return bool(self._items) and (is_large or len(self._items) >= self._max_items)

    def _wait_for(self, is_reached: Callable[[], bool], timeout_s: float | None = None) -> None:
        with self._changed:
            self._awaited = is_reached  # before it is evaluated here: an item that comes afterwards finds it
            self._changed.wait_for(is_reached, timeout_s)
            self._awaited = None

    def _fill_queue(self, items: Iterator[_T]) -> None:
        try:
            for item in items:
                if self._is_full():
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed or not self._is_full())
                if self._closed:
                    return
                size = self._size_of(item)
                self._listed_size += size
                self._items.append((item, size))
                awaited = self._awaited
                if awaited is not None and awaited():
                    with self._changed:
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  re-raised in the consuming thread
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
