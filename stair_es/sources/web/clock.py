"""The time that one fetch may take."""

from __future__ import annotations

import time


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
