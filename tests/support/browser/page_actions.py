"""Helpers for tests of the page: requests to its API, and waiting in the browser."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.browser.web_server import Site

QUERY = "brown bear in a tree"
PAGE = 60
"""How many images a page of hits has."""
_LISTS = ".results :is(.found, .weak)"
_HITS = f"{_LISTS} li.hit a.name"
_TILES = f"{_LISTS} li.tile:not(.skeleton)"
_RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # experimental in axe, though WCAG 2.5.3 (A)
    "resultTypes": ["violations"],
}
_REPEATED = {
    "exclude": [
        [".hit:nth-child(n+4)"],
        [".tile:nth-child(n+4)"],
        [".row:nth-child(n+5)"],
        [".all-words li:nth-child(n+9)"],
        [".values li:nth-child(n+9)"],
    ]
}
_DIVIDER = ".divider:not([hidden])"


def find_violations(page: Page, *, whole_page: bool = False) -> list[str]:
    """Return the violations of accessibility that axe finds, one a line; of lists it looks at the first items, unless whole."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    response = Axe().run(page, context=None if whole_page else _REPEATED, options=_RULES).response
    assert len(response["passes"]) > 10
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in response["violations"] for node in one["nodes"]]


def call_api(site: Site, body: dict[str, Any] | None, path: str = "search") -> dict[str, Any]:
    """Return the API response to a POST of `body`, or to a GET without one."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"{site.base}/api/{path}", data, {"Content-Type": "application/json"})
    with urlopen(request) as response:
        response_body: dict[str, Any] = json.load(response)
        return response_body


def list_hits(site: Site, **body: Any) -> list[str]:  # noqa: ANN401  fields of a question
    """Return the names of the hits of the API, best first."""
    return [hit["name"] for hit in call_api(site, {"k": PAGE, **body})["hits"]]


def get_facet(site: Site, field: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401  fields of a question
    """Return the facet of a field."""
    facets: list[dict[str, Any]] = call_api(site, body, "facets")["facets"]
    return next(facet for facet in facets if facet["field"] == field)


def open_filter(page: Page, name: str) -> Locator:
    """Open what a button of the filter bar opens, and return it."""
    from playwright.sync_api import expect

    page.get_by_role("region", name="Filters").get_by_role("button", name=re.compile(f"^{name}(, \\d+ chosen)?$")).click()
    opened = page.get_by_role("dialog", name=name, exact=True)
    expect(opened).to_be_visible()
    return opened


def explain_path(path: str) -> str:
    """Return the path with the parameter for explained hits."""
    return path if "show=explain" in path else f"{path}{'&' if '?' in path else '?'}show=explain"


def open_results(site: Site, page: Page, path: str = f"/?q={QUERY}") -> None:
    """Open the page with the explained hits of a query, weak ones too, and wait for them."""
    from playwright.sync_api import expect

    page.goto(site.base + explain_path(path))
    expect(page.locator(f"{_HITS}, {_DIVIDER}, .problem [role=alert]").first).to_be_visible()
    expect(page.locator(".results")).to_have_attribute("aria-busy", "false")
    open_weak_matches(page)


def open_weak_matches(page: Page) -> None:
    """Open the weak matches if they are closed; the focus stays where it is."""
    page.evaluate(f"document.querySelector('{_DIVIDER}[aria-expanded=false]')?.click()")


def open_gallery(site: Site, page: Page, path: str = f"/?q={QUERY}") -> None:
    """Open the page with the pictures that a query finds, and wait for them."""
    from playwright.sync_api import expect

    page.goto(site.base + path)
    expect(page.locator(f"{_TILES}, {_DIVIDER}").first).to_be_visible()
    expect(page.locator(".results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#said")).to_contain_text("found")


def get_tile_names(page: Page) -> list[str]:
    """Return the names of the displayed pictures."""
    return page.locator(f"{_TILES} .title").all_text_contents()


def wait_for_tiles(page: Page, expected: list[str]) -> None:
    """Wait until the pictures found, weak matches among them, are these."""
    _wait_for_names(page, page.locator(f"{_TILES} .title"), expected)


def _wait_for_names(page: Page, names: Locator, expected: list[str], within_s: float = 60.0) -> None:
    """Wait until these names are displayed. Weak matches, which each answer closes, are opened."""
    end = time.monotonic() + within_s
    while (displayed := names.all_text_contents()) != expected:
        # a second look would be wrong: if an answer repeats the names of the one before, it closes the list after the first
        assert time.monotonic() < end, f"not displayed within {within_s:g} s: {expected}, but {displayed}"
        open_weak_matches(page)
        page.wait_for_timeout(30)


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
    """Wait until the hits found, weak matches among them, are these."""
    _wait_for_names(page, page.locator(_HITS), expected)


def wait_until(page: Page, expression: str, within_s: float = 60.0) -> None:
    """Wait until an expression is true: Playwright's own wait needs `eval`, which the policy of the page forbids.

    Raises:
        TimeoutError: If it never is.
    """
    end = time.monotonic() + within_s
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {within_s:g} s: {expression}")
        page.wait_for_timeout(30)


def wait_for_scroll_end(page: Page) -> float:
    """Wait until the page no longer scrolls, and return how far it has."""
    before, place = -1.0, 0.0
    while place != before:
        page.wait_for_timeout(100)
        before, place = place, page.evaluate("scrollY")
    return place


def get_slider(page: Page, word: str) -> Locator:
    """Return the slider of a word."""
    return page.get_by_role("slider", name=f"Weight of {word}", exact=True)
