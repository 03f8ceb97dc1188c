"""Adaptive size and concurrency of bulk requests, from the requests already sent. Pure: no clock, no threads.

A hill climb with fast back-off. Requests are evaluated in windows of a few with the same setting. A window gives the throughput
of this setting if it is kept busy (Little's law: concurrent requests x bytes / seconds, summed). Then:

- **busy** (429, 5xx, lost, timed out): one request fewer in four (at least one); if there is only one, half the bytes. The next
  window is skipped, because its requests were sent with the old setting. This is Vector's adaptive request concurrency: additive
  increase, multiplicative decrease (its `decrease_ratio` 0.9 is for far more concurrent requests), one decision per round trip,
  and no growth on evidence from requests that did not reach the present limit.
- **413**: the chunk never grows to these bytes again.
- **otherwise** one step up, which is kept only if the throughput improves: first the chunk is enlarged by half, then one request
  is added. Vector compares latencies; here latencies grow with the chunk, so bytes per second are compared instead.
- If neither step helps, the setting is kept for some windows before the next try: the cluster may have more capacity by then.

Data Prepper and Logstash keep size and concurrency as configured and only wait longer between retries; `bulk.writer` does the
waiting here. The climb can't see workers that have too little to write: then more concurrency seems to help, up to
the maximum, which does no harm, since these requests are never sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stair_es.retry import RetryPolicy
from stair_es.store import BulkRequestStats

ThrottleSetting: TypeAlias = tuple[int, int]
"""Chunk bytes, concurrency."""

_FIRST_BYTES = 1024 * 1024
_FIRST_CONCURRENCY = 2
_WINDOW = 4
"""Minimum number of requests; as many as are sent concurrently, if these are more."""
_GAIN = 1.05
_GROWTH = 1.5
_RETREAT = 0.75
_HOLD_WINDOWS = 10
_FULL_SHARE = 0.6
"""A chunk of at least this share of the requested size was not limited by the amount of data."""


@dataclass(frozen=True, kw_only=True)
class BulkPolicy(RetryPolicy):
    """Request sizes, concurrency and retries: by default up to five minutes without progress."""

    attempts: int = 40
    give_up_after_s: float = 300.0
    """Seconds of consecutive failures after which the run stops, regardless of the number of attempts."""
    min_chunk_bytes: int = 256 * 1024
    max_chunk_bytes: int = 8 * 1024 * 1024
    max_chunk_docs: int = 1000
    max_concurrency: int = 0
    """Concurrent requests of all workers together; see `AdaptiveThrottle`. 0 chooses the number by the workers."""

    def choose_concurrency(self, workers: int = 1) -> int:
        """Return the maximum number of concurrent requests of `workers` together: by default 8, or two each if that is more."""
        return self.max_concurrency or max(8, 2 * workers)


class AdaptiveThrottle:
    """Chunk size and concurrency of the requests of a run, or of one of its workers."""

    def __init__(self, policy: BulkPolicy) -> None:
        self._policy = policy
        self._ceiling = policy.max_chunk_bytes
        self.chunk_bytes = self._clamp_bytes(_FIRST_BYTES)
        self._max_concurrency = policy.choose_concurrency()
        self.concurrency = min(_FIRST_CONCURRENCY, self._max_concurrency)
        self._dimension: Literal["chunk", "concurrency"] = "chunk"
        self._baseline: tuple[ThrottleSetting, float] | None = None
        """The setting before the step under evaluation, and its throughput."""
        self._failed_steps = 0
        """Consecutive failed steps: after one of each kind nothing can be gained for now."""
        self._hold = 0
        self._skip = 0
        self._window: list[BulkRequestStats] = []

    def set_max_concurrency(self, maximum: int) -> None:
        """Change the maximum while requests are running: a lower one holds from the next request, a higher one is tried soon."""
        if maximum > self._max_concurrency:
            self._failed_steps = self._hold = 0
        self._max_concurrency = maximum
        if self.concurrency > maximum:
            skipped = self.concurrency - 1  # requests still running with the old setting
            self._apply_setting((self.chunk_bytes, maximum))
            self._skip = skipped

    def record_request(self, request: BulkRequestStats) -> None:
        """Record one request; updates `chunk_bytes` and `concurrency`."""
        if request.too_large:
            self._ceiling = max(min(self._ceiling, request.size_bytes // 2), 1)
            self._apply_setting((self._clamp_bytes(self.chunk_bytes), self.concurrency))
        elif self._skip > 0:
            self._skip -= 1
        elif request.busy:
            self._reduce_load()
        elif request.seconds > 0:
            self._window.append(request)
            if len(self._window) >= max(_WINDOW, self.concurrency):
                self._evaluate_window()

    def _clamp_bytes(self, chunk_bytes: float) -> int:
        return int(min(max(chunk_bytes, self._policy.min_chunk_bytes), self._ceiling))

    def _apply_setting(self, setting: ThrottleSetting) -> None:
        """Set a setting that is not under evaluation."""
        self.chunk_bytes, self.concurrency = setting
        self._baseline, self._window = None, []

    def _reduce_load(self) -> None:
        skipped = self.concurrency - 1  # requests still running with the old setting
        if self.concurrency > 1:
            self._apply_setting((self.chunk_bytes, max(1, math.floor(self.concurrency * _RETREAT))))
        else:
            self._apply_setting((self._clamp_bytes(self.chunk_bytes / 2), 1))
        self._skip, self._failed_steps, self._hold = skipped, 0, 2

    def _evaluate_window(self) -> None:
        window, self._window = self._window, []
        throughput = self.concurrency * sum(request.size_bytes for request in window) / sum(request.seconds for request in window)
        full = sum(request.size_bytes for request in window) >= _FULL_SHARE * self.chunk_bytes * len(window)
        if self._baseline is not None:
            self._evaluate_step(throughput)
        if self._hold > 0:
            self._hold -= 1
        elif self._failed_steps >= 2:
            self._failed_steps, self._hold = 0, _HOLD_WINDOWS
        else:
            self._try_step(throughput, full)

    def _evaluate_step(self, throughput: float) -> None:
        """Keep or revert the step under evaluation."""
        assert self._baseline is not None
        setting, baseline = self._baseline
        if throughput >= baseline * _GAIN:
            self._baseline, self._failed_steps = None, 0
            return
        skipped = self.concurrency - 1
        self._apply_setting(setting)
        self._skip = skipped
        self._record_failed_step()
        self._hold = max(self._hold, 1)  # measure the old setting again before the next step

    def _record_failed_step(self) -> None:
        self._failed_steps += 1
        self._dimension = "concurrency" if self._dimension == "chunk" else "chunk"

    def _try_step(self, throughput: float, full: bool) -> None:
        larger_bytes = self._clamp_bytes(self.chunk_bytes * _GROWTH)
        for _ in range(2):
            if self._dimension == "chunk" and full and larger_bytes > self.chunk_bytes:
                setting = (larger_bytes, self.concurrency)
            elif self._dimension == "concurrency" and self.concurrency < self._max_concurrency:
                setting = (self.chunk_bytes, self.concurrency + 1)
            else:  # at its limit
                self._record_failed_step()
                continue
            self._baseline = ((self.chunk_bytes, self.concurrency), throughput)
            self._skip = self.concurrency  # sent before the step
            self.chunk_bytes, self.concurrency = setting
            return
