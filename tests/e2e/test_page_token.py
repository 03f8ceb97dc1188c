"""The page behind a token: who has it comes in once, who hasn't is told what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from page_asks import asked, names
from page_site import PHOTOS, Site, Watch, serving
from playwright.sync_api import BrowserContext, Route, expect

TOKEN = "0123456789abcdef-token"
Contexts = Callable[..., BrowserContext]


@pytest.fixture
def closed(node_url: str, site: Site, tmp_path: Path) -> Iterator[str]:
    """The same photos behind a token."""
    assert site.base  # they are in
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with serving(node_url, "page-photos", "--images", PHOTOS, "--token-file", file) as base:
        yield base


def test_the_token_once_and_never_again(closed: str, context: Contexts, watch: Watch) -> None:
    watch.allowed.append("status of 401")
    stranger = context().new_page()
    answer = stranger.goto(closed)
    assert answer is not None
    assert answer.status == 401
    assert "?token=" in stranger.locator("body").inner_text()

    friend = context()
    page = friend.new_page()
    page.goto(f"{closed}/?token={TOKEN}&q=koala")
    assert TOKEN not in page.url
    expect(page.locator(".found li.hit a.name").first).to_have_text("koala.jpg")
    again = friend.new_page()
    asked(Site(base=closed), again, "/?q=panda")
    assert names(again)[0] in ("giant-panda.jpg", "red-panda.jpg")
    again.locator(".found li.hit a.name").first.click()
    expect(again.get_by_role("heading", level=1)).to_contain_text("panda")
    picture = again.get_by_role("region", name="Image").locator("img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100
    [cookie] = friend.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]


def test_too_much_at_once_is_asked_again(site: Site, context: Contexts, watch: Watch) -> None:
    watch.allowed.append("status of 429")
    page = context().new_page()
    refused = list[str]()

    def busy(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        body = '{"error": "too much is asked at once", "remedy": "Try again in a moment."}'
        route.fulfill(status=429, headers={"retry-after": "1", "content-type": "application/json"}, body=body)

    page.route("**/api/search", busy)
    asked(site, page, "/?q=koala")
    assert len(refused) == 1
    assert names(page)[0] == "koala.jpg"
