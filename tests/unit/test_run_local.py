import os
from pathlib import Path

import pytest

from stair_es.cores import usable_cores


@pytest.mark.parametrize(
    ("quota", "most"), [("max 100000", 999), ("50000 100000", 1), ("100000 100000", 1), ("9900000 100000", 99)]
)
def test_a_quota_of_the_container_counts(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == min(usable_cores(tmp_path / "none"), most)
    assert 1 <= usable_cores(file) <= (os.cpu_count() or 1)
