"""Helpers for tests of the page: requests to its API, and waiting in the browser."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.browser.web_server import Site

QUERY = "brown bear in a tree"
_HITS = ".found li.hit:not(.skeleton) a.name"


def call_api(site: Site, body: dict[str, Any] | None, path: str = "search") -> dict[str, Any]:
    """Return the API response to a POST of `body`, or to a GET without one."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{site.base}/api/{path}", data, {"Content-Type": "application/json"})
    with urlopen(request) as response:
        response_body: dict[str, Any] = json.load(response)
        return response_body


def list_hits(site: Site, **body: Any) -> list[str]:  # noqa: ANN401  fields of a question
    """Return the names of the hits of the API, best first."""
    return [hit["name"] for hit in call_api(site, body)["hits"]]


def open_results(site: Site, page: Page, path: str = f"/?q={QUERY}") -> None:
    """Open the page and wait for its results."""
    from playwright.sync_api import expect

    page.goto(site.base + path)
    expect(page.locator(f"{_HITS}, [role=alert]").first).to_be_visible()
    expect(page.locator(".results")).to_have_attribute("aria-busy", "false")


def wait_for_start_page(page: Page) -> None:
    """Wait for the start page of the bundled photos."""
    from playwright.sync_api import expect

    expect(page.locator(".landing .lead")).to_have_text("40 images, each a few dozen weighted words.")


def get_weight(site: Site, word: str) -> float:
    """Return the weight of a word in `QUERY`."""
    return next(float(each["weight"]) for each in call_api(site, {"text": QUERY})["query"] if each["token"] == word)


def get_hit_names(page: Page) -> list[str]:
    """Return the names of the displayed hits."""
    return page.locator(_HITS).all_inner_texts()


def wait_for_hits(page: Page, expected: list[str]) -> None:
    """Wait until the displayed hits are these."""
    from playwright.sync_api import expect

    expect(page.locator(_HITS)).to_have_text(expected)


def wait_until(page: Page, expression: str, within_s: float = 5.0) -> None:
    """Wait until an expression is true: Playwright's own wait needs `eval`, which the policy of the page forbids.

    Raises:
        TimeoutError: If it never is.
    """
    end = time.monotonic() + within_s
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {within_s:g} s: {expression}")
        page.wait_for_timeout(30)


def get_slider(page: Page, word: str) -> Locator:
    """Return the slider of a word."""
    return page.get_by_role("slider", name=f"Weight of {word}", exact=True)
