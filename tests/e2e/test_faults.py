"""A round of `benchmarks/faults.py`: each kind of death and a bad network, and every image is there once."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_image_is_there_once_after_each_kind_of_death(tmp_path: Path) -> None:
    found = tmp_path / "faults.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--rounds", "1", "--images", "150", "--json", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(found.read_text())["figures"]["rows"]
    assert set(rows) == {"driver", "worker", "node", "one of three", "proxy"}
    for name, row in rows.items():
        assert (row["rounds"], row["wrong"]) == (1, []), name
        assert row["went_on"] + row["interrupted"] == 1
