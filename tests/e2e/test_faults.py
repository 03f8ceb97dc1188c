"""One round of each kind of `benchmarks/faults.py`: nothing is lost, duplicated, or written to another index."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.nightly("a round of each fault of benchmarks/faults.py")

ROOT = Path(__file__).parents[2]
KINDS = {"driver", "worker", "node", "one-of-three", "proxy", "alias", "swap", "tmpdir", "dead-letters", "node-disk"}


@pytest.fixture(scope="module")
def fault_rows(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """The result of a round of each kind."""
    found = tmp_path_factory.mktemp("faults") / "found.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--images", "60", "--url", node_url, "--json", str(found)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert found.is_file(), result.stderr[-3000:]
    sys.stdout.write(result.stderr)
    kept: dict[str, dict[str, object]] = json.loads(found.read_text())["figures"]["rows"]
    return kept


def test_each_kind_has_its_round(fault_rows: dict[str, dict[str, object]]) -> None:
    assert KINDS - set(fault_rows) <= {"node-disk"}  # where no small disk can be mounted
    assert {row["rounds"] for row in fault_rows.values()} == {1}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nothing_is_lost_duplicated_or_unexpected(kind: str, fault_rows: dict[str, dict[str, object]]) -> None:
    row = fault_rows.get(kind, {"counts": {"lost": 0, "duplicated": 0, "unexpected": 0}, "wrong": []})
    assert (row["counts"], row["wrong"]) == ({"lost": 0, "duplicated": 0, "unexpected": 0}, [])
