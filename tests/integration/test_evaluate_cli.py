"""The installed `stair-es ingest-texts` and `stair-es evaluate`, with the starter model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
SCRIPT = Path(sys.executable).parent / "stair-es"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(node_url: str, tmp_path: Path) -> Run:
    """Run the console script; its index is never to be the one of the environment."""
    environment = {**os.environ, "STAIR_ES_URL": node_url, "STAIR_ES_INDEX": "photos", "COLUMNS": "100"}

    def script(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *arguments], capture_output=True, text=True, check=False, env=environment, input=given, cwd=tmp_path
        )

    return script


def test_texts_from_standard_input(run: Run, client: OpenSearch, index_name: str) -> None:
    where = ("--index", index_name, "--text-tower", "table")
    done = run("ingest-texts", "-", *where, "--json", given="a brown dog\nthe of\na brown dog\n")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("seen", "written", "unchanged", "dead", "documents", "duplicates")} == {
        **{"seen": 3, "written": 1, "unchanged": 1, "dead": 1},
        **{"documents": 1, "duplicates": 1},
    }
    assert report["dead_reasons"] == [{"stage": "encode", "reason": "no word that the model knows", "texts": 1}]
    assert client.count(index=index_name)["count"] == 1
    again = run("ingest-texts", "-", *where, given="a brown dog\n")
    assert again.returncode == 0, again.stderr
    assert "1 texts: 0 written, 1 unchanged, 0 dead" in again.stdout
    wrong = run("ingest-texts", "gone.txt", *where, "--json")
    assert wrong.returncode == 2
    assert json.loads(wrong.stdout)["error"].startswith("no such file")


def test_evaluate(run: Run, client: OpenSearch, tmp_path: Path) -> None:
    done = run(
        "evaluate", "retrieval", PHOTOS / "captions.jsonl", "--limit", "6", "--text-tower", "table", "--out", "report", "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["texts"], found["model"]) == (6, 6, "starter-1")
    assert found == json.loads((tmp_path / "report" / "evaluation.json").read_text())
    rows = {(row["method"], row["direction"]): row for row in found["rows"]}
    stair = rows["STAIR", "text -> image"]
    assert stair["engine"]["hit"]["5"] >= 0.8
    assert stair["differences"]["unexplained"] == 0
    assert all(each["agrees"] for each in stair["rank_eval"])
    assert "second caption" in rows["BM25 on captions", "text -> image"]["engine"]["missing"]
    assert "| STAIR " in (tmp_path / "report" / "evaluation.md").read_text()
    assert not client.indices.get(index="eval-*")
    wrong = run("evaluate", "retrieval", PHOTOS / "CREDITS.md", "--json")
    assert wrong.returncode == 2
    assert "isn't JSON" in json.loads(wrong.stdout)["error"]
