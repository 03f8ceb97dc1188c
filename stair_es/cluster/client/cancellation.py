"""Cancellation of waits: the end of a run must not take as long as its retries while the cluster is down."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

from stair_es.errors import IngestError

CANCEL_EVENT: ContextVar[threading.Event | None] = ContextVar("stop", default=None)
"""Event that cancels the work of the current thread; set when the thread starts."""


def sleep_unless_cancelled(seconds: float) -> None:
    """Sleep, unless the work of this thread is cancelled.

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
        raise IngestError("cancelled because the run is ending", "Run it again: it resumes from there.")
