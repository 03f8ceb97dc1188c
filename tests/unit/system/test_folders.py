"""Folders that their owner alone may enter, also where they were open before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from stair_es.ingest.accounting.dead_letters import DeadLetters, default_dead_letters_path
from stair_es.system.folders import make_private_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX'")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """What a shared machine may have."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_private_all_the_way_down(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path / "home" / "node" / "data")
    folders = (tmp_path / "home", tmp_path / "home" / "node", tmp_path / "home" / "node" / "data")
    assert [get_mode(folder) for folder in (tmp_path, *folders)] == [0o755, 0o700, 0o700, 0o700]


def test_an_open_folder_is_closed_but_not_its_parent(tmp_path: Path) -> None:
    (tmp_path / "home" / "node").mkdir(parents=True)
    assert (get_mode(tmp_path / "home"), get_mode(tmp_path / "home" / "node")) == (0o775, 0o775)
    make_private_folder(tmp_path / "home" / "node")
    assert (get_mode(tmp_path / "home"), get_mode(tmp_path / "home" / "node")) == (0o775, 0o700)


def test_folders_of_others_are_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    make_private_folder(tmp_path / "theirs")
    assert get_mode(tmp_path / "theirs") == 0o775


def test_dead_letters_in_our_folder_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "dead-letters").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    for path in (default_dead_letters_path("photos"), tmp_path / "mine" / "letters.jsonl"):
        DeadLetters(path, "photos").prepare_file()
    modes = [get_mode(folder) for folder in (tmp_path / "home", tmp_path / "home" / "dead-letters", tmp_path / "mine")]
    assert modes == [0o775, 0o700, 0o775]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "node")


def test_linked_files_stay_allowed(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    (tmp_path / "node").symlink_to(shared)
    make_private_folder(tmp_path / "node")
    assert get_mode(shared) == 0o755
