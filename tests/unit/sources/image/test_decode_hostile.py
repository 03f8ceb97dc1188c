"""Images made to harm: each becomes pixels or a reason, in bounded memory and time, and no decoder says a word of its own.

All go through one process whose memory is limited: `tests/support/corpora/hostile_images.py`, which prints a line for each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.corpora import hostile_images

Outcomes = dict[str, dict[str, float | str | None]]
_ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def hostile_outcomes() -> Outcomes:
    """Name -> what became of each."""
    done = subprocess.run(
        [sys.executable, hostile_images.__file__],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_each_is_pixels_or_a_reason(hostile_outcomes: Outcomes) -> None:
    assert len(hostile_outcomes) > 100
    for name, outcome in hostile_outcomes.items():
        wanted, reason = outcome["expected_reason"], outcome["reason"]
        if wanted is None:
            assert reason is None, (name, reason)
        elif wanted:
            assert str(wanted) in str(reason), (name, reason)


def test_memory_and_time_are_bounded(hostile_outcomes: Outcomes) -> None:
    for name, outcome in hostile_outcomes.items():
        assert float(outcome["mib"] or 0) < hostile_images.MAX_MIB, name
        assert float(outcome["cpu_s"] or 0) < hostile_images.MAX_CPU_S, name
    assert sum(float(outcome["cpu_s"] or 0) for outcome in hostile_outcomes.values()) < 60
