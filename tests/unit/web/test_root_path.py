"""The path below which a proxy shows the page."""

import asyncio
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.web.app import RootPathMiddleware, parse_root_path
from stair_es.web.server import build_page_url


@pytest.mark.parametrize(
    ("text", "path"),
    [("", ""), ("/", ""), ("/images", "/images"), ("images/", "/images"), ("/a/b.c/~d_e-f/", "/a/b.c/~d_e-f")],
)
def test_a_root_path_has_one_slash_in_front(text: str, path: str) -> None:
    assert parse_root_path(text) == path


@pytest.mark.parametrize(
    "text", ["/a b", "https://example.org/images", "/a//b", "/a/../b", "/.", '/"><script>', "/a?b", "/ä", "/%41", "/a\n", "/a;b"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with expect_error("invalid-root-path", UsageError):
        parse_root_path(text)


@pytest.mark.parametrize("text", ["/image", "/coverage", "/static/x", "/api", "/health", "/v1", "/embed_sparse", "/info"])
def test_a_path_of_the_page_itself_is_refused(text: str) -> None:
    with expect_error("reserved-root-path", UsageError):
        parse_root_path(text)


def strip_root(path: str, raw_path: str, root_path: str = "/images") -> tuple[str, bytes]:
    """The paths that the application gets."""
    seen = list[tuple[str, bytes]]()

    async def record_paths(scope: Any, _receive: Any, _send: Any) -> None:  # noqa: ANN401  ASGI
        seen.append((scope["path"], scope["raw_path"]))

    scope = {"type": "http", "path": path, "raw_path": raw_path.encode()}
    asyncio.run(RootPathMiddleware(record_paths, root_path)(scope, None, None))  # type: ignore[arg-type]  # neither is used
    return seen[0]


@pytest.mark.parametrize(
    ("path", "raw_path", "stripped"),
    [
        ("/images/thumb/a/b", "/images/thumb/a%2Fb", ("/thumb/a/b", b"/thumb/a%2Fb")),
        ("/thumb/a/b", "/thumb/a%2Fb", ("/thumb/a/b", b"/thumb/a%2Fb")),
        ("/images", "/images", ("/", b"/")),
        ("/images/", "/images/", ("/", b"/")),
        ("/imagesque", "/imagesque", ("/imagesque", b"/imagesque")),
        ("/images/x", "/%69mages/x", ("/images/x", b"/%69mages/x")),  # both or none: an id is read from the raw path
    ],
)
def test_requests_come_with_the_path_or_without(path: str, raw_path: str, stripped: tuple[str, bytes]) -> None:
    assert strip_root(path, raw_path) == stripped


def test_without_a_root_path_nothing_is_stripped() -> None:
    assert strip_root("/images", "/images", "") == ("/images", b"/images")


def test_the_url_of_the_page_has_the_path() -> None:
    assert build_page_url("0.0.0.0", 8077, "/images") == "http://127.0.0.1:8077/images/"
    assert build_page_url("::1", 8077) == "http://[::1]:8077/"
