"""How many cores there are for us."""

from __future__ import annotations

import math
import os
from pathlib import Path

from stair_es.cgroup import ROOT, read_core_limit


def usable_cores(cgroup: Path = ROOT) -> int:
    """Those that this process may use: in a container, or under taskset, not all that the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = read_core_limit(cgroup)
    return cores if granted is None else max(1, min(cores, math.ceil(granted)))
