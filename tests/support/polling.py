"""Wait for what nothing reports."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL_S = 0.01


def poll_until(is_met: Callable[[], bool], timeout_s: float = 300.0) -> None:
    """Return once a condition is met.

    Raises:
        TimeoutError: If it isn't in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_met():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not met within {timeout_s:g} s")
        time.sleep(_INTERVAL_S)
