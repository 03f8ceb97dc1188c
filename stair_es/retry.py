"""Retries of HTTP requests: which statuses are temporary, how long to wait, and what ends a wait early."""

from __future__ import annotations

import random
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stair_es.errors import IngestError

BUSY_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses with which a server, or a proxy in front of it, reports that it is temporarily unavailable."""
CANCEL_EVENT: ContextVar[threading.Event | None] = ContextVar("stop", default=None)
"""Event that cancels the work of the current thread; set when the thread starts."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Number of attempts and back-off: by default for about a minute."""

    attempts: int = 8
    backoff_s: float = 0.5
    """Delay before the second attempt; doubles up to `max_backoff_s`, each time with jitter (half to full)."""
    max_backoff_s: float = 15.0
    max_retry_after_s: float = 60.0
    """Maximum delay that a server may request by `Retry-After`."""

    def compute_delay_s(self, attempt: int, retry_after_s: float | None = None) -> float:
        """Compute the delay after attempt number `attempt` (from 1) failed, in seconds.

        A delay that the server requests by `Retry-After` is a minimum, with jitter so that clients don't all return at the same
        moment.
        """
        full_s: float = min(self.max_backoff_s, self.backoff_s * 2 ** (attempt - 1))
        delay_s = full_s * random.uniform(0.5, 1.0)
        if retry_after_s is None:
            return delay_s
        return max(delay_s, min(retry_after_s, self.max_retry_after_s) + random.uniform(0.0, self.backoff_s))


def parse_retry_after(retry_after: str) -> float | None:
    """Parse a `Retry-After` header (seconds or a date) into seconds from now; None if it is invalid."""
    value = retry_after.strip()
    if value.isascii() and value.isdigit():
        return float(value)  # infinite for hundreds of digits; callers limit it
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # `-0000`, and RFC 850's GMT on some versions: HTTP dates are always GMT
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def sleep_unless_cancelled(seconds: float) -> None:
    """Sleep, unless the work of this thread is cancelled: the end of a run must not take as long as its retries.

    Raises:
        IngestError: If it was cancelled before or during the sleep.
    """
    event = CANCEL_EVENT.get()
    if event is None:
        time.sleep(seconds)
    else:
        event.wait(seconds)
        raise_if_cancelled()


def raise_if_cancelled() -> None:
    """Raise IngestError if the work of this thread was cancelled."""
    event = CANCEL_EVENT.get()
    if event is not None and event.is_set():
        raise IngestError("cancelled because the run is ending", "Run it again: it resumes from there.", code="run-cancelled")
