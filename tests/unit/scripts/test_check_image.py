"""The check of the image, without building one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import check_image
import pytest

ROOT = Path(__file__).parents[3]
DAY_S = 24 * 3600
NOW_S = 1_800_000_000


def run_git(root: Path, *arguments: str, at_s: int = NOW_S) -> None:
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in (("NAME", "a"), ("EMAIL", "a@b.c"))}
    dates = {"GIT_AUTHOR_DATE": f"{at_s} +0000", "GIT_COMMITTER_DATE": f"{at_s} +0000"}
    subprocess.run(["git", "-C", root, *arguments], env={**os.environ, **who, **dates}, check=True, capture_output=True)


def commit_file(root: Path, name: str, at_s: int) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with (root / name).open("a") as file:
        file.write(f"{at_s}\n")
    run_git(root, "add", name)
    run_git(root, "commit", "-q", "-m", name, at_s=at_s)


@pytest.fixture
def repository_clone(tmp_path: Path) -> Path:
    """A repository on `main` whose Dockerfile is ten days old, and with a commit of code of today."""
    root = tmp_path / "clone"
    root.mkdir()
    run_git(root, "init", "-q", "-b", "main")
    commit_file(root, "deploy/Dockerfile", NOW_S - 10 * DAY_S)
    commit_file(root, "README.md", NOW_S - 5 * DAY_S)
    commit_file(root, "stair_es/a.py", NOW_S)
    return root


def test_inputs_exist_and_decide_on_the_digest(tmp_path: Path) -> None:
    for name in check_image.INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    digests = [check_image.hash_inputs(tmp_path)]
    (tmp_path / "README.md").touch()
    assert check_image.hash_inputs(tmp_path) == digests[0]
    for name in ("deploy/Dockerfile", "deploy/image/requirements.py", "setup.cfg"):
        (tmp_path / name).write_text("changed")
        digests.append(check_image.hash_inputs(tmp_path))
    (tmp_path / "deploy" / "image" / "new.txt").touch()
    digests.append(check_image.hash_inputs(tmp_path))
    assert len(set(digests)) == 5


def test_code_alone_is_no_reason_to_build(repository_clone: Path) -> None:
    assert not check_image.have_commits_changed(repository_clone)
    commit_file(repository_clone, "deploy/image/a.txt", NOW_S)
    commit_file(repository_clone, "stair_es/a.py", NOW_S)
    assert check_image.have_commits_changed(repository_clone)
    commit_file(repository_clone, "stair_es/a.py", NOW_S + 3 * DAY_S)
    assert not check_image.have_commits_changed(repository_clone)


def test_an_old_branch_is_compared_with_where_it_left_main(repository_clone: Path, tmp_path: Path) -> None:
    branch = tmp_path / "branch"
    run_git(tmp_path, "clone", "-q", str(repository_clone), str(branch))
    run_git(branch, "switch", "-q", "-c", "topic")
    commit_file(branch, "stair_es/b.py", NOW_S + DAY_S)
    assert not check_image.have_commits_changed(branch)
    commit_file(branch, "setup.cfg", NOW_S + DAY_S)
    commit_file(branch, "stair_es/b.py", NOW_S + 9 * DAY_S)
    assert check_image.have_commits_changed(branch)


def test_a_merged_branch_counts_however_old_its_commits_are(repository_clone: Path) -> None:
    run_git(repository_clone, "switch", "-q", "-c", "topic")
    commit_file(repository_clone, "setup.cfg", NOW_S - 4 * DAY_S)
    run_git(repository_clone, "switch", "-q", "main")
    run_git(repository_clone, "merge", "-q", "--no-ff", "-m", "merge", "topic", at_s=NOW_S + 1)
    assert check_image.have_commits_changed(repository_clone)


def test_unknown_history_is_a_reason_to_build(repository_clone: Path, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "-q", "--depth", "1", repository_clone.as_uri(), str(tmp_path / "shallow"))
    run_git(tmp_path / "shallow", "remote", "remove", "origin")
    assert check_image.have_commits_changed(tmp_path / "shallow")
    assert check_image.have_commits_changed(tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/numpy/", True),
        ("Err:1 http://deb.debian.org/debian bookworm InRelease: Temporary failure resolving 'deb.debian.org'", True),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.", True),
        ("ERROR: Could not find a version that satisfies the requirement numpy>=99", False),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", False),
        ("COPY failed: deploy/image/text-network.txt: no such file or directory", False),
    ],
)
def test_only_a_registry_out_of_reach_is_a_reason_to_skip(line: str, expected: bool) -> None:
    assert bool(check_image.FETCH_FAILED.search(line)) == expected


def test_skipping_fails_only_where_the_check_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_image, "CACHE", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert check_image.main([]) == 0
    assert "skipped" in capsys.readouterr().err
    assert check_image.main(["--required"]) == 1
    assert "failed" in capsys.readouterr().err
    (tmp_path / f"{check_image.hash_inputs(ROOT)}.checked").touch()
    assert check_image.main(["--changed", "--required"]) == 0
    assert "nothing to do" in capsys.readouterr().out
