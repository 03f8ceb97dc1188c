"""Per-host limits of one process: concurrent fetches, Retry-After pauses, and the deadline of a fetch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stair_es.errors import ReadError


class Clock:
    """Runs down once, over all hops and attempts of a fetch."""

    def __init__(self, timeout_s: float) -> None:
        self.end = time.monotonic() + timeout_s
        """On `time.monotonic`."""

    @property
    def remaining_s(self) -> float:
        """Never negative."""
        return max(0.0, self.end - time.monotonic())

    def stand_still(self, seconds: float) -> None:
        """Don't count these: they were spent in a queue of our own."""
        self.end += seconds


MAX_PAUSE_S = 600.0
"""A host that asks for more is asked again after this."""
_MANY = 1024


class _Host:
    def __init__(self, per_host: int) -> None:
        self.slots = threading.Semaphore(per_host)
        self.users = 0
        self.not_before = 0.0


class Hosts:
    """The turns of all hosts that this process fetches from. Thread safe; forgets hosts that nothing is known about."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @contextmanager
    def turn(self, name: str, clock: Clock, *, heed_pause: bool = True) -> Iterator[None]:
        """Hold one of the host's slots. Waiting for it isn't charged to the clock; a pause that the host asked for is.

        Args:
            name: The host.
            clock: Of the fetch.
            heed_pause: Sleep through a pause. An ingest keeps the URLs of such a host back itself, and asks when it is time.

        Raises:
            ReadError: The host asked to be left alone for longer than the fetch may last.
        """
        with self._lock:
            host = self._hosts.setdefault(name, _Host(self._per_host))
            host.users += 1
        try:
            asked = time.monotonic()
            with host.slots:
                clock.stand_still(time.monotonic() - asked)
                if heed_pause:
                    self._sit_out(host, clock)
                yield
        finally:
            with self._lock:
                host.users -= 1
                self._forget(name)

    def pause(self, name: str, seconds: float) -> None:
        """Leave the host alone for so long: it said Retry-After. To be called during a turn at it."""
        with self._lock:
            host = self._hosts[name]
            host.not_before = max(host.not_before, time.monotonic() + min(seconds, MAX_PAUSE_S))

    def _sit_out(self, host: _Host, clock: Clock) -> None:
        pause_s = host.not_before - time.monotonic()
        if pause_s <= 0:
            return
        if pause_s >= clock.remaining_s:
            raise ReadError(f"asked to be left alone for {pause_s:.0f} s more", "Run again later.")
        time.sleep(pause_s)

    def _forget(self, name: str) -> None:
        """Lists name millions of hosts: keep those in use and those that are pausing."""
        names = list(self._hosts) if len(self._hosts) > _MANY else [name]
        now = time.monotonic()
        for each in names:
            if self._hosts[each].users == 0 and self._hosts[each].not_before <= now:
                del self._hosts[each]
