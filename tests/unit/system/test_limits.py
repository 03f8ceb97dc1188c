"""Limits that a container sets to processors and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stair_es.doctor.machine import get_memory_bytes
from stair_es.system.limits import count_usable_cores, read_memory_limit_bytes


def write_control_group(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "max_cores"), [("max 100000", 999), ("50000 100000", 1), ("100000 100000", 1), ("9900000 100000", 99)]
)
def test_container_quota_limits_cores(tmp_path: Path, quota: str, max_cores: int) -> None:
    all_cores = count_usable_cores(tmp_path / "none")
    assert count_usable_cores(write_control_group(tmp_path / "v2", {"cpu.max": quota})) == min(all_cores, max_cores)
    quota_us, period_us = quota.split()
    version_1 = {"cpu/cpu.cfs_quota_us": quota_us.replace("max", "-1") + "\n", "cpu/cpu.cfs_period_us": period_us + "\n"}
    assert count_usable_cores(write_control_group(tmp_path / "v1", version_1)) == min(all_cores, max_cores)
    assert 1 <= all_cores <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("name", "limit", "no_limit"),
    [("memory.max", "1073741824", "max"), ("memory/memory.limit_in_bytes", "1073741824", "9223372036854771712")],
    ids=["v2", "v1"],
)
def test_container_limits_memory(tmp_path: Path, name: str, limit: str, no_limit: str) -> None:
    machine_bytes = get_memory_bytes(tmp_path / "none")
    assert machine_bytes is not None
    assert get_memory_bytes(write_control_group(tmp_path / "limited", {name: limit + "\n"})) == 1 << 30
    unlimited = write_control_group(tmp_path / "unlimited", {name: no_limit + "\n"})
    assert read_memory_limit_bytes(unlimited) is None
    assert get_memory_bytes(unlimited) == machine_bytes
