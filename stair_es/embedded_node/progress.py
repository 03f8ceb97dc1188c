"""Progress of a download: a bar on a terminal, otherwise an occasional line. Always on stderr."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_LOG_INTERVAL_S = 5.0


@contextmanager
def track_download(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Yield a thread-safe function that takes the number of bytes received."""
    if sys.stderr.isatty():
        with _show_bar(total_bytes) as advance:
            yield advance
    else:
        yield DownloadLog(total_bytes).add_bytes


class DownloadLog:
    """Progress for a log: at most one line per five seconds."""

    def __init__(self, total_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total_bytes
        self._clock = clock
        self._start_s = self._logged_s = clock()
        self._done = 0
        self._lock = threading.Lock()

    def add_bytes(self, count: int) -> None:
        """Add `count` received bytes."""
        with self._lock:
            self._done = min(self._done + count, self._total)
            now = self._clock()
            if now - self._logged_s < _LOG_INTERVAL_S or not self._done:
                return
            self._logged_s = now
            remaining_s = (now - self._start_s) * (self._total - self._done) / self._done
            logger.info("fetched %.0f of %.0f MB, %.0f s left", self._done / 1e6, self._total / 1e6, remaining_s)


@contextmanager
def _show_bar(total_bytes: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total_bytes)
        yield lambda count: progress.advance(task, count)
