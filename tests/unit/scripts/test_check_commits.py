"""Form of commit messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import check_commits
import pytest

GOOD = "search: reject an empty filter"


@pytest.mark.parametrize(
    "message",
    [
        GOOD,
        f"{GOOD}\n\nIt matched every document.",
        "model, training: load the weights once",
        "stair_es/web: process uploads in a thread",
        "docs: embed the picture",
        "tests: miss no signal",
        "page: focus the query box",
        "README: " + "x" * 64,
        "Release 0.2.0",
        "Release 0.2.0 (#12)",
        "Merge branch 'main' into topic",
        'Revert "search: reject an empty filter"',
        "deploy: bump python from 3.11.14-slim-bookworm to 3.14.2-slim-bookworm in /deploy",
    ],
)
def test_a_good_message_has_no_problems(message: str) -> None:
    assert check_commits.find_problems(message) == []


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("reject an empty filter", "not `area: imperative subject`"),
        ("search:reject an empty filter", "not `area: imperative subject`"),
        ("Search and page: reject an empty filter", "not `area: imperative subject`"),
        ("README: " + "x" * 65, "73 characters"),
        (f"{GOOD}.", "ends with a period"),
        ("search: rejected an empty filter", "'rejected' is not an imperative"),
        ("search: rejecting an empty filter", "'rejecting' is not an imperative"),
        ("search: Rejects an empty filter", "'Rejects' is not an imperative"),
        (f"{GOOD}\nIt matched every document.", "not blank"),
        ("fixup! search: reject an empty filter", "not `area: imperative subject`"),
    ],
)
def test_each_mistake_is_named(message: str, problem: str) -> None:
    [reported] = check_commits.find_problems(message)
    assert problem in reported


def test_a_fixup_is_allowed_on_a_branch() -> None:
    assert check_commits.find_problems(f"fixup! {GOOD}", allow_autosquash=True) == []


def test_the_message_of_a_hook_has_no_comments_and_no_diff(tmp_path: Path) -> None:
    path = tmp_path / "COMMIT_EDITMSG"
    path.write_text(f"{GOOD}\n# a comment\n\nWhy.\n{check_commits._SCISSORS}\ndiff --git a/x b/x\n")
    assert check_commits.read_message(path) == f"{GOOD}\n\nWhy."


def test_hook_and_range_of_a_repository(tmp_path: Path) -> None:
    names = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def run_command(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    run_command("git", "init", "--quiet", "-b", "main")
    for subject in ("tests: begin", GOOD, "Fixed it."):
        assert run_command("git", "commit", "--quiet", "--allow-empty", "-m", subject).returncode == 0
    script = (sys.executable, check_commits.__file__)
    assert run_command(*script, "--range", "HEAD~2..HEAD~1").returncode == 0
    done = run_command(*script, "--range", "HEAD~2..HEAD")
    assert done.returncode == 1
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == check_commits.find_problems("Fixed it.")
    (tmp_path / "message").write_text(GOOD)
    assert run_command(*script, "message").returncode == 0
    assert run_command(*script).returncode == 2
