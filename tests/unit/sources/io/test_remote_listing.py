"""Listings of stores that never end by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, TypeAlias

import pytest
from support.errors import expect_error

from stair_es.errors import SourceError
from stair_es.sources.base import ListingFailure
from stair_es.sources.io import remote_listing
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.remote_listing import RemoteFileLister

_Page: TypeAlias = "tuple[list[str], str]"
"""The keys of a page, and its continuation token; "" on the last one."""


class _FaultyStore:
    """A bucket of S3 with the pages of `list_page`."""

    def __init__(self, list_page: Callable[[str], _Page]) -> None:
        self._list_page = list_page
        self.requests = 0

    def info(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "directory"}

    def split_path(self, path: str) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def call_s3(self, _: str, **request: str) -> dict[str, Any]:
        self.requests += 1
        assert self.requests < 5000, "it has no end"
        keys, token = self._list_page(request.get("ContinuationToken", ""))
        contents = [{"Key": key, "Size": 1} for key in keys]
        return {"Contents": contents, "IsTruncated": bool(token), "NextContinuationToken": token}


def list_store(fs: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListedFile | ListingFailure]:
    monkeypatch.setattr(remote_listing, "open_file_system", lambda url: (fs, url.partition("://")[2].rstrip("/")))
    return RemoteFileLister("s3://b/x", frozenset({".jpg"})).list_files()


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_a_listing_that_repeats_its_pages_fails(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    following = {"": "0", **{str(i): str(i + 1) for i in range(9)}, "9": str(10 - length)}
    store = _FaultyStore(lambda token: ([f"x/{token}.jpg"], following[token]))
    with expect_error("listing-incomplete", SourceError):
        list(list_store(store, monkeypatch))
    assert store.requests < 40


def test_a_listing_of_empty_pages_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = count(1)
    with expect_error("listing-incomplete", SourceError):
        list(list_store(_FaultyStore(lambda _: ([], str(next(tokens)))), monkeypatch))


def test_a_listing_with_some_empty_pages_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"": ([], "1"), "1": (["x/a.jpg", "x/b/"], "2"), "2": ([], "3"), "3": (["x/c.jpg"], "")}
    files = list(list_store(_FaultyStore(pages.__getitem__), monkeypatch))
    assert [file.uri for file in files] == ["s3://b/x/a.jpg", "s3://b/x/c.jpg"]


class _LinkedFolders:
    """A server with a file in each folder, and the folders that `list_folder` names."""

    def __init__(self, list_folder: Callable[[str], list[str]]) -> None:
        self._list_folder = list_folder

    def info(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "directory"}

    def ls(self, folder: str, *, detail: bool) -> list[dict[str, Any]]:
        assert detail
        files = [{"name": f"{folder}/a.jpg", "type": "file", "size": 1}]
        return [*files, *({"name": name, "type": "directory"} for name in self._list_folder(folder))]


def test_a_folder_above_is_not_listed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    files = list_store(_LinkedFolders(lambda folder: ["b", "b/x", "b/x/c"] if folder == "b/x" else ["b/x", "b/y"]), monkeypatch)
    assert [file.uri for file in files] == ["s3://b/x/a.jpg", "s3://b/x/c/a.jpg"]


def test_folders_have_a_maximum_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    *files, failure = list_store(_LinkedFolders(lambda folder: [f"{folder}/loop"]), monkeypatch)
    assert isinstance(failure, ListingFailure)
    assert len(files) == 101
