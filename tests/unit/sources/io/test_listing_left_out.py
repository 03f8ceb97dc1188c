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
from support.corpora.ingest_sources import list_images, list_source

from stair_es.ingest.source_stream import SourceStream
from stair_es.sources.base import SourceItem, WalkOptions
from stair_es.sources.io.open_file import create_file_lister
from stair_es.sources.io.uris import is_hidden
from stair_es.sources.registry import open_source

VISIBLE = ["a.jpg", "sub/g.jpg"]
HIDDEN = (".thumbnails/b.jpg", ".Trash-1000/files/c.jpg", "@eaDir/d.jpg", "__MACOSX/._a.jpg", "sub/.e.jpg", "sub/.git/x/f.jpg")
ALL = sorted([*VISIBLE, *HIDDEN])


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder with hidden files and folders, next to another one."""
    for name in (*ALL, ".DS_Store"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.jpg").write_bytes(b"x")
    return tmp_path / "photos"


@pytest.fixture
def bucket_uri() -> Iterator[str]:
    """The same in an object store, below a prefix that is hidden itself."""
    store = fsspec.filesystem("memory")
    for name in (*ALL, ".DS_Store"):
        store.pipe(f"/left-out/.old/{name}", b"x")
    yield "memory://left-out/.old"
    store.rm("/left-out", recursive=True)


def list_names(argument: Path | str, **walk: bool) -> list[str]:
    uris = [item.uri for item in list_images(argument, walk=WalkOptions(**walk))]
    return sorted(unquote(re.split(r"/(?:photos|album|\.old)/", uri)[-1]) for uri in uris)


def count_left_out(stream: SourceStream) -> dict[str, int]:
    """List a stream, and return the option that its message names for what was left out -> how much that is."""
    assert all(isinstance(found, SourceItem) for found in stream)
    parts = re.findall(r"(\d+)[^(]*\([^)]*(--[a-z-]+)\)", stream.describe_left_out())
    return {option: int(count) for count, option in parts}


def test_hidden_files_and_folders_are_left_out_and_counted(photo_folder: Path) -> None:
    source = open_source(str(photo_folder))
    stream = SourceStream([source])
    assert count_left_out(stream) == {"--hidden": 6}
    assert source.ignored == {"": 1}
    assert stream.complete == [source.uri]


@pytest.mark.parametrize(
    ("pattern", "hidden", "names"),
    [
        ("", True, ALL),
        ("/**", True, ALL),
        ("/*/*.jpg", True, [name for name in ALL if name.count("/") == 1]),
        ("", False, VISIBLE),
        ("/**", False, VISIBLE),
        ("/**/*.jpg", False, VISIBLE),
        ("/.thumbnails", False, [".thumbnails/b.jpg"]),
        ("/.th*/*.jpg", False, [".thumbnails/b.jpg"]),
        ("/@*/*.jpg", False, ["@eaDir/d.jpg"]),
        ("/sub/.e.jpg", False, ["sub/.e.jpg"]),
    ],
)
def test_hidden_files_are_listed_on_request_or_by_name(photo_folder: Path, pattern: str, hidden: bool, names: list[str]) -> None:
    assert list_names(f"{photo_folder}{pattern}", hidden=hidden) == names


def test_object_stores_hide_by_the_parts_of_a_key(bucket_uri: str) -> None:
    assert list_names(bucket_uri) == list_names(f"{bucket_uri}/*") == VISIBLE
    assert count_left_out(SourceStream([open_source(bucket_uri)])) == {"--hidden": 6}
    assert list_names(bucket_uri, hidden=True) == ALL
    assert list_names(f"{bucket_uri}/.th*/*.jpg") == [".thumbnails/b.jpg"]


def test_folders_of_tables_hide_as_well(tmp_path: Path) -> None:
    for name in ("a.csv", ".hidden/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("image\nx.jpg\n")
    files = create_file_lister(str(tmp_path), frozenset({".csv"})).list_files()
    assert [file.uri for file in files] == [(tmp_path / "a.csv").as_uri()]
    for hidden, count in ((False, 1), (True, 2)):
        assert len(list_source(tmp_path, format="csv", walk=WalkOptions(hidden=hidden))) == count


def test_hidden_members_of_tars_are_left_out_and_counted(tmp_path: Path) -> None:
    hidden = ["__MACOSX/0.jpg", "./a/._0.jpg", "a/._0.txt", ".x/0.jpg", ".DS_Store"]
    members = [
        build_tar_member("./a/0.jpg", b"x"),
        *(build_tar_member(name, b"\xff") for name in hidden),
        build_tar_member("a/0.txt", b"text"),
    ]
    (tmp_path / "s.tar").write_bytes(b"".join(members) + END)
    source = open_source(f"{tmp_path}/*.tar")
    [item] = SourceStream([source])
    assert isinstance(item, SourceItem)
    assert item.uri.endswith("#a/0.jpg")
    assert item.fields == {"caption": "text"}  # the members between them don't part the sample
    assert source.ignored == {".ds_store": 1}
    assert count_left_out(SourceStream([open_source(str(tmp_path / "s.tar"))])) == {"--hidden": 4}
    assert len(list_source(tmp_path / "s.tar", walk=WalkOptions(hidden=True)).images) == 4


def test_links_out_of_the_folder_are_left_out_and_counted(photo_folder: Path) -> None:
    (photo_folder / "elsewhere").symlink_to(photo_folder.parent / "private")
    (photo_folder / "above").symlink_to("..")
    (photo_folder / "one.jpg").symlink_to("../private/secret.jpg")
    (photo_folder / "inside.jpg").symlink_to(photo_folder / "a.jpg")
    assert list_names(photo_folder) == ["a.jpg", "inside.jpg", "sub/g.jpg"]
    assert count_left_out(SourceStream([open_source(str(photo_folder))])) == {"--hidden": 6, "--follow-links": 3}
    assert list_names(f"{photo_folder}/*/*.jpg") == ["sub/g.jpg"]
    followed = list_names(photo_folder, follow_links=True)
    assert set(followed) >= {"a.jpg", "one.jpg", "inside.jpg"}
    assert sum(name.endswith("secret.jpg") for name in followed) == 1  # by the first link that leads there


def test_links_to_another_drive_lead_out_of_the_folder(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inside.jpg", "other.jpg"):
        (photo_folder / name).symlink_to(photo_folder / "a.jpg")
    realpath = os.path.realpath

    def add_drive(path: str, **options: bool) -> str:
        return ("D:" if str(path).endswith("other.jpg") else "C:") + realpath(path, **options)

    with monkeypatch.context() as windows:
        windows.setattr(os.path, "commonpath", ntpath.commonpath)
        windows.setattr(os.path, "realpath", add_drive)
        assert list_names(photo_folder) == ["a.jpg", "inside.jpg", "sub/g.jpg"]


def test_linked_folder_is_listed_with_inner_links(photo_folder: Path) -> None:
    (photo_folder / "inside.jpg").symlink_to(photo_folder / "a.jpg")
    (photo_folder.parent / "album").symlink_to(photo_folder)
    assert list_names(photo_folder.parent / "album") == ["a.jpg", "inside.jpg", "sub/g.jpg"]


def test_broken_links_fail_when_they_are_read(photo_folder: Path) -> None:
    (photo_folder / "gone.jpg").symlink_to(photo_folder.parent / "private" / "nothing.jpg")
    assert "gone.jpg" in list_names(photo_folder)


@pytest.mark.parametrize(
    ("name", "hidden"), [("a.jpg", False), (".a.jpg", True), ("@eaDir", True), ("@home", False), ("..", False)]
)
def test_hidden_names(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden
