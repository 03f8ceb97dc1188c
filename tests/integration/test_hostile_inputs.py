"""Files and images that are meant to take all memory or time: each is read in bounded memory and time, or costs a failed entry.

Each kind goes through one process that measures itself, `tests/support/corpora/hostile_files.py` and `hostile_images.py`, which
print a line for each. No decoder says a word of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.corpora import hostile_files, hostile_images

from stair_es.sources import limits

pytestmark = pytest.mark.nightly("hostile files stay within memory and time; tests/unit/sources have each bound")

Outcomes = dict[str, dict[str, float | str | None]]
ROOT = Path(__file__).parents[2]
MAX_MB, MAX_S = 600, 20
"""Memory beyond that of the process before, and CPU time, for each of the files."""
EXPECTED = {
    "long-name.tar.gz": (1, 1, limits.MAX_TAR_HEADER_BYTES),
    "pax-header.tar.gz": (1, 1, limits.MAX_TAR_HEADER_BYTES),
    "long-names.tar.gz": (1, 1000, 250_006),
    "global-records.tar.gz": (1, 1, limits.MAX_TAR_GLOBAL_RECORDS),
    "sparse-map.tar.gz": (1, 1, limits.MAX_TAR_HEADER_BYTES),
    "digits.tar": (1, 1, 256),
    "one-key.tar.gz": (8, 0, None),
    "texts-of-one-key.tar.gz": (0, 698, limits.MAX_SAMPLE_TEXT_BYTES),
    "objects.jsonl.gz": (1, 1, limits.MAX_JSON_LINE_MARKS),
    "long-line.jsonl.gz": (1, 1, "long"),
    "emoji.jsonl.gz": (1, 1, 62_914_561),
    "line-ends.jsonl.gz": (1, 1, limits.MAX_BLANK_BYTES),
    "line-ends.csv.gz": (1, 1, limits.MAX_BLANK_BYTES),
    "commas.csv.gz": (2, 1, limits.MAX_CSV_ROW_CHARS),
    "comments.txt.gz": (1, 1, limits.MAX_BLANK_BYTES),
    "captions-2.parquet": (0, 400, limits.MAX_FIELDS_BYTES),
    "captions-8.parquet": (0, 100, limits.MAX_FIELDS_BYTES),
    "lists.parquet": (0, 2, limits.MAX_FIELDS_BYTES),
    "nulls.parquet": (0, 1, limits.MAX_FIELDS_BYTES),
    "cells.parquet": (8, 0, None),
    "rows.parquet": (0, 1, 1 << 45),
    "dictionary.parquet": (0, 1, limits.MAX_DICTIONARY_BYTES),
}
"""Name -> images, failed entries, and a fact of their reason: the number of a limit or of what exceeds it, or else a word."""


def test_files_stay_within_memory_and_time(tmp_path: Path) -> None:
    assert set(EXPECTED) == set(hostile_files.FILES)
    reader = subprocess.run([sys.executable, hostile_files.__file__, tmp_path], stdout=subprocess.PIPE, check=True, timeout=900)
    results = {each["name"]: each for each in map(json.loads, reader.stdout.splitlines())}
    assert {name: each["error"] for name, each in results.items() if "error" in each} == {}
    outcomes = {name: (each.get("images", 0), each.get("failed", 0)) for name, each in results.items()}
    assert outcomes == {name: (images, failed) for name, (images, failed, _) in EXPECTED.items()}
    for name, (_, failed, fact) in EXPECTED.items():
        assert not failed or str(fact) in results[name]["reasons"][0].replace(",", "")
    assert {name: each["mb"] for name, each in results.items() if each["mb"] > MAX_MB} == {}
    assert {name: each["s"] for name, each in results.items() if each["s"] > MAX_S} == {}


@pytest.fixture(scope="module")
def hostile_outcomes() -> Outcomes:
    """Name -> what became of each."""
    done = subprocess.run(
        [sys.executable, hostile_images.__file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_each_image_is_pixels_or_a_reason(hostile_outcomes: Outcomes) -> None:
    assert len(hostile_outcomes) > 100
    for name, outcome in hostile_outcomes.items():
        wanted, reason = outcome["expected_reason"], outcome["reason"]
        if wanted is None:
            assert reason is None, (name, reason)
        elif wanted:
            assert str(wanted) in str(reason), (name, reason)


def test_images_stay_within_memory_and_time(hostile_outcomes: Outcomes) -> None:
    for name, outcome in hostile_outcomes.items():
        assert float(outcome["mib"] or 0) < hostile_images.MAX_MIB, name
        assert float(outcome["cpu_s"] or 0) < hostile_images.MAX_CPU_S, name
    assert sum(float(outcome["cpu_s"] or 0) for outcome in hostile_outcomes.values()) < 60
