"""An iterator that runs ahead in a thread of its own: listing an object store mustn't hold up the stages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Ahead(Generic[_T]):
    """The items of an iterable, a bounded number of them ahead of whoever takes them. Close it, or use it in a `with`."""

    def __init__(
        self, items: Iterable[_T], room: int, weigh: Callable[[_T], int] = lambda _: 0, most_weight: int = 1 << 28
    ) -> None:
        """The thread starts at once.

        Args:
            items: Iterated in the thread.
            room: How many items may be ahead.
            weigh: What an item weighs.
            most_weight: What all items ahead may weigh; one that is heavier is ahead alone.
        """
        self._room, self._weigh, self._most_weight = room, weigh, most_weight
        self._ahead: deque[tuple[_T, int]] = deque()
        self._weight = 0
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(iter(items),), name="listing", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ahead[_T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def exhausted(self) -> bool:
        """Nothing is left to take, and nothing will come."""
        with self._changed:
            return self._over and not self._ahead

    def check(self) -> None:
        """Nothing, if the iterable came to its end.

        Raises:
            BaseException: What it raised instead, after everything before was there to take.
        """
        if self._error is not None:
            raise self._error

    def take(self, most: int, wait_s: float = 0.0) -> list[_T]:
        """Up to `most` items that are there; waits up to `wait_s` for the first one."""
        with self._changed:
            if wait_s:
                self._changed.wait_for(lambda: self._ahead or self._over, wait_s)
            taken = [self._ahead.popleft() for _ in range(min(most, len(self._ahead)))]
            self._weight -= sum(weight for _, weight in taken)
            self._changed.notify_all()
        return [item for item, _ in taken]

    def wait_for(self, count: int, timeout_s: float) -> tuple[int, bool]:
        """How many items are there, and whether no more will come.

        Returns when `count` are there, when there is no room for more, when no more will come, or when the time is over and
        at least one is there.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._ahead) >= count or self._over or self._is_full(), timeout_s)
            self._changed.wait_for(lambda: self._ahead or self._over)
            return len(self._ahead), self._over

    def close(self) -> None:
        """Stop the thread at the next item; the iterable is left where it is."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full(self) -> bool:
        return bool(self._ahead) and (len(self._ahead) >= self._room or self._weight >= self._most_weight)

    def _run(self, items: Iterator[_T]) -> None:
        try:
            for item in items:
                weight = self._weigh(item)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or not self._is_full())
                    if self._closed:
                        return
                    self._ahead.append((item, weight))
                    self._weight += weight
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001  handed to the thread that takes
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
