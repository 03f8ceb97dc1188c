"""A file is shown only below an allowed folder, links followed."""

import os
from pathlib import Path

import pytest

from stair_es.errors import UsageError
from stair_es.sources.paths import uri_of
from stair_es.web.originals import Roots, opened

MOST = 1000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a b%.jpg").write_bytes(b"inside")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "b.jpg").write_bytes(b"outside")
    return tmp_path


def read(tree: Path, uri: str) -> bytes | None:
    found = Roots.of([tree / "root"]).read(uri, MOST)
    return found.data if found else None


def test_a_file_below_a_root_is_read(tree: Path) -> None:
    uri = uri_of(tree / "root" / "sub" / "a b%.jpg")
    assert read(tree, uri) == b"inside"
    assert read(tree, uri.replace("file://", "file://localhost")) == b"inside"
    assert read(tree, uri.replace("/sub/", "/sub/../sub/")) == b"inside"


def test_everything_else_is_nothing(tree: Path) -> None:
    inside, outside = tree / "root" / "sub" / "a b%.jpg", tree / "root-2" / "b.jpg"
    (tree / "root" / "link.jpg").symlink_to(outside)
    (tree / "root" / "folder").symlink_to(tree / "root-2")
    (tree / "root" / "loop").symlink_to("loop")
    os.mkfifo(tree / "root" / "pipe.jpg")
    (tree / "root" / "large.jpg").write_bytes(bytes(MOST + 1))
    root = uri_of(tree / "root")
    for uri in (
        uri_of(outside),
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
        uri_of(inside) + "#member",
        uri_of(inside) + "?x",
        uri_of(inside).replace("file://", "file://elsewhere"),
        uri_of(inside).removeprefix("file://"),
        uri_of(inside).replace("file:", "http:"),
        "file:",
        "http://[",
        "",
    ):
        assert read(tree, uri) is None, uri


def test_a_link_that_stays_inside_is_followed_and_a_root_may_be_a_link(tree: Path) -> None:
    (tree / "root" / "link.jpg").symlink_to(tree / "root" / "sub" / "a b%.jpg")
    (tree / "named").symlink_to(tree / "root")
    assert read(tree, uri_of(tree / "root" / "link.jpg")) == b"inside"
    found = Roots.of([tree / "named"]).read(uri_of(tree / "named" / "link.jpg"), MOST)
    assert found is not None
    assert found.key[0] == str((tree / "root" / "sub" / "a b%.jpg").resolve())


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="paths are opened as a whole here")
def test_a_link_that_is_put_into_the_way_after_the_look_leads_nowhere(tree: Path) -> None:
    root = tree / "root"
    (root / "folder").symlink_to(tree / "root-2")  # it was a folder when links were resolved
    (root / "b.jpg").symlink_to(tree / "root-2" / "b.jpg")
    for odd in (root / "folder" / "b.jpg", root / "b.jpg"):
        assert odd.read_bytes() == b"outside"
        with pytest.raises(OSError, match=r"b\.jpg|folder"):
            os.close(opened(root, odd))
    handle = opened(root, root / "sub" / "a b%.jpg")
    with os.fdopen(handle, "rb") as file:
        assert file.read() == b"inside"


def test_no_root_means_no_file(tree: Path) -> None:
    assert not Roots.of([])
    assert Roots.of([]).read(uri_of(tree / "root" / "sub" / "a b%.jpg"), MOST) is None


def test_a_root_that_is_no_folder_is_refused(tree: Path) -> None:
    for odd in (tree / "gone", tree / "root-2" / "b.jpg", Path("a\0b")):
        with pytest.raises(UsageError):
            Roots.of([odd])
