"""The page in a browser: one corpus, one server for all tests; one browser a file, since its event loop fills the thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from support.browser.web_server import DESKTOP, PHOTOS, PageErrors, Site, ingest_photos, open_context, serve_site, start_chromium
from support.servers.recording_proxy import RecordingProxy

from stair_es.embedded_node.file_lock import hold_lock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="session")
def site(node_url: str, shared_folder: Path) -> Iterator[Site]:
    """The page of the bundled photos; their index is the same for all workers."""
    ingested = shared_folder / "page-photos"
    with hold_lock(ingested.with_suffix(".lock"), "ingests the photos of the page"):
        if not ingested.exists():
            ingest_photos(node_url, "page-photos")
            ingested.touch()
    with RecordingProxy(node_url) as proxy, serve_site(proxy.url, "page-photos", "--images", PHOTOS) as base:
        yield Site(base=base, proxy=proxy)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)  # a machine that runs all tests at once is slow
    with start_chromium() as started:
        yield started


@pytest.fixture(scope="module")
def console() -> PageErrors:
    """What the consoles of all pages of a file say."""
    return PageErrors()


@pytest.fixture
def page_errors(console: PageErrors) -> Iterator[PageErrors]:
    """Console errors and warnings of the page; they fail the test unless allowed."""
    console.messages.clear()
    console.allowed.clear()
    yield console
    assert console.get_unexpected() == []


@pytest.fixture
def context(browser: Browser, page_errors: PageErrors) -> Iterator[Callable[..., BrowserContext]]:
    """Create separate browser contexts."""
    with ExitStack() as contexts:
        yield lambda **options: contexts.enter_context(open_context(browser, page_errors, **options))


@pytest.fixture(scope="module")
def tab(browser: Browser, console: PageErrors) -> Iterator[Page]:
    """The page that a file's tests use one after the other: a new one takes Chromium three times as long as their average."""
    with open_context(browser, console) as context:
        yield context.new_page()


@pytest.fixture
def page(tab: Page, page_errors: PageErrors) -> Iterator[Page]:
    """A page on a desktop, as a new one. A test of touch, or with an init script or a permission, makes a `context` instead."""
    tab.set_viewport_size(DESKTOP)
    tab.emulate_media(color_scheme="light", reduced_motion="reduce")
    tab.mouse.up()
    tab.mouse.move(0, 0)
    yield tab
    tab.unroute_all()
    if tab.url.startswith("http"):
        empty = urljoin(tab.url, "/empty")
        tab.route(empty, lambda route: route.fulfill(content_type="text/html", body='<link rel="icon" href="data:,">'))
        tab.goto(empty)
        tab.evaluate("localStorage.clear(), sessionStorage.clear()")
        tab.unroute(empty)  # while a route is there, Chromium caches nothing
