"""Calling off what waits: the end of a run mustn't take as long as its patience with a cluster that is away."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar

from stair_es.errors import IngestError

STOP: ContextVar[threading.Event | None] = ContextVar("stop", default=None)
"""Of a thread whose work can be called off: set in the thread, by whoever starts it."""


def pause(seconds: float) -> None:
    """Sleep.

    Raises:
        IngestError: The work of this thread was called off, before or meanwhile.
    """
    stop = STOP.get()
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)
        go_on()


def go_on() -> None:
    """Nothing, unless the work of this thread was called off.

    Raises:
        IngestError: It was.
    """
    stop = STOP.get()
    if stop is not None and stop.is_set():
        raise IngestError("called off, since the run ends", "Run it again: it goes on from there.")
