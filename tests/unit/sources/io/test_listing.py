"""Listings of files, folders and globs, and reading what they list."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from support.corpora.ingest_sources import LONG_AGO, list_images, list_source, mark_settled, read_data
from support.errors import expect_error

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import ReadLimits, ReadResult
from stair_es.sources.io import local_listing
from stair_es.sources.io.glob import GlobPattern
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.uris import format_modification_time, from_file_uri, split_image_uri
from stair_es.sources.registry import open_source

ODD_NAMES = ["a b.jpg", 'it\'s "q".jpg', "naïve 日本.jpg", "line\nbreak.jpg", "100%25.jpg", "#?&.jpg", "[x].jpg"]
PERMISSION_DENIED = os.strerror(errno.EACCES)
NOBODY = 65534


def write_file(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def list_names(source: str, below: Path) -> list[str]:
    return [from_file_uri(item.uri).relative_to(below).as_posix() for item in list_images(source, format="folder")]


def test_folders_are_searched_deeply_by_suffix_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", "deep/x.svg", "README", ".jpg"):
        write_file(tmp_path / name)
    source = open_source(str(tmp_path))
    assert [item.uri for item in source.list_items()] == [
        (tmp_path / name).as_uri() for name in ("a.png", "b.JPG", "deep/er/c.webp")
    ]
    assert source.ignored == {".txt": 1, ".svg": 1, "": 2}
    assert {item.source for item in source.list_items()} == {source.uri} == {tmp_path.as_uri()}


def test_a_folder_is_listed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_listing, "SORT_BATCH", 3)
    names = [f"{i}.jpg" for i in range(10)]
    for name in names:
        write_file(tmp_path / name)
    assert sorted(list_names(str(tmp_path), tmp_path)) == names


@pytest.mark.parametrize("pattern", ["?/x.png", "[ab]/x.png", "*/x.png", "a#b/?.png", "100%25/?.png"])
def test_the_uri_of_a_glob_lists_the_same_files(tmp_path: Path, pattern: str) -> None:
    for folder in ("a", "b", "ab", "a#b", "100%25"):
        write_file(tmp_path / folder / "x.png")
    listed = list_images(tmp_path / pattern)
    assert listed
    assert [item.uri for item in list_images(listed[0].source)] == [item.uri for item in listed]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_round_trip_as_folder_file_and_uri(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path / name, name.encode())
    for source in (tmp_path, path, path.as_uri()):
        [item] = list_images(source, format="folder")
        assert item.uri == path.as_uri()
        assert read_data(item) == name.encode()
        written = item.locator.to_json()
        assert written is not None
        assert restore_locator(written) == item.locator


def test_names_that_are_not_utf8_round_trip(tmp_path: Path) -> None:
    path = write_file(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    os.utime(path, (0, 0))
    [item] = list_images(tmp_path)
    assert item.uri.isascii()
    assert split_image_uri(item.uri) == ("caf\ufffd.jpg", str(tmp_path))
    assert item.locator.read(ReadLimits()) == ReadResult(b"x", item.version, None)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["a.jpg", "sub/b.jpg", "sub/deep/d.jpg"]),
        ("**", ["a.jpg", "sub/b.jpg", "sub/deep/d.jpg"]),
        ("*", ["a.jpg", "sub/b.jpg", "sub/deep/d.jpg"]),
        ("s*b/[ab].jpg", ["sub/b.jpg"]),
        ("sub/?.*", ["sub/b.jpg"]),
        ("**/deep", ["sub/deep/d.jpg"]),
        (".h*/*.jpg", [".hidden/e.jpg"]),
        ("sub/../*.jpg", ["a.jpg"]),
        ("**/**/b.jpg", ["sub/b.jpg"]),
    ],
)
def test_globs_list_each_image_once(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/c.txt", "sub/deep/d.jpg", ".hidden/e.jpg"):
        write_file(tmp_path / name)
    source = f"{tmp_path}/{pattern}"
    assert list_names(source, tmp_path) == names
    assert {item.source for item in list_images(source)} == {open_source(source).uri}


def test_a_glob_enters_only_folders_that_can_match() -> None:
    pattern = GlobPattern(["2024", "*", "x.jpg"])
    assert not pattern.match_name(pattern.start_states, "2023")
    states = pattern.start_states
    for name in ("2024", "any", "x.jpg"):
        states = pattern.match_name(states, name)
    assert pattern.is_complete(states)


def test_explicit_files_may_have_any_suffix(tmp_path: Path) -> None:
    assert len(list_images(write_file(tmp_path / "scan.dat"), format="folder")) == 1


def test_a_link_loop_ends_and_linked_folders_are_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_file(photos / "a.jpg")
    write_file(photos / "z" / "elsewhere" / "b.jpg")
    (photos / "loop").symlink_to(photos)
    (photos / "more").symlink_to(photos / "z" / "elsewhere")
    assert list_names(str(photos), photos) == ["a.jpg", "z/elsewhere/b.jpg"]
    assert list_names(f"{photos}/**/*.jpg", photos) == ["a.jpg", "z/elsewhere/b.jpg"]
    assert list_names(f"{photos}/more/*.jpg", photos) == ["more/b.jpg"]
    assert list_names(f"{photos}/[m]*/*.jpg", photos) == ["more/b.jpg"]


def test_a_new_link_gives_no_image_a_new_uri(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_file(photos / "real" / "a.jpg")
    before = list_names(str(photos), photos)
    (photos / "aaa").symlink_to(photos / "real")
    assert list_names(str(photos), photos) == before


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("nowhere", "no-such-file"),
        ("none-*.jpg", "nothing-matches"),
        ("no/folder/*.jpg", "no-such-file"),
        ("", "no-such-file"),
    ],
)
def test_missing_source_is_wrong_usage(tmp_path: Path, source: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with expect_error(code, UsageError) as caught:
        list_images(source, format="folder")
    assert repr(source) in caught.value.message


def test_versions_follow_settled_bytes(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.jpg", b"one")
    [fresh] = list_images(path)
    assert fresh.version is None
    mark_settled(path)
    [settled], [again] = list_images(path), list_images(tmp_path)
    assert settled.version == again.version is not None
    assert settled.locator.read(ReadLimits(), known_version=settled.version) is None
    assert settled.locator.read(ReadLimits(), known_version="other") == ReadResult(
        b"one", settled.version, "2023-11-14T22:13:20.000+00:00"
    )
    path.write_bytes(b"two")
    os.utime(path, (LONG_AGO + 1, LONG_AGO + 1))
    [changed] = list_images(path)
    assert changed.version not in (None, settled.version)


def test_an_unreadable_file_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.jpg")
    write_file(tmp_path / "large.jpg", b"12345")
    items = {item.uri: item for item in list_images(tmp_path)}
    for name, code, fact in (
        ("gone.jpg", "file-unreadable", os.strerror(errno.ENOENT)),
        ("loop.jpg", "file-unreadable", os.strerror(errno.ELOOP)),
        ("pipe.jpg", "not-a-regular-file", ""),
        ("large.jpg", "file-too-large", "5 bytes"),
    ):
        with expect_error(code, ReadError) as caught:
            items[(tmp_path / name).as_uri()].locator.read(ReadLimits(max_bytes=4))
        assert fact in caught.value.message


@pytest.mark.parametrize(
    ("uri", "name", "folder"),
    [
        ("file:///my/photos/b%20%C3%A9%23.jpg", "b é#.jpg", "/my/photos"),
        ("file:///b.jpg", "b.jpg", "/"),
        ("file:///d/x.tar#a%201/b%2Ejpg", "b.jpg", "/d/x.tar/a 1"),
        ("file:///d/x%20y.csv#line=7", "x y.csv#line=7", "/d"),
        ("s3://bucket/a/b%20.jpg", "b%20.jpg", "s3://bucket/a"),
        ("s3://bucket/a/#1?x=2.jpg", "#1?x=2.jpg", "s3://bucket/a"),
        ("s3://bucket/x.tar#a/b%20.jpg", "b .jpg", "s3://bucket/x.tar/a"),
        ("s3://bucket/x.parquet#row=0", "x.parquet#row=0", "s3://bucket"),
        ("https://a.example/p%20q/b.jpg?sig=1", "b.jpg", "https://a.example/p q"),
        ("https://a.example/image?id=/7%20", "image?id=/7 ", "https://a.example"),
        ("https://a.example/", "a.example", "https://a.example"),
        ("memory://b.jpg", "b.jpg", None),
        ("stdin:#line=7", "stdin:#line=7", None),
        ("hf-dataset://user/pets?split=train#row=3", "pets?split=train#row=3", "hf-dataset://user"),
        ("s3://bucket/\udcff.jpg", "?.jpg", "s3://bucket"),
    ],
)
def test_an_image_has_a_readable_name_and_folder(uri: str, name: str, folder: str | None) -> None:
    assert split_image_uri(uri) == (name, folder)


@pytest.mark.parametrize(
    ("modified", "formatted"),
    [
        (1_700_000_000.25, "2023-11-14T22:13:20.250+00:00"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00.000+00:00"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00.000+00:00"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), None),
        *((unknown, None) for unknown in (None, 0, float("nan"), 1e300)),
    ],
)
def test_modification_times_are_dates_or_unknown(modified: datetime | float | None, formatted: str | None) -> None:
    assert format_modification_time(modified) == formatted


@contextmanager
def drop_root() -> Iterator[None]:
    """Have the rights of nobody within the context, also as root."""
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
    for folder in (tmp_path, *(above for above in tmp_path.parents if above.name.startswith(("pytest-", "popen-")))):
        folder.chmod(0o755)
    return tmp_path


def test_unreadable_files_are_named(open_path: Path) -> None:
    secret = write_file(open_path / "secret.jpg")
    secret.chmod(0)
    with drop_root(), expect_error("file-unreadable", ReadError) as caught:
        FileLocator(secret.as_uri()).read(ReadLimits())
    assert PERMISSION_DENIED in caught.value.message


def test_unreadable_folders_are_reported_and_stop_nothing(open_path: Path) -> None:
    write_file(open_path / "a.jpg")
    locked = write_file(open_path / "locked" / "deep" / "b.jpg").parent
    link = open_path / "link.jpg"
    link.symlink_to(locked / "b.jpg")
    locked.chmod(0)
    try:
        with drop_root():
            listings = [list_source(path, format="folder") for path in (open_path, locked.parent, link)]
            with expect_error("file-unreadable"):
                FileLocator(link.as_uri()).read(ReadLimits())
    finally:
        locked.chmod(0o755)
    assert [listing.kinds for listing in listings] == ["iif", "f", "i"]
    failures = [failure for listing in listings for failure in listing.failures]
    assert [failure.source for failure in failures] == [open_path.as_uri(), locked.parent.as_uri()]
    assert all(failure.uri == locked.as_uri() and PERMISSION_DENIED in failure.reason for failure in failures)
