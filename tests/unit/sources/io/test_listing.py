import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, SourceItem, SourceOptions
from stair_es.sources.io import local_listing
from stair_es.sources.io.glob import GlobPattern
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.uris import format_modification_time, from_file_uri, split_image_uri
from stair_es.sources.kinds.files import FOLDER_KIND

ODD_NAMES = ["a b.jpg", 'it\'s "q".jpg', "naïve 日本.jpg", "line\nbreak.jpg", "100%25.jpg", "#?&.jpg", "[x].jpg"]


def _touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _items(source: str) -> list[SourceItem]:
    found = list(FOLDER_KIND.open(source, SourceOptions()).list_items())
    assert not [each for each in found if isinstance(each, ListingFailure)]
    return [each for each in found if isinstance(each, SourceItem)]


def _names(source: str, below: Path) -> list[str]:
    return [from_file_uri(item.uri).relative_to(below).as_posix() for item in _items(source)]


def test_folders_are_searched_deeply_by_suffix_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", "deep/x.pdf", "README", ".jpg"):
        _touch(tmp_path / name)
    source = FOLDER_KIND.open(str(tmp_path), SourceOptions())
    items = [each for each in source.list_items() if isinstance(each, SourceItem)]
    assert [from_file_uri(item.uri).relative_to(tmp_path).as_posix() for item in items] == ["a.png", "b.JPG", "deep/er/c.webp"]
    assert source.ignored == {".txt": 1, ".pdf": 1, "": 2}
    assert {item.source for item in items} == {source.uri} == {tmp_path.as_uri()}


def test_a_folder_is_listed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_listing, "SORT_BATCH", 3)
    wanted = {f"{i}.jpg" for i in range(10)}
    for name in wanted:
        _touch(tmp_path / name)
    listed = _names(str(tmp_path), tmp_path)
    assert set(listed) == wanted
    assert len(listed) == 10


@pytest.mark.parametrize("pattern", ["?/x.png", "[ab]/x.png", "*/x.png", "a#b/?.png", "100%25/?.png"])
def test_the_uri_of_a_glob_lists_the_same_files(tmp_path: Path, pattern: str) -> None:
    for folder in ("a", "b", "ab", "a#b", "100%25"):
        _touch(tmp_path / folder / "x.png")
    listed = _items(str(tmp_path / pattern))
    assert listed
    assert [item.uri for item in _items(listed[0].source)] == [item.uri for item in listed]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_round_trip_as_folder_file_and_uri(tmp_path: Path, name: str) -> None:
    path = _touch(tmp_path / name, name.encode())
    for source in (tmp_path, path, path.as_uri()):
        [item] = _items(str(source))
        assert item.uri == path.as_uri()
        written = item.locator.to_json()
        assert written is not None
        for place in (item.locator, restore_locator(written)):
            got = place.read(ReadLimits())
            assert got is not None
            assert got.data == name.encode()


def test_names_that_are_not_utf8_round_trip(tmp_path: Path) -> None:
    path = _touch(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    os.utime(path, (0, 0))
    [item] = _items(str(tmp_path))
    assert item.uri.isascii()
    assert split_image_uri(item.uri) == ("caf\ufffd.jpg", str(tmp_path))
    assert item.locator.read(ReadLimits()) == ReadResult(b"x", item.version, None)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
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
def test_globs_list_each_image_once(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/c.txt", "sub/deep/d.jpg", ".hidden/e.jpg"):
        _touch(tmp_path / name)
    assert _names(f"{tmp_path}/{pattern}", tmp_path) == wanted
    assert {item.source for item in _items(f"{tmp_path}/{pattern}")} == {
        FOLDER_KIND.open(f"{tmp_path}/{pattern}", SourceOptions()).uri
    }


def test_a_glob_enters_only_folders_that_can_match(tmp_path: Path) -> None:
    pattern = GlobPattern(["2024", "*", "x.jpg"])
    assert not pattern.match_name(pattern.start_states, "2023")
    assert pattern.is_complete(
        pattern.match_name(pattern.match_name(pattern.match_name(pattern.start_states, "2024"), "any"), "x.jpg")
    )


def test_explicit_files_may_have_any_suffix(tmp_path: Path) -> None:
    assert len(_items(str(_touch(tmp_path / "scan.dat")))) == 1


def test_a_link_loop_ends_and_linked_folders_are_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _touch(photos / "a.jpg")
    _touch(photos / "z" / "elsewhere" / "b.jpg")
    (photos / "loop").symlink_to(photos)
    (photos / "more").symlink_to(photos / "z" / "elsewhere")
    assert _names(str(photos), photos) == ["a.jpg", "z/elsewhere/b.jpg"]
    assert _names(f"{photos}/**/*.jpg", photos) == ["a.jpg", "z/elsewhere/b.jpg"]
    assert _names(f"{photos}/more/*.jpg", photos) == ["more/b.jpg"]
    assert _names(f"{photos}/[m]*/*.jpg", photos) == ["more/b.jpg"]


def test_a_new_link_gives_no_image_a_new_uri(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _touch(photos / "real" / "a.jpg")
    before = _names(str(photos), photos)
    (photos / "aaa").symlink_to(photos / "real")
    assert _names(str(photos), photos) == before


@pytest.mark.parametrize("source", ["nowhere", "none-*.jpg", "no/folder/*.jpg", ""])
def test_missing_source_is_wrong_usage(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        _items(source)
    assert repr(source) in caught.value.message


def test_versions_follow_settled_bytes(tmp_path: Path) -> None:
    path = _touch(tmp_path / "a.jpg", b"one")
    [fresh] = _items(str(path))
    assert fresh.version is None
    then = 1_700_000_000
    os.utime(path, (then, then))
    [settled], [again] = _items(str(path)), _items(str(tmp_path))
    assert settled.version == again.version is not None
    assert settled.locator.read(ReadLimits(), known_version=settled.version) is None
    assert settled.locator.read(ReadLimits(), known_version="other") == ReadResult(
        b"one", settled.version, "2023-11-14T22:13:20.000+00:00"
    )
    path.write_bytes(b"two")
    os.utime(path, (then + 1, then + 1))
    [changed] = _items(str(path))
    assert changed.version not in (None, settled.version)


def test_an_unreadable_file_has_a_reason(tmp_path: Path) -> None:
    loop, pipe, large = tmp_path / "loop.jpg", tmp_path / "pipe.jpg", _touch(tmp_path / "large.jpg", b"12345")
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    gone = tmp_path / "gone.jpg"
    gone.symlink_to(tmp_path / "nothing")
    items = {from_file_uri(item.uri): item for item in _items(str(tmp_path))}
    for path, reason in [
        (gone, "No such file"),
        (loop, "symbolic links"),
        (pipe, "not a regular file"),
        (large, "5 bytes exceed the limit of 4"),
    ]:
        with pytest.raises(ReadError, match=reason):
            items[path].locator.read(ReadLimits(max_bytes=4))


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
