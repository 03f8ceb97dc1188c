"""Only files below an allowed folder are shown, with links resolved."""

import os
from pathlib import Path

import pytest

from stair_es.errors import UsageError
from stair_es.sources.io.uris import to_file_uri
from stair_es.web.originals import AllowedRoots, open_beneath

MAX_BYTES = 1000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a b%.jpg").write_bytes(b"inside")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "b.jpg").write_bytes(b"outside")
    return tmp_path


def read(tree: Path, uri: str) -> bytes | None:
    found = AllowedRoots.from_folders([tree / "root"]).read(uri, MAX_BYTES)
    return found.data if found else None


def test_a_file_below_a_root_is_read(tree: Path) -> None:
    uri = to_file_uri(tree / "root" / "sub" / "a b%.jpg")
    assert read(tree, uri) == b"inside"
    assert read(tree, uri.replace("file://", "file://localhost")) == b"inside"
    assert read(tree, uri.replace("/sub/", "/sub/../sub/")) == b"inside"


def test_all_other_uris_are_denied(tree: Path) -> None:
    inside, outside = tree / "root" / "sub" / "a b%.jpg", tree / "root-2" / "b.jpg"
    (tree / "root" / "link.jpg").symlink_to(outside)
    (tree / "root" / "folder").symlink_to(tree / "root-2")
    (tree / "root" / "loop").symlink_to("loop")
    os.mkfifo(tree / "root" / "pipe.jpg")
    (tree / "root" / "large.jpg").write_bytes(bytes(MAX_BYTES + 1))
    root = to_file_uri(tree / "root")
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
        assert read(tree, uri) is None, uri


def test_inner_links_and_linked_roots_are_followed(tree: Path) -> None:
    (tree / "root" / "link.jpg").symlink_to(tree / "root" / "sub" / "a b%.jpg")
    (tree / "named").symlink_to(tree / "root")
    assert read(tree, to_file_uri(tree / "root" / "link.jpg")) == b"inside"
    found = AllowedRoots.from_folders([tree / "named"]).read(to_file_uri(tree / "named" / "link.jpg"), MAX_BYTES)
    assert found is not None
    assert found.key[0] == str((tree / "root" / "sub" / "a b%.jpg").resolve())


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="paths are opened as a whole here")
def test_links_created_after_the_check_are_not_followed(tree: Path) -> None:
    root = tree / "root"
    (root / "folder").symlink_to(tree / "root-2")  # it was a folder when links were resolved
    (root / "b.jpg").symlink_to(tree / "root-2" / "b.jpg")
    for special in (root / "folder" / "b.jpg", root / "b.jpg"):
        assert special.read_bytes() == b"outside"
        with pytest.raises(OSError, match=r"b\.jpg|folder"):
            os.close(open_beneath(root, special))
    handle = open_beneath(root, root / "sub" / "a b%.jpg")
    with os.fdopen(handle, "rb") as file:
        assert file.read() == b"inside"


def test_no_root_means_no_file(tree: Path) -> None:
    assert not AllowedRoots.from_folders([])
    assert AllowedRoots.from_folders([]).read(to_file_uri(tree / "root" / "sub" / "a b%.jpg"), MAX_BYTES) is None


def test_a_root_must_be_a_folder(tree: Path) -> None:
    for special in (tree / "gone", tree / "root-2" / "b.jpg", Path("a\0b")):
        with pytest.raises(UsageError):
            AllowedRoots.from_folders([special])
