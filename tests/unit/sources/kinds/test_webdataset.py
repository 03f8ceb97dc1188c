"""Webdataset tars: samples, members read where they are, and tars that are cut, broken or packed."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support.corpora.hostile_files import END, build_tar_member, write_gzip
from support.corpora.ingest_sources import LONG_AGO, Listing, list_source, mark_settled, read_data
from support.errors import expect_error

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceOptions
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


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> Path:
    """Write a tar that was modified long ago, compressed if its name says so."""
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), LONG_AGO if name == "n01/000.jpg" else 0
            tar.addfile(info, io.BytesIO(data))
    return mark_settled(path)


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tgz"])
def test_samples_have_their_images_and_fields(tmp_path: Path, name: str) -> None:
    tar = write_tar(tmp_path / name, SAMPLES)
    source = open_source(str(tar), SourceOptions(columns={"caption": "txt", "license": "license", "key": "__key__"}))
    listed = Listing(source.list_items())
    items = listed.images
    assert listed.image_positions == ["n01/000.jpg", "n01/001.left.png", "n01/001.right.png", "n01/002.jpg"]
    assert [read_data(item) for item in items] == [b"first image", b"left", b"right", b"second"]
    times = [read.modified_at for item in items if (read := item.locator.read(ReadLimits()))]
    assert times == ["2023-11-14T22:13:20.000+00:00", None, None, None]
    assert items[0].fields == {"caption": "a caption", "license": "CC0", "key": "n01/000"}
    assert listed.failed_positions == ["n01/002.json"]
    assert source.ignored == {".mp3": 1}
    assert len({item.version for item in items} - {None}) == 4


def test_members_outlive_the_listing_and_change_with_the_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", SAMPLES)
    first = list_source(tar).images[0]
    written = first.locator.to_json()
    assert written is not None
    read = restore_locator(written).read(ReadLimits())
    assert read is not None
    assert (read.data, read.modified_at) == (b"first image", "2023-11-14T22:13:20.000+00:00")
    with expect_error("file-too-large", ReadError):
        first.locator.read(ReadLimits(max_bytes=10))
    write_tar(tar, [("other.jpg", b"x" * 5000)])
    os.utime(tar, (1, 1))
    with expect_error("file-changed"):
        first.locator.read(ReadLimits())


def test_duplicate_nested_and_odd_names(tmp_path: Path) -> None:
    files = [("./a.jpg", b"1"), ("a.jpg", b"2"), ("deep/er/ü #?.jpg", b"3"), ("x" * 300 + ".jpg", b"4")]
    listed = list_source(write_tar(tmp_path / "s.tar", files))
    assert listed.kinds == "fiii"
    assert [read_data(item) for item in listed[1:]] == [b"1", b"3", b"4"]
    assert listed[2].uri.endswith("#deep/er/%C3%BC%20%23%3F.jpg")


def test_links_are_reported(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "s.tar").write_bytes(link.tobuf() + build_tar_member("folder.jpg", kind=tarfile.DIRTYPE) + END)
    listed = list_source(tmp_path / "s.tar")
    assert (listed.kinds, listed.failed_positions) == ("f", ["link.jpg"])
    assert "link" in listed.failures[0].reason


def test_a_negative_size_is_not_read(tmp_path: Path) -> None:
    members = [build_tar_member(f"{size}.{suffix}", size=-size) for size in (1, 511) for suffix in ("jpg", "txt")]
    content = b"".join(members) + build_tar_member("a.jpg", b"a") + END
    (tmp_path / "s.tar").write_bytes(content)
    for tar in (tmp_path / "s.tar", write_gzip(tmp_path / "s.tar.gz", (content, 1))):
        listed = list_source(tar)
        assert listed.kinds == "ffffi"
        assert all("negative" in failure.reason for failure in listed.failures)
        assert read_data(listed[-1]) == b"a"


@pytest.mark.parametrize("invalid", [{"size": -1}, {"offset": -1}])
def test_a_dead_letter_with_a_negative_number_is_rejected(invalid: dict[str, int]) -> None:
    valid: dict[str, Any] = {"kind": "member", "uri": "file:///s.tar", "offset": 0, "size": 0}
    valid |= {"version": None, "modified_at": None}
    assert restore_locator(valid)
    with expect_error("not-an-image-locator", UsageError):
        restore_locator(valid | invalid)


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_a_truncated_tar_yields_its_members_and_a_failure(tmp_path: Path, name: str) -> None:
    files = [(f"{i:03}.jpg", os.urandom(3000)) for i in range(20)]
    tar = write_tar(tmp_path / name, files)
    content = tar.read_bytes()
    for length in (len(content) // 2, len(content) // 2 + 700):
        tar.write_bytes(content[:length])
        listed = list_source(tar)
        assert isinstance(listed[-1], ListingFailure)
        assert listed[-1].uri == tar.as_uri()
        assert 5 < len(listed) < 16
        assert [read_data(each) for each in listed[:-2]] == [data for _, data in files[: len(listed) - 2]]


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_broken_tars_fail(tmp_path: Path, name: str) -> None:
    content = b"".join(build_tar_member(f"{i}.jpg", b"x" * 512) for i in range(3)) + END
    for broken, kinds, fact in (
        (content[: 4 * 512], "iif", "end-of-archive"),
        (content[:1024] + b"garbage!" * 64 + content[1536:], "if", "bad header at byte 1024"),
        (b"", "f", "empty file"),
        (b"no tar at all" * 100, "f", "invalid header"),
    ):
        (tmp_path / name).write_bytes(gzip.compress(broken) if name.endswith(".gz") else broken)
        listed = list_source(tmp_path / name)
        assert listed.kinds == kinds
        assert fact in listed.failures[0].reason


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_data_after_the_end_mark_is_reported(tmp_path: Path, name: str) -> None:
    tar = tmp_path / name
    first = build_tar_member("a.jpg", b"a") + END + bytes(7000)
    archives = [first, build_tar_member("b.jpg", b"b") + END]
    if tar.suffix == ".gz":
        archives = [gzip.compress(archive) for archive in archives]
    tar.write_bytes(archives[0])
    assert list_source(tar).kinds == "i"
    tar.write_bytes(b"".join(archives))
    image, failure = list_source(tar)
    assert read_data(image) == b"a"
    assert isinstance(failure, ListingFailure)
    assert f"byte {len(first):,}" in failure.reason


@pytest.mark.parametrize(("name", "too_large"), [("s.tar", []), ("s.tar.gz", ["b.jpg"])])
def test_other_members_may_have_any_size(tmp_path: Path, name: str, too_large: list[str]) -> None:
    path = write_tar(tmp_path / name, [("a.mp4", b"m" * 3000), ("a.jpg", b"a"), ("b.jpg", b"b" * 3000)])
    source = open_source(str(path), SourceOptions(read_limits=ReadLimits(max_bytes=2000)))
    listed = Listing(source.list_items())
    assert (len(listed), listed.failed_positions) == (2, too_large)
    assert source.ignored == {".mp4": 1}


def test_a_gzip_file_is_checked_to_its_end(tmp_path: Path) -> None:
    content, tar = gzip.compress(build_tar_member("a.jpg", b"a") + END), tmp_path / "s.tar.gz"
    for damaged, fact in ((content[:-8] + bytes(8), "CRC"), (content[:-6], "EOFError"), (content + b"more", "Not a gzipped")):
        tar.write_bytes(damaged)
        listed = list_source(tar)
        assert listed.kinds == "if"
        assert read_data(listed[0]) == b"a"
        assert fact in listed.failures[0].reason


def test_braces_name_many_tars_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    for i in (0, 2):
        write_tar(tmp_path / f"{i:03}.tar", [(f"{i}.jpg", b"x")])
    listed = list_source(f"{tmp_path}/{{000..002}}.tar")
    assert listed.kinds == "ifi"
    assert {each.source for each in listed} == {f"{tmp_path.as_uri()}/{{000..002}}.tar"}
    assert len(list_source(f"{tmp_path}/*.tar")) == 2
    with expect_error("no-such-file", UsageError):
        list_source(tmp_path / "none.tar")


def test_a_remote_tar_is_read_by_ranges(tmp_path: Path) -> None:
    import fsspec  # type: ignore[import-untyped]

    content = write_tar(tmp_path / "s.tar", SAMPLES).read_bytes()
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/s.tar", content)
    items = list_source("memory://bucket/s.tar").images
    assert [read_data(item) for item in items] == [b"first image", b"left", b"right", b"second"]
    store.pipe("/bucket/s.tar", content[:600])
    with expect_error("file-truncated", ReadError):
        items[3].locator.read(ReadLimits())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", ("a", "jpg")), ("x.y/a.b.JPG", ("x.y/a", "b.jpg")), ("x/a", ("x/a", "")), (".jpg", ("", "jpg"))],
)
def test_sample_keys_end_at_the_first_dot(name: str, expected: tuple[str, str]) -> None:
    assert split_sample_key(name) == expected


@pytest.mark.parametrize("name", ["0.tar", "{0..1}.tar"])
def test_unknown_column_is_wrong_usage(tmp_path: Path, name: str) -> None:
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", SAMPLES)
    assert list_source(tmp_path / name, columns={"caption": "txt", "key": "__key__"})
    with expect_error("no-such-column", UsageError) as caught:
        list_source(tmp_path / name, columns={"caption": "txtt"})
    assert "'txtt'" in caught.value.message


def test_brace_sets_are_identified_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_source("x/{0..1},{a,b}.tar").uri == f"{tmp_path.as_uri()}/x/{{0..1}},{{a,b}}.tar"
    secret = open_source("https://u:hunter2@example.com/{0..1}.tar?X-Amz-Signature=hunter2")
    assert secret.uri == "https://example.com/{0..1}.tar"
