"""How large bulk requests should be, and how many at a time: learnt from those that were sent. Pure: no clock, no threads.

A hill climb with sharp retreats. Requests are looked at in windows of a few of one setting. What a window says is the
throughput that this setting gives if it is kept busy (Little's law: requests under way x bytes / seconds, summed). From there:

- **busy** (429, 5xx, lost, timed out): one request fewer in four (at least one); if there is but one, half the bytes. Then a
  window is passed over, because what was under way was sent at the old setting. That is Vector's adaptive request
  concurrency: additive up, multiplicative down (its `decrease_ratio` 0.9 is for far more requests in flight), one decision a
  round trip, and no growth on evidence from requests that did not fill the present limit.
- **413**: the chunk never grows to these bytes again.
- **else** one step up, and it stays only if the throughput gains by it: the chunk half as large again, then one request more.
  Vector compares latencies for that; ours grow with the chunk, so bytes per second are compared instead.
- Where neither step gains, the setting holds for some windows before the next try: the cluster may have got more room.

Data Prepper and Logstash keep size and concurrency as configured and only wait longer between repetitions; waiting is the
business of `bulk` here. One thing the climb can't see: workers that have too little to write. Then more requests under way
seem to gain, and the bound is `max_concurrency`; nothing is lost by it, since they aren't under way.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from stair_es.cluster.bulk import BulkPolicy, Sent

Setting: TypeAlias = tuple[int, int]
"""Chunk bytes, concurrency."""

_FIRST_BYTES = 1024 * 1024
_FIRST_CONCURRENCY = 2
_WINDOW = 4
"""Requests at least; as many as are under way, if these are more."""
_GAIN = 1.05
_GROWTH = 1.5
_RETREAT = 0.75
_HOLD_WINDOWS = 10
_FULL = 0.6
"""A chunk of this share of the wanted size was not limited by what there was to write."""


class Pace:
    """The controller of one run; lives on the driver."""

    def __init__(self, policy: BulkPolicy) -> None:
        self._policy = policy
        self._ceiling = policy.max_chunk_bytes
        self.chunk_bytes = self._within(_FIRST_BYTES)
        """How large each request should be."""
        self.concurrency = min(_FIRST_CONCURRENCY, policy.max_concurrency)
        """How many requests may be under way."""
        self._dimension: Literal["chunk", "concurrency"] = "chunk"
        self._before: tuple[Setting, float] | None = None
        """Where the step that is being tried came from, and the throughput there."""
        self._failed_steps = 0
        """In a row: after one of each kind there is nothing to gain for now."""
        self._hold = 0
        self._skip = 0
        self._window: list[Sent] = []

    def observe(self, sent: Sent) -> None:
        """Take one request into account; sets `chunk_bytes` and `concurrency`."""
        if sent.too_large:
            self._ceiling = max(min(self._ceiling, sent.bytes // 2), 1)
            self._go_to((self._within(self.chunk_bytes), self.concurrency))
        elif self._skip > 0:
            self._skip -= 1
        elif sent.busy:
            self._retreat()
        elif sent.seconds > 0:
            self._window.append(sent)
            if len(self._window) >= max(_WINDOW, self.concurrency):
                self._decide()

    def _within(self, chunk_bytes: float) -> int:
        return int(min(max(chunk_bytes, self._policy.min_chunk_bytes), self._ceiling))

    def _go_to(self, setting: Setting) -> None:
        """A setting that is not on trial."""
        self.chunk_bytes, self.concurrency = setting
        self._before, self._window = None, []

    def _retreat(self) -> None:
        skipped = self.concurrency - 1  # what is still under way from before
        if self.concurrency > 1:
            self._go_to((self.chunk_bytes, max(1, math.floor(self.concurrency * _RETREAT))))
        else:
            self._go_to((self._within(self.chunk_bytes / 2), 1))
        self._skip, self._failed_steps, self._hold = skipped, 0, 2

    def _decide(self) -> None:
        window, self._window = self._window, []
        throughput = self.concurrency * sum(sent.bytes for sent in window) / sum(sent.seconds for sent in window)
        full = sum(sent.bytes for sent in window) >= _FULL * self.chunk_bytes * len(window)
        if self._before is not None:
            self._judge(throughput)
        if self._hold > 0:
            self._hold -= 1
        elif self._failed_steps >= 2:
            self._failed_steps, self._hold = 0, _HOLD_WINDOWS
        else:
            self._step(throughput, full)

    def _judge(self, throughput: float) -> None:
        """Whether the step on trial stays."""
        assert self._before is not None
        setting, before = self._before
        if throughput >= before * _GAIN:
            self._before, self._failed_steps = None, 0
            return
        skipped = self.concurrency - 1
        self._go_to(setting)
        self._skip = skipped
        self._step_failed()
        self._hold = max(self._hold, 1)  # measure the old setting anew before the next step

    def _step_failed(self) -> None:
        self._failed_steps += 1
        self._dimension = "concurrency" if self._dimension == "chunk" else "chunk"

    def _step(self, throughput: float, full: bool) -> None:
        larger = self._within(self.chunk_bytes * _GROWTH)
        for _ in range(2):
            if self._dimension == "chunk" and full and larger > self.chunk_bytes:
                wanted = (larger, self.concurrency)
            elif self._dimension == "concurrency" and self.concurrency < self._policy.max_concurrency:
                wanted = (self.chunk_bytes, self.concurrency + 1)
            else:  # at its bound
                self._step_failed()
                continue
            self._before = ((self.chunk_bytes, self.concurrency), throughput)
            self._skip = self.concurrency  # sent before the step
            self.chunk_bytes, self.concurrency = wanted
            return
