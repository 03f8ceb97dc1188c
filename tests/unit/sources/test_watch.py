"""Watched folders: what settles, what is ignored, and what makes a listing of everything necessary."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("watchfiles")
from support.polling import poll_until

from stair_es.sources import watch
from stair_es.sources.base import SourceOptions, WalkOptions
from stair_es.sources.kinds.files import FOLDER_KIND, ImageFileSource
from stair_es.sources.watch import FolderChanges, FolderWatcher

TIMEOUT_S = 120.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def watcher(folder: Path) -> Iterator[FolderWatcher]:
    with FolderWatcher([str(folder)]) as found:
        yield found


def test_a_file_that_is_being_written_settles_once(folder: Path, watcher: FolderWatcher) -> None:
    with (folder / "a.jpg").open("wb") as file:
        end_s = time.monotonic() + 3 * watch.SETTLE_S
        while time.monotonic() < end_s:
            file.write(b"x")
            file.flush()
            assert not watcher.take_changes(0.0)
            time.sleep(0.02)
    assert watcher.take_changes(TIMEOUT_S) == FolderChanges(paths=frozenset({str(folder / "a.jpg")}))


def test_files_that_are_no_images_are_ignored_also_when_they_are_renamed(folder: Path, watcher: FolderWatcher) -> None:
    (folder / "upload.part").write_bytes(b"x")
    (folder / "note.txt").write_bytes(b"x")
    (folder / "upload.part").rename(folder / "b.jpg")
    assert watcher.take_changes(TIMEOUT_S) == FolderChanges(paths=frozenset({str(folder / "b.jpg")}))


def test_deleted_images_and_folders_are_noticed(folder: Path, watcher: FolderWatcher, tmp_path: Path) -> None:
    (folder / "tree" / "deep").mkdir(parents=True)
    (folder / "tree" / "deep" / "a.jpg").write_bytes(b"x")
    assert str(folder / "tree") in watcher.take_changes(TIMEOUT_S).paths
    (folder / "tree").rename(tmp_path / "tree")
    assert watcher.take_changes(TIMEOUT_S).has_deleted


def test_many_changes_and_a_replaced_folder_are_incomplete(
    folder: Path, watcher: FolderWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_PATHS", 3)
    for number in range(20):
        (folder / f"{number}.jpg").write_bytes(b"x")
    assert not watcher.take_changes(TIMEOUT_S).is_complete
    monkeypatch.setattr(watch, "MAX_PATHS", 1000)
    while watcher.take_changes(3 * watch.SETTLE_S):
        pass
    shutil.rmtree(folder)
    folder.mkdir()
    poll_until(lambda: not watcher.take_changes(0.0).is_complete)
    (folder / "new.jpg").write_bytes(b"x")

    def is_reported() -> bool:  # perhaps after the deletions, or by a listing if the folder is watched anew once more
        changes = watcher.take_changes(0.0)
        return str(folder / "new.jpg") in changes.paths or not changes.is_complete

    poll_until(is_reported)


def list_selected(folder: Path, *paths: Path, skip_raw_pairs: bool = False) -> list[str]:
    source = FOLDER_KIND.open(str(folder), SourceOptions(walk=WalkOptions(skip_raw_pairs=skip_raw_pairs)))
    assert isinstance(source, ImageFileSource)
    assert (source.watched_folder, source.is_partial) == (str(folder), False)
    source.select_changed(map(str, paths))
    assert source.is_partial
    return [item.uri.removeprefix(folder.as_uri() + "/") for item in source.list_items()]


def test_a_selection_follows_the_rules_of_the_folder(folder: Path, tmp_path: Path) -> None:
    for name in (
        "a.jpg",
        "b.jpg",
        ".hidden.jpg",
        "c.txt",
        "tree/d.jpg",
        "tree/e.jpg",
        "tree/.f/g.jpg",
        "other/h.jpg",
        "i.dng",
        "i.jpg",
    ):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"x")
    (folder / "link").symlink_to(folder / "tree")
    (folder / "out").symlink_to(tmp_path)
    assert list_selected(folder, folder / "a.jpg", folder / ".hidden.jpg", folder / "c.txt") == ["a.jpg"]
    assert list_selected(folder, folder / "tree") == ["tree/d.jpg", "tree/e.jpg"]
    assert list_selected(folder, folder / "tree" / "d.jpg") == ["tree/d.jpg"]
    assert list_selected(folder, folder / "link" / "d.jpg") == ["tree/d.jpg"]
    assert list_selected(folder, folder / "tree" / ".f" / "g.jpg", folder / "gone.jpg", folder / "out" / "x.jpg") == []
    assert list_selected(folder, folder / "i.dng", skip_raw_pairs=True) == ["i.jpg"]
