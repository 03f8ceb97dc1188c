"""The page in a browser: one corpus, one server for all tests; one browser a file, since its event loop fills the thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.browser.web_server import DESKTOP, PHOTOS, Site, Watch, chromium, ingested_photos, serving
from support.servers.recording_proxy import GateProxy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture(scope="session")
def site(node_url: str) -> Iterator[Site]:
    """The page of the bundled photos."""
    ingested_photos(node_url, "page-photos")
    with GateProxy(node_url) as proxy, serving(proxy.url, "page-photos", "--images", PHOTOS) as base:
        yield Site(base=base, proxy=proxy)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture
def watch() -> Watch:
    """Console errors and warnings of the page; they fail the test unless allowed."""
    return Watch()


@pytest.fixture
def context(browser: Browser, watch: Watch) -> Iterator[Callable[..., BrowserContext]]:
    """Create separate browser contexts."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:  # noqa: ANN401  the options of Playwright
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        context.set_default_timeout(10_000)
        context.on("page", watch.over)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()
    assert watch.left() == []


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    """A page on a desktop."""
    return context().new_page()
