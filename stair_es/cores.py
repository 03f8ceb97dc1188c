"""How many cores there are for us."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60
"""Version 1 says so by a number that no machine has."""


def read_core_limit(root: Path = ROOT) -> float | None:
    """How many cores' worth of time the quota allows; None without a quota."""
    for quota_us, period_us in _read_quotas(root):
        if quota_us > 0 and period_us > 0:
            return quota_us / period_us
    return None


def read_memory_limit_bytes(root: Path = ROOT) -> int | None:
    """The limit of the memory; None without one."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit = int(path.read_text())
            if limit < _UNLIMITED_BYTES:
                return limit
    return None


def _read_quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Quota and period, each in microseconds."""
    with suppress(OSError, ValueError):
        quota_us, period_us = map(int, (root / "cpu.max").read_text().split())
        yield quota_us, period_us
    with suppress(OSError, ValueError):
        old = root / "cpu"
        yield int((old / "cpu.cfs_quota_us").read_text()), int((old / "cpu.cfs_period_us").read_text())


def usable_cores(cgroup: Path = ROOT) -> int:
    """Those that this process may use: in a container, or under taskset, not all that the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = read_core_limit(cgroup)
    return cores if granted is None else max(1, min(cores, math.ceil(granted)))
