"""Unreadable files: as root, with the rights of nobody during the call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stair_es.errors import ReadError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.kinds.files import FOLDER_KIND

NOBODY = 65534


@contextmanager
def _without_root() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _all(path: Path) -> list[SourceItem | ListingFailure]:
    return list(FOLDER_KIND.open(str(path), SourceOptions()).list_items())


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that anybody can reach."""
    for folder in (tmp_path, *(above for above in tmp_path.parents if above.name.startswith(("pytest-", "popen-")))):
        folder.chmod(0o755)
    return tmp_path


def test_unreadable_files_are_named(open_path: Path) -> None:
    secret = open_path / "secret.jpg"
    secret.write_bytes(b"x")
    secret.chmod(0)
    with _without_root(), pytest.raises(ReadError, match="Permission denied"):
        FileLocator(secret.as_uri()).read(ReadLimits())


def test_an_unreadable_folder_does_not_pass_in_silence(open_path: Path) -> None:
    (open_path / "a.jpg").write_bytes(b"x")
    locked = open_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        with _without_root():
            found = _all(open_path)
    finally:
        locked.chmod(0o755)
    root = open_path.as_uri()
    assert [each.uri for each in found if isinstance(each, SourceItem)] == [f"{root}/a.jpg"]
    [unlisted] = [each for each in found if isinstance(each, ListingFailure)]
    assert unlisted == ListingFailure(locked.as_uri(), root, "folder can't be listed: Permission denied")


def test_unreadable_folders_named_twice_stop_nothing(open_path: Path) -> None:
    (open_path / "a.jpg").write_bytes(b"x")
    locked = open_path / "locked" / "deep"
    locked.mkdir(parents=True)
    (locked / "b.jpg").write_bytes(b"x")
    (open_path / "link.jpg").symlink_to(locked / "b.jpg")
    locked.chmod(0)
    try:
        with _without_root():
            found = [each for path in (open_path, locked.parent, open_path / "link.jpg") for each in _all(path)]
            with pytest.raises(ReadError, match="Permission denied"):
                FileLocator((open_path / "link.jpg").as_uri()).read(ReadLimits())
    finally:
        locked.chmod(0o755)
    assert {Path(each.uri).name for each in found if isinstance(each, SourceItem)} == {"a.jpg", "link.jpg"}
    assert {each.uri for each in found if isinstance(each, ListingFailure)} == {locked.as_uri()}
