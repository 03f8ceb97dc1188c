"""How busy the encoders were."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class EncoderClock:
    """How much of the time the encoders had work, from the first finished batch to the last: before it they load the model."""

    encoders: int
    busy_s: float = 0.0
    _first: float | None = None
    _last: float = 0.0

    def finished(self, seconds: float) -> None:
        """An encode took `seconds` and was seen to be over now."""
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
        else:
            self.busy_s += seconds

    @property
    def idle_share(self) -> float | None:
        """0..1; None where too little was encoded to tell."""
        span = self._last - self._first if self._first is not None else 0.0
        return max(0.0, 1.0 - self.busy_s / (span * self.encoders)) if span > 0 and self.busy_s > 0 else None
