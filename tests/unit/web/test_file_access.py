"""Only files below an allowed folder are shown, with links resolved."""

import os
from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.sources.io.uris import to_file_uri
from stair_es.web.originals import AllowedRoots, open_beneath

MAX_BYTES = 1000


@pytest.fixture
def folder_tree(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a b%.jpg").write_bytes(b"inside")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "b.jpg").write_bytes(b"outside")
    return tmp_path


def read_uri(folder_tree: Path, uri: str) -> bytes | None:
    found = AllowedRoots.from_folders([folder_tree / "root"]).read(uri, MAX_BYTES)
    return found.data if found else None


def test_a_file_below_a_root_is_read(folder_tree: Path) -> None:
    uri = to_file_uri(folder_tree / "root" / "sub" / "a b%.jpg")
    assert read_uri(folder_tree, uri) == b"inside"
    assert read_uri(folder_tree, uri.replace("file://", "file://localhost")) == b"inside"
    assert read_uri(folder_tree, uri.replace("/sub/", "/sub/../sub/")) == b"inside"


def test_all_other_uris_are_denied(folder_tree: Path) -> None:
    inside, outside = folder_tree / "root" / "sub" / "a b%.jpg", folder_tree / "root-2" / "b.jpg"
    (folder_tree / "root" / "link.jpg").symlink_to(outside)
    (folder_tree / "root" / "folder").symlink_to(folder_tree / "root-2")
    (folder_tree / "root" / "loop").symlink_to("loop")
    os.mkfifo(folder_tree / "root" / "pipe.jpg")
    (folder_tree / "root" / "large.jpg").write_bytes(bytes(MAX_BYTES + 1))
    root = to_file_uri(folder_tree / "root")
    for uri in (
        to_file_uri(outside),
        f"{root}/../root-2/b.jpg",
        f"{root}/%2e%2e/root-2/b.jpg",
        f"{root}/..%2froot-2%2fb.jpg",
        f"{root}/link.jpg",
        f"{root}/folder/b.jpg",
        f"{root}/loop",
        f"{root}/pipe.jpg",
        f"{root}/large.jpg",
        f"{root}/sub",
        root,
        f"{root}/gone.jpg",
        f"{root}/a%00.jpg",
        f"{root}/{'x' * 5000}",
        "file:///etc/passwd",
        "file:///dev/zero",
        to_file_uri(inside) + "#member",
        to_file_uri(inside) + "?x",
        to_file_uri(inside).replace("file://", "file://elsewhere"),
        to_file_uri(inside).removeprefix("file://"),
        to_file_uri(inside).replace("file:", "http:"),
        "file:",
        "http://[",
        "",
    ):
        assert read_uri(folder_tree, uri) is None, uri


def test_inner_links_and_linked_roots_are_followed(folder_tree: Path) -> None:
    (folder_tree / "root" / "link.jpg").symlink_to(folder_tree / "root" / "sub" / "a b%.jpg")
    (folder_tree / "named").symlink_to(folder_tree / "root")
    assert read_uri(folder_tree, to_file_uri(folder_tree / "root" / "link.jpg")) == b"inside"
    found = AllowedRoots.from_folders([folder_tree / "named"]).read(to_file_uri(folder_tree / "named" / "link.jpg"), MAX_BYTES)
    assert found is not None
    assert found.key[0] == str((folder_tree / "root" / "sub" / "a b%.jpg").resolve())


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="paths are opened as a whole here")
def test_links_created_after_the_check_are_not_followed(folder_tree: Path) -> None:
    root = folder_tree / "root"
    (root / "folder").symlink_to(folder_tree / "root-2")  # it was a folder when links were resolved
    (root / "b.jpg").symlink_to(folder_tree / "root-2" / "b.jpg")
    for special in (root / "folder" / "b.jpg", root / "b.jpg"):
        assert special.read_bytes() == b"outside"
        with pytest.raises(OSError, match=r"b\.jpg|folder"):
            os.close(open_beneath(root, special))
    handle = open_beneath(root, root / "sub" / "a b%.jpg")
    with os.fdopen(handle, "rb") as file:
        assert file.read() == b"inside"


def test_no_root_means_no_file(folder_tree: Path) -> None:
    assert not AllowedRoots.from_folders([])
    assert AllowedRoots.from_folders([]).read(to_file_uri(folder_tree / "root" / "sub" / "a b%.jpg"), MAX_BYTES) is None


def test_a_root_must_be_a_folder(folder_tree: Path) -> None:
    for special in (folder_tree / "gone", folder_tree / "root-2" / "b.jpg", Path("a\0b")):
        with expect_error("not-a-folder" if special.is_file() else "no-such-folder", UsageError):
            AllowedRoots.from_folders([special])
