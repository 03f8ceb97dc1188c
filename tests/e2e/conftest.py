"""The page in a browser: one corpus, one server for all tests; one browser a file, since its event loop fills the thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.browser.web_server import DESKTOP, PHOTOS, PageErrors, Site, ingest_photos, serve_site, start_chromium
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


@pytest.fixture
def page_errors() -> PageErrors:
    """Console errors and warnings of the page; they fail the test unless allowed."""
    return PageErrors()


@pytest.fixture
def context(browser: Browser, page_errors: PageErrors) -> Iterator[Callable[..., BrowserContext]]:
    """Create separate browser contexts."""
    made: list[BrowserContext] = []

    def make_context(**options: Any) -> BrowserContext:  # noqa: ANN401  the options of Playwright
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        context.set_default_timeout(60_000)
        context.on("page", page_errors.attach)
        made.append(context)
        return context

    yield make_context
    for context in made:
        context.close()
    assert page_errors.get_unexpected() == []


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    """A page on a desktop."""
    return context().new_page()
