"""Per-host limits of one process: concurrent fetches, Retry-After pauses, and the deadline of a fetch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stair_es.errors import ReadError


class Deadline:
    """The deadline of one fetch, over all redirects and attempts."""

    def __init__(self, timeout_s: float) -> None:
        self.end = time.monotonic() + timeout_s
        """On `time.monotonic`."""

    @property
    def remaining_s(self) -> float:
        """Return the remaining seconds, never negative."""
        return max(0.0, self.end - time.monotonic())

    def extend(self, seconds: float) -> None:
        """Extend the deadline by time spent in a queue of our own."""
        self.end += seconds


MAX_PAUSE_S = 600.0
"""A host that asks for a longer pause is tried again after this."""
_MAX_HOSTS = 1024


class _HostState:
    def __init__(self, per_host: int) -> None:
        self.slots = threading.Semaphore(per_host)
        self.users = 0
        self.not_before = 0.0


class HostLimiter:
    """Concurrency and pauses of all hosts that this process fetches from. Thread-safe; drops idle hosts."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._hosts: dict[str, _HostState] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    @contextmanager
    def acquire_slot(self, name: str, deadline: Deadline, *, heed_pause: bool = True) -> Iterator[None]:
        """Hold one of the host's slots. Waiting for a slot extends the deadline; a pause that the host asked for does not.

        Without `heed_pause` pauses are ignored: an ingest defers the URLs of such a host itself.

        Raises:
            ReadError: If the host asked for a pause longer than the rest of the fetch.
        """
        with self._lock:
            host = self._hosts.setdefault(name, _HostState(self._per_host))
            host.users += 1
        try:
            start = time.monotonic()
            with host.slots:
                deadline.extend(time.monotonic() - start)
                if heed_pause:
                    self._wait_for_pause(host, deadline)
                yield
        finally:
            with self._lock:
                host.users -= 1
                self._forget_idle_hosts(name)

    def pause_host(self, name: str, seconds: float) -> None:
        """Pause requests to the host, which sent Retry-After. Call it while holding one of its slots."""
        with self._lock:
            host = self._hosts[name]
            host.not_before = max(host.not_before, time.monotonic() + min(seconds, MAX_PAUSE_S))

    def _wait_for_pause(self, host: _HostState, deadline: Deadline) -> None:
        pause_s = host.not_before - time.monotonic()
        if pause_s <= 0:
            return
        if pause_s >= deadline.remaining_s:
            raise ReadError(f"asked to wait another {pause_s:.0f} s", "Run again later.")
        time.sleep(pause_s)

    def _forget_idle_hosts(self, name: str) -> None:
        """Drop hosts that are neither in use nor paused: lists may name millions of hosts."""
        names = list(self._hosts) if len(self._hosts) > _MAX_HOSTS else [name]
        now = time.monotonic()
        for host in names:
            if self._hosts[host].users == 0 and self._hosts[host].not_before <= now:
                del self._hosts[host]
