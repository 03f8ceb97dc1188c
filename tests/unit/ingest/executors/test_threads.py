"""The executor with threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stair_es.doctor.machine import get_memory_bytes
from stair_es.system.limits import count_usable_cores, read_memory_limit_bytes


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "most"), [("max 100000", 999), ("50000 100000", 1), ("100000 100000", 1), ("9900000 100000", 99)]
)
def test_a_quota_of_the_container_counts(tmp_path: Path, quota: str, most: int) -> None:
    of_all = count_usable_cores(tmp_path / "none")
    assert count_usable_cores(_write(tmp_path / "v2", {"cpu.max": quota})) == min(of_all, most)
    first, period = quota.split()
    old = {"cpu/cpu.cfs_quota_us": first.replace("max", "-1") + "\n", "cpu/cpu.cfs_period_us": period + "\n"}
    assert count_usable_cores(_write(tmp_path / "v1", old)) == min(of_all, most)
    assert 1 <= of_all <= (os.cpu_count() or 1)


def test_a_limit_of_the_container_s_memory_counts(tmp_path: Path) -> None:
    of_all = get_memory_bytes(tmp_path / "none")
    assert of_all is not None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limited = _write(tmp_path / name.replace("/", "-"), {name: "1073741824\n"})
        assert get_memory_bytes(limited) == 1 << 30
    for name, text in (("memory.max", "max\n"), ("memory/memory.limit_in_bytes", "9223372036854771712\n")):
        unlimited = _write(tmp_path / "unlimited", {name: text})
        assert read_memory_limit_bytes(unlimited) is None
        assert get_memory_bytes(unlimited) == of_all
