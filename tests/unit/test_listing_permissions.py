"""What a user may not read: as root, with the rights of nobody for the time of the call."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stair_es.errors import DecodeError
from stair_es.sources.listing import list_images
from stair_es.sources.read import read

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


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that anybody can reach."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    return tmp_path


def test_an_unreadable_file_says_so(open_path: Path) -> None:
    secret = open_path / "secret.jpg"
    secret.write_bytes(b"x")
    secret.chmod(0)
    with _without_root(), pytest.raises(DecodeError, match="Permission denied"):
        read(secret.as_uri(), 10)


def test_an_unreadable_folder_does_not_pass_in_silence(open_path: Path) -> None:
    (open_path / "a.jpg").write_bytes(b"x")
    locked = open_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    try:
        with _without_root():
            listing = list_images([str(open_path)])
    finally:
        locked.chmod(0o755)
    assert [ref.uri for ref in listing.images] == [(open_path / "a.jpg").as_uri()]
    [(ref, reason)] = listing.unlisted
    assert (ref.uri, reason) == (locked.as_uri(), "folder can't be listed: Permission denied")


def test_an_unreadable_folder_named_twice_or_linked_into_stops_nothing(open_path: Path) -> None:
    (open_path / "a.jpg").write_bytes(b"x")
    locked = open_path / "locked" / "deep"
    locked.mkdir(parents=True)
    (locked / "b.jpg").write_bytes(b"x")
    (open_path / "link.jpg").symlink_to(locked / "b.jpg")
    locked.chmod(0)
    try:
        with _without_root():
            listing = list_images([str(open_path), str(locked), str(locked.parent), str(open_path / "link.jpg")])
            with pytest.raises(DecodeError, match="Permission denied"):
                read((open_path / "link.jpg").as_uri(), 10)
    finally:
        locked.chmod(0o755)
    assert {Path(ref.uri).name for ref in listing.images} == {"a.jpg", "link.jpg"}
    assert [ref.uri for ref, _ in listing.unlisted] == [locked.as_uri()]
