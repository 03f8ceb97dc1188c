"""CPU and memory limits of this process: affinity and cgroup (version 2, or version 1 where it is still in use)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60
"""Cgroup version 1 reports a number above this if there is no limit."""


def read_core_limit(root: Path = CGROUP_ROOT) -> float | None:
    """Return how many cores' worth of CPU time the cgroup's quota allows; None without a quota."""
    for quota_us, period_us in _read_cpu_quotas(root):
        if quota_us > 0 and period_us > 0:
            return quota_us / period_us
    return None


def read_memory_limit_bytes(root: Path = CGROUP_ROOT) -> int | None:
    """Return the cgroup's memory limit in bytes; None without a limit."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            limit = int(path.read_text())
            if limit < _UNLIMITED_BYTES:
                return limit
    return None


def _read_cpu_quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Yield quota and period, each in microseconds."""
    with suppress(OSError, ValueError):
        quota_us, period_us = map(int, (root / "cpu.max").read_text().split())
        yield quota_us, period_us
    with suppress(OSError, ValueError):
        v1 = root / "cpu"
        yield int((v1 / "cpu.cfs_quota_us").read_text()), int((v1 / "cpu.cfs_period_us").read_text())


def count_usable_cores(cgroup: Path = CGROUP_ROOT) -> int:
    """Count the cores that this process may use, which are fewer than the machine has in a container or under taskset."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = read_core_limit(cgroup)
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))
