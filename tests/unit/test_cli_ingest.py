"""`stair-es ingest` before it reaches a cluster: what it takes, and what it says of what it can't take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stair_es.cli.main import app
from typer.testing import CliRunner

from stair_es.errors import StairError, UsageError

RUNNER = CliRunner()
NOWHERE = {"STAIR_ES_URL": "http://127.0.0.1:1", "STAIR_ES_INDEX": "", "RAY_ADDRESS": ""}


def _fails(*arguments: str) -> StairError:
    result = RUNNER.invoke(app, ["ingest", *arguments], env=NOWHERE)
    assert isinstance(result.exception, StairError), result.output
    return result.exception


@pytest.fixture
def photos(tmp_path: Path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    return str(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither SOURCE nor --retry"),
        (["{photos}", "-i", "No Name"], "not an index name"),
        (["{photos}", "-i", "a", "--map", "caption"], "not a column mapping: 'caption'"),
        (["{photos}", "-i", "a", "--map", "a=b,a=c"], "field 'a' twice"),
        (["{photos}", "-i", "a", "--map", "a=b,a:int=c"], "field 'a' twice"),
        (["{photos}", "-i", "a", "--map", "a:number=b"], "no such type: 'a:number'"),
        (["{photos}", "-i", "a", "--map", "tokens:int=b"], "name of a field of stair-es"),
        (["{photos}", "-i", "a", "--map", "tokens=b"], "name of a field of stair-es"),
        (["{photos}", "-i", "a", "--format", "nothing"], "nothing"),
        (["{photos}", "-i", "a", "--enrich", ":x"], "not the name of an enricher"),
        (["{photos}", "-i", "a", "--enrich", "unheard-of"], "unknown enricher 'unheard-of'"),
        (["{photos}", "-i", "a", "--enrich", "filename:colour=red"], "no option colour"),
        (["{photos}", "-i", "a", "--sink", "unheard-of"], "unknown sink 'unheard-of'"),
        (["{photos}", "-i", "a", "--sink", "cluster:colour=red"], "no option colour"),
        (["{photos}", "-i", "a", "--model", "unheard-of"], "unknown model"),
        (["{photos}/nothing", "-i", "a"], "nothing"),
        (["{photos}", "-i", "a", "--runner", "ray", "--ray-address", "nonsense"], "127.0.0.1:1|not a Ray address"),
    ],
)
def test_wrong_usage_is_told_with_what_was_wrong(photos: str, arguments: list[str], message: str) -> None:
    error = _fails(*(argument.format(photos=photos) for argument in arguments))
    assert any(part in str(error) for part in message.split("|")), error
    assert error.remedy


def test_retry_and_dead_letters_may_not_be_the_same_file(tmp_path: Path) -> None:
    letters = tmp_path / "dead.jsonl"
    letters.touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for same in (letters, tmp_path / "link" / "dead.jsonl", tmp_path / "link" / ".." / tmp_path.name / "dead.jsonl"):
        error = _fails("-i", "a", "--retry", str(letters), "--dead-letters", str(same))
        assert isinstance(error, UsageError)
        assert letters.exists()


def test_options_said_with_the_sink_are_not_overridden_by_defaults(photos: str) -> None:
    error = _fails(photos, "-i", "a", "--sink", "cluster:keep=many")
    assert isinstance(error, UsageError)
    assert "keep=many" in error.message


def test_a_failed_run_is_json_too(photos: str) -> None:
    result = RUNNER.invoke(app, ["ingest", photos, "-i", "a", "--json"], env=NOWHERE)
    value = json.loads(result.stdout.strip().splitlines()[-1])
    assert "127.0.0.1:1" in value["error"]
    assert value["seen"] == value["written"] == 0
