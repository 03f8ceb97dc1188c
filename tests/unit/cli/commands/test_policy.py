"""`stair-es policy` before its first request."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import CommandRunner

RUNNER = CommandRunner({"STAIR_ES_URL": "http://127.0.0.1:1", "STAIR_ES_INDEX": ""})


@pytest.mark.parametrize("command", [("policy", "plan"), ("policy", "apply"), ("ingest", "a.jpg", "-i", "a", "--policy")])
def test_an_invalid_policy_file_is_reported_before_any_request(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(b"x")
    Path("p.json").write_text('{"stair_es_policy": 1, "rename": {"a": "b", "b": "c"}}')
    error = RUNNER.read_error(*command, "p.json")
    assert error.code == "policy-replacement-replaced"
    assert ("p.json" in error.message, "rename.a" in error.message) == (True, True)


@pytest.mark.parametrize(
    "arguments", [["plan"], ["plan", "no/such/file"], ["apply", "no/such/file"], ["apply", "--slices", "-1"], ["rollback", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert RUNNER.run("policy", *arguments).exit_code == 2


def test_a_bad_name_is_reported_before_any_request() -> None:
    assert RUNNER.read_error("policy", "show", "-i", "No Name").code == "invalid-index-name"
