import os
from pathlib import Path

import pytest

from stair_es.errors import DecodeError, IngestError, UsageError
from stair_es.ingest.run import list_sources
from stair_es.sources.listing import list_images, path_of
from stair_es.sources.read import read

ODD_NAMES = ["a b.jpg", 'it\'s "q".jpg', "naïve 日本.jpg", "line\nbreak.jpg", "100%25.jpg", "#?&.jpg", "[x].jpg"]


def _touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_folders_are_searched_deeply_by_suffix_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "notes.txt", "deep/x.pdf", "README"):
        _touch(tmp_path / name)
    listing = list_images([str(tmp_path)])
    assert [path_of(ref.uri).relative_to(tmp_path).as_posix() for ref in listing.images] == ["a.png", "b.JPG", "deep/er/c.webp"]
    assert dict(listing.ignored) == {".txt": 1, ".pdf": 1, "": 1}
    assert {ref.source for ref in listing.images} == {tmp_path.as_uri()}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_round_trip_as_folder_file_and_uri(tmp_path: Path, name: str) -> None:
    path = _touch(tmp_path / name, name.encode())
    for source in (tmp_path, path, path.as_uri()):
        [ref] = list_images([str(source)]).images
        assert read(ref.uri, 1000) == name.encode()
        assert "\n" not in ref.uri


def test_names_that_are_not_utf8_round_trip(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    _touch(path)
    [ref] = list_images([str(tmp_path)]).images
    assert ref.uri.isascii()
    assert read(ref.uri, 10) == b"x"


def test_globs_files_and_overlaps_give_each_image_once(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg", "sub/c.txt"):
        _touch(tmp_path / name)
    listing = list_images([f"{tmp_path}/**/*", str(tmp_path / "a.jpg"), str(tmp_path / "sub"), f"{tmp_path}/sub/../a.jpg"])
    assert sorted(path_of(ref.uri).name for ref in listing.images) == ["a.jpg", "b.jpg"]


def test_a_file_named_by_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    assert len(list_images([str(_touch(tmp_path / "scan.dat"))]).images) == 1


def test_a_link_loop_ends_and_linked_folders_are_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _touch(photos / "a.jpg")
    _touch(tmp_path / "elsewhere" / "b.jpg")
    (photos / "loop").symlink_to(photos)
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    assert [path_of(ref.uri).name for ref in list_images([str(photos)]).images] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("source", ["nowhere", "none-*.jpg", "s3://bucket/x", ""])
def test_a_source_that_is_not_there_is_wrong_usage(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        list_images([source])
    assert repr(source) in caught.value.message


def test_no_images_says_what_else_is_there(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="nothing there"):
        list_sources([str(tmp_path)])
    _touch(tmp_path / "a.txt")
    with pytest.raises(IngestError, match=r"1 \.txt"):
        list_sources([str(tmp_path)])


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    loop, pipe, large = tmp_path / "loop.jpg", tmp_path / "pipe.jpg", _touch(tmp_path / "large.jpg", b"12345")
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, reason in [
        (tmp_path / "gone.jpg", "No such file"),
        (loop, "symbolic links"),
        (pipe, "not a regular file"),
        (tmp_path, "Is a directory"),
        (large, "5 bytes exceed the limit of 4"),
    ]:
        with pytest.raises(DecodeError, match=reason):
            read(path.as_uri(), 4)


def test_a_new_link_gives_no_image_a_new_uri(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    _touch(photos / "real" / "a.jpg")
    before = list_images([str(photos)]).images
    (photos / "aaa").symlink_to(photos / "real")
    assert list_images([str(photos)]).images == before
