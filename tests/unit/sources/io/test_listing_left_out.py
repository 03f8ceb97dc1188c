"""Hidden names and links out of the folder, which listings skip by default."""

import ntpath
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import fsspec  # type: ignore[import-untyped]
import pytest
from support.corpora.hostile_files import END, build_tar_member

from stair_es.ingest.source_stream import SourceStream
from stair_es.sources.base import Source, SourceItem, SourceOptions, WalkOptions
from stair_es.sources.io.open_file import create_file_lister
from stair_es.sources.io.uris import is_hidden
from stair_es.sources.registry import open_source

HIDDEN = (".thumbnails/b.jpg", ".Trash-1000/files/c.jpg", "@eaDir/d.jpg", "__MACOSX/._a.jpg", "sub/.e.jpg", "sub/.git/x/f.jpg")
ALL = sorted(["a.jpg", "sub/g.jpg", *HIDDEN])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with hidden files and folders, and links to what is in it and what isn't."""
    for name in (*ALL, ".DS_Store"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.jpg").write_bytes(b"x")
    return tmp_path / "photos"


@pytest.fixture
def bucket() -> Iterator[str]:
    """The same in an object store, below a prefix that is hidden itself."""
    store = fsspec.filesystem("memory")
    for name in (*ALL, ".DS_Store"):
        store.pipe(f"/left-out/.old/{name}", b"x")
    yield "memory://left-out/.old"
    store.rm("/left-out", recursive=True)


def listed(source: Source) -> list[str]:
    items = list(source.list_items())
    assert all(isinstance(each, SourceItem) for each in items)
    return sorted(unquote(re.split(r"/(?:photos|album|\.old)/", each.uri)[-1]) for each in items)


def open_with(argument: object, **walk: bool) -> Source:
    return open_source(str(argument), SourceOptions(walk=WalkOptions(**walk)))


def test_hidden_files_and_folders_are_left_out_and_counted(photos: Path) -> None:
    source = open_with(photos)
    stream = SourceStream([source])
    assert [item.uri for item in stream] == [(photos / name).as_uri() for name in ("a.jpg", "sub/g.jpg")]
    assert source.ignored == {"": 1}
    assert stream.describe_left_out() == "6 hidden files and folders left out (include with --hidden)"
    assert stream.complete == [source.uri]


def test_hidden_files_and_folders_are_listed_on_request(photos: Path) -> None:
    assert listed(open_with(photos, hidden=True)) == ALL
    assert listed(open_with(f"{photos}/**", hidden=True)) == ALL
    assert listed(open_with(f"{photos}/*/*.jpg", hidden=True)) == [name for name in ALL if name.count("/") == 1]


def test_a_named_file_is_included_even_if_it_is_hidden(photos: Path) -> None:
    assert listed(open_with(photos / ".thumbnails")) == [".thumbnails/b.jpg"]
    assert [item.uri for item in open_with(photos / "sub" / ".e.jpg").list_items()] == [(photos / "sub" / ".e.jpg").as_uri()]
    assert listed(open_with(f"{photos}/.th*/*.jpg")) == [".thumbnails/b.jpg"]
    assert listed(open_with(f"{photos}/@*/*.jpg")) == ["@eaDir/d.jpg"]
    assert listed(open_with(f"{photos}/**/*.jpg")) == listed(open_with(f"{photos}/**")) == ["a.jpg", "sub/g.jpg"]


def test_object_stores_hide_by_the_parts_of_a_key(bucket: str) -> None:
    source = open_with(bucket)
    assert listed(source) == ["a.jpg", "sub/g.jpg"]
    assert SourceStream([source]).describe_left_out() == "6 hidden files and folders left out (include with --hidden)"
    assert listed(open_with(bucket, hidden=True)) == ALL
    assert listed(open_with(f"{bucket}/*")) == ["a.jpg", "sub/g.jpg"]
    assert listed(open_with(f"{bucket}/.th*/*.jpg")) == [".thumbnails/b.jpg"]


def test_folders_of_tables_hide_as_well(tmp_path: Path) -> None:
    for name in ("a.csv", ".hidden/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image\nx.jpg\n")
    assert [each.uri.rpartition("/")[2] for each in create_file_lister(str(tmp_path), frozenset({".csv"})).list_files()] == [
        "a.csv"
    ]
    for hidden, count in ((False, 1), (True, 2)):
        source = open_source(str(tmp_path), SourceOptions(format="csv", walk=WalkOptions(hidden=hidden)))
        assert len(list(source.list_items())) == count


def test_hidden_members_of_tars_are_left_out_and_counted(tmp_path: Path) -> None:
    hidden = ["__MACOSX/0.jpg", "./a/._0.jpg", "a/._0.txt", ".x/0.jpg", ".DS_Store"]
    parts = [
        build_tar_member("./a/0.jpg", b"x"),
        *(build_tar_member(name, b"\xff") for name in hidden),
        build_tar_member("a/0.txt", b"text"),
        END,
    ]
    (tmp_path / "s.tar").write_bytes(b"".join(parts))
    source = open_with(f"{tmp_path}/*.tar")
    stream = SourceStream([source])
    [item] = stream
    assert isinstance(item, SourceItem)
    assert item.uri.endswith("#a/0.jpg")
    assert item.fields == {"caption": "text"}  # the members between them don't part the sample
    assert source.ignored == {".ds_store": 1}
    assert stream.describe_left_out() == "4 hidden files and folders left out (include with --hidden)"
    assert len([each for each in open_with(tmp_path / "s.tar", hidden=True).list_items() if isinstance(each, SourceItem)]) == 4


def test_links_out_of_the_folder_are_left_out_and_counted(photos: Path) -> None:
    (photos / "elsewhere").symlink_to(photos.parent / "private")
    (photos / "above").symlink_to("..")
    (photos / "one.jpg").symlink_to("../private/secret.jpg")
    (photos / "inside.jpg").symlink_to(photos / "a.jpg")
    source = open_with(photos)
    assert listed(source) == ["a.jpg", "inside.jpg", "sub/g.jpg"]
    assert "3 links out of the source left out (include with --follow-links)" in SourceStream([source]).describe_left_out()
    assert listed(open_with(f"{photos}/*/*.jpg")) == ["sub/g.jpg"]
    followed = listed(open_with(photos, follow_links=True))
    assert set(followed) >= {"a.jpg", "one.jpg", "inside.jpg"}
    assert sum(name.endswith("secret.jpg") for name in followed) == 1  # by the first link that leads there


def test_links_to_another_drive_lead_out_of_the_folder(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inside.jpg", "other.jpg"):
        (photos / name).symlink_to(photos / "a.jpg")
    real = os.path.realpath
    with monkeypatch.context() as windows:
        windows.setattr(os.path, "commonpath", ntpath.commonpath)
        windows.setattr(
            os.path, "realpath", lambda path, **how: ("D:" if str(path).endswith("other.jpg") else "C:") + real(path, **how)
        )
        assert listed(open_with(photos)) == ["a.jpg", "inside.jpg", "sub/g.jpg"]


def test_linked_folder_is_listed_with_inner_links(photos: Path) -> None:
    (photos / "inside.jpg").symlink_to(photos / "a.jpg")
    (photos.parent / "album").symlink_to(photos)
    source = open_with(photos.parent / "album")
    assert listed(source) == ["a.jpg", "inside.jpg", "sub/g.jpg"]


def test_broken_links_fail_when_they_are_read(photos: Path) -> None:
    (photos / "gone.jpg").symlink_to(photos.parent / "private" / "nothing.jpg")
    assert "gone.jpg" in listed(open_with(photos))


@pytest.mark.parametrize(
    ("name", "hidden"), [("a.jpg", False), (".a.jpg", True), ("@eaDir", True), ("@home", False), ("..", False)]
)
def test_hidden_names(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden
