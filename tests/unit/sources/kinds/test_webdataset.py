"""Webdataset tars: samples, members read where they are, and tars that are cut, broken or packed."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from support.corpora.hostile_files import END, build_tar_member, write_gzip

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.kinds.webdataset import split_sample_key
from stair_es.sources.registry import open_source

SAMPLES = [
    ("n01/000.jpg", b"first image"),
    ("n01/000.txt", b"a caption\n"),
    ("n01/000.json", b'{"license": "CC0", "n": 1}'),
    ("n01/001.left.png", b"left"),
    ("n01/001.right.png", b"right"),
    ("n01/002.json", b"{broken"),
    ("n01/002.jpg", b"second"),
    ("n01/003.mp3", b"no image"),
]


def _tar(path: Path, files: list[tuple[str, bytes]], mode: Any = "w") -> Path:  # noqa: ANN401
    with tarfile.open(path, mode) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000 if name == "n01/000.jpg" else 0
            tar.addfile(info, io.BytesIO(data))
    os.utime(path, (time.time() - 10, time.time() - 10))
    return path


def _all(path: Path | str, **options: Any) -> list[SourceItem | ListingFailure]:  # noqa: ANN401
    return list(open_source(str(path), SourceOptions(**options)).list_items())


def _data(item: SourceItem | ListingFailure) -> bytes:
    assert isinstance(item, SourceItem)
    read = pickle.loads(pickle.dumps(item.locator)).read(ReadLimits())
    assert read is not None
    return bytes(read.data)


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz")])
def test_samples_have_their_images_and_fields(tmp_path: Path, name: str, mode: str) -> None:
    tar = _tar(tmp_path / name, SAMPLES, mode)
    source = open_source(str(tar), SourceOptions(columns={"caption": "txt", "license": "license", "key": "__key__"}))
    found = list(source.list_items())
    items = [each for each in found if isinstance(each, SourceItem)]
    assert [item.uri.partition("#")[2] for item in items] == [
        "n01/000.jpg",
        "n01/001.left.png",
        "n01/001.right.png",
        "n01/002.jpg",
    ]
    assert [_data(item) for item in items] == [b"first image", b"left", b"right", b"second"]
    times = [read.modified_at for item in items if (read := item.locator.read(ReadLimits()))]
    assert times == ["2023-11-14T22:13:20.000+00:00", None, None, None]
    assert items[0].fields == {"caption": "a caption", "license": "CC0", "key": "n01/000"}
    assert [
        (each.uri.partition("#")[2], "JSON" in each.reason or "fields" in each.reason)
        for each in found
        if isinstance(each, ListingFailure)
    ] == [("n01/002.json", True)]
    assert source.ignored == {".mp3": 1}
    assert len({item.version for item in items}) == 4
    assert None not in {item.version for item in items}


def test_members_outlive_the_listing_and_change_with_the_tar(tmp_path: Path) -> None:
    tar = _tar(tmp_path / "s.tar", SAMPLES)
    [first, *_] = _all(tar)
    assert isinstance(first, SourceItem)
    written = first.locator.to_json()
    assert written is not None
    read = restore_locator(written).read(ReadLimits())
    assert read is not None
    assert (read.data, read.modified_at) == (b"first image", "2023-11-14T22:13:20.000+00:00")
    with pytest.raises(ReadError, match="11 bytes exceed the limit of 10"):
        first.locator.read(ReadLimits(max_bytes=10))
    _tar(tar, [("other.jpg", b"x" * 5000)])
    os.utime(tar, (1, 1))
    with pytest.raises(ReadError, match="changed since"):
        first.locator.read(ReadLimits())


def test_duplicate_nested_and_odd_names(tmp_path: Path) -> None:
    files = [("./a.jpg", b"1"), ("a.jpg", b"2"), ("deep/er/ü #?.jpg", b"3"), ("x" * 300 + ".jpg", b"4")]
    found = _all(_tar(tmp_path / "s.tar", files))
    assert [type(each) for each in found] == [ListingFailure, SourceItem, SourceItem, SourceItem]
    assert [_data(each) for each in found[1:]] == [b"1", b"3", b"4"]
    assert found[2].uri.endswith("#deep/er/%C3%BC%20%23%3F.jpg")


def test_links_are_reported(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(_folder("folder.jpg"))
    [only] = _all(tmp_path / "s.tar")
    assert isinstance(only, ListingFailure)
    assert "link" in only.reason


def test_a_negative_size_is_not_read(tmp_path: Path) -> None:
    parts = [build_tar_member(f"{size}.{suffix}", size=-size) for size in (1, 511) for suffix in ("jpg", "txt")]
    content = b"".join(parts) + build_tar_member("a.jpg", b"a") + END
    (tmp_path / "s.tar").write_bytes(content)
    for tar in (tmp_path / "s.tar", write_gzip(tmp_path / "s.tar.gz", (content, 1))):
        found = _all(tar)
        reasons = [each.reason for each in found if isinstance(each, ListingFailure)]
        assert reasons == ["its size is negative"] * 4
        assert _data(found[-1]) == b"a"


@pytest.mark.parametrize("wrong", [{"size": -1}, {"offset": -1}])
def test_a_dead_letter_with_a_negative_number_is_rejected(wrong: dict[str, int]) -> None:
    right: dict[str, Any] = {"kind": "member", "uri": "file:///s.tar", "offset": 0, "size": 0}
    right |= {"version": None, "modified_at": None}
    assert restore_locator(right)
    with pytest.raises(UsageError, match="not the locator of an image"):
        restore_locator(right | wrong)


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_yields_its_members_and_a_failure(tmp_path: Path, mode: str) -> None:
    files = [(f"{i:03}.jpg", os.urandom(3000)) for i in range(20)]
    tar = _tar(tmp_path / ("s.tar" if mode == "w" else "s.tar.gz"), files, mode)
    content = tar.read_bytes()
    for length in (len(content) // 2, len(content) // 2 + 700):
        tar.write_bytes(content[:length])
        found = _all(tar)
        assert isinstance(found[-1], ListingFailure)
        assert found[-1].uri == tar.as_uri()
        assert 5 < len(found) < 16
        assert [_data(each) for each in found[:-2]] == [data for _, data in files[: len(found) - 2]]


def test_truncated_and_broken_tars_fail(tmp_path: Path) -> None:
    tar = _tar(tmp_path / "s.tar", [("0.jpg", b"x" * 512), ("1.jpg", b"y" * 512), ("2.jpg", b"z" * 512)])
    content = tar.read_bytes()
    tar.write_bytes(content[: 4 * 512])
    assert [type(each) for each in _all(tar)] == [SourceItem, SourceItem, ListingFailure]
    tar.write_bytes(content[:1024] + b"garbage!" * 64 + content[1536:])
    assert [type(each) for each in _all(tar)] == [SourceItem, ListingFailure]
    for other in (b"", b"no tar at all" * 100):
        tar.write_bytes(other)
        assert [type(each) for each in _all(tar)] == [ListingFailure]


@pytest.mark.parametrize("packed", [False, True])
def test_data_after_the_end_mark_is_reported(tmp_path: Path, packed: bool) -> None:
    parts = [
        gzip.compress(each) if packed else each
        for each in (build_tar_member("a.jpg", b"a") + END + bytes(7000), build_tar_member("b.jpg", b"b") + END)
    ]
    tar = tmp_path / ("s.tar.gz" if packed else "s.tar")
    tar.write_bytes(parts[0])
    assert [type(each) for each in _all(tar)] == [SourceItem]
    tar.write_bytes(b"".join(parts))
    first, rest = _all(tar)
    assert _data(first) == b"a"
    assert isinstance(rest, ListingFailure)
    assert "data follows the end-of-archive marker at byte 9,048" in rest.reason


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_other_members_may_have_any_size(tmp_path: Path, name: str) -> None:
    path = _tar(
        tmp_path / name, [("a.mp4", b"m" * 3000), ("a.jpg", b"a"), ("b.jpg", b"b" * 3000)], "w:gz" if "gz" in name else "w"
    )
    source = open_source(str(path), SourceOptions(read_limits=ReadLimits(max_bytes=2000)))
    found = {each.uri[-5:]: type(each) for each in source.list_items()}
    assert found == {"a.jpg": SourceItem, "b.jpg": ListingFailure if "gz" in name else SourceItem}
    assert source.ignored == {".mp4": 1}


def test_a_gzip_file_is_checked_to_its_end(tmp_path: Path) -> None:
    content, tar = gzip.compress(build_tar_member("a.jpg", b"a") + END), tmp_path / "s.tar.gz"
    for damaged, reason in (
        (content[:-8] + bytes(8), "CRC"),
        (content[:-6], "EOFError"),
        (content + b"more", "Not a gzipped file"),
    ):
        tar.write_bytes(damaged)
        first, rest = _all(tar)
        assert _data(first) == b"a"
        assert isinstance(rest, ListingFailure)
        assert reason in rest.reason


def test_braces_name_many_tars_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    for i in (0, 2):
        _tar(tmp_path / f"{i:03}.tar", [(f"{i}.jpg", b"x")])
    found = _all(f"{tmp_path}/{{000..002}}.tar")
    assert [type(each) for each in found] == [SourceItem, ListingFailure, SourceItem]
    assert {each.source for each in found} == {f"{tmp_path.as_uri()}/{{000..002}}.tar"}
    assert len(_all(f"{tmp_path}/*.tar")) == 2
    with pytest.raises(UsageError):
        _all(tmp_path / "none.tar")


def test_a_remote_tar_is_read_by_ranges(tmp_path: Path) -> None:
    import fsspec  # type: ignore[import-untyped]

    tar = _tar(tmp_path / "s.tar", SAMPLES)
    fsspec.filesystem("memory").pipe("/bucket/s.tar", tar.read_bytes())
    items = [each for each in _all("memory://bucket/s.tar") if isinstance(each, SourceItem)]
    assert [_data(item) for item in items] == [b"first image", b"left", b"right", b"second"]
    fsspec.filesystem("memory").pipe("/bucket/s.tar", tar.read_bytes()[:600])
    with pytest.raises(ReadError, match="truncated"):
        items[3].locator.read(ReadLimits())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", ("a", "jpg")), ("x.y/a.b.JPG", ("x.y/a", "b.jpg")), ("x/a", ("x/a", "")), (".jpg", ("", "jpg"))],
)
def test_keys_end_at_the_first_dot_of_the_name(name: str, expected: tuple[str, str]) -> None:
    assert split_sample_key(name) == expected


def test_unknown_column_is_wrong_usage(tmp_path: Path) -> None:
    for number in (0, 1):
        _tar(tmp_path / f"{number}.tar", SAMPLES)
    for name in ("0.tar", "{0..1}.tar"):
        assert _all(tmp_path / name, columns={"caption": "txt", "key": "__key__"})
        with pytest.raises(UsageError, match="has no column 'txtt'"):
            _all(tmp_path / name, columns={"caption": "txtt"})


def test_brace_sets_are_identified_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("x/{0..1},{a,b}.tar").uri == f"{tmp_path.as_uri()}/x/{{0..1}},{{a,b}}.tar"
    secret = open_source("https://u:hunter2@example.com/{0..1}.tar?X-Amz-Signature=hunter2")
    assert secret.uri == "https://example.com/{0..1}.tar"
