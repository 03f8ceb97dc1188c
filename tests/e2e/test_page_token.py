"""The page with an access token: visitors with it get in, others get the login page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Route, expect
from support.browser.page_actions import find_violations, get_hit_names, open_results
from support.browser.web_server import PHOTOS, PageErrors, Site, save_screenshot, serve_site

TOKEN = "0123456789abcdef-token"
Contexts = Callable[..., BrowserContext]


@pytest.fixture
def private_url(node_url: str, site: Site, tmp_path: Path) -> Iterator[str]:
    """The same photos, with an access token."""
    assert site.base  # they are in
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with serve_site(node_url, "page-photos", "--images", PHOTOS, "--token-file", file) as base:
        yield base


def test_the_token_once_and_never_again(private_url: str, context: Contexts, page_errors: PageErrors) -> None:
    friend = context()
    page = friend.new_page()
    page.goto(f"{private_url}/?token={TOKEN}&q=koala")
    assert TOKEN not in page.url
    expect(page.locator(".found li.tile .title").first).to_have_text("koala.jpg")
    again = friend.new_page()
    open_results(Site(base=private_url), again, "/?q=panda")
    assert get_hit_names(again)[0] in ("giant-panda.jpg", "red-panda.jpg")
    again.locator(".results li.hit a.name").first.click()
    expect(again.get_by_role("heading", level=1)).to_contain_text("panda")
    picture = again.get_by_role("region", name="Image").locator("img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100
    [cookie] = friend.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]


def test_visitors_without_the_token_get_the_login_page(private_url: str, context: Contexts, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 401")
    page = context().new_page()
    answer = page.goto(f"{private_url}/?q=koala")
    assert answer is not None
    assert answer.status == 401
    assert find_violations(page, whole_page=True) == []
    save_screenshot(page, "token")
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("status")).to_have_text("Wrong token.")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator(".found li.tile .title").first).to_have_text("koala.jpg")
    assert TOKEN not in page.url


def test_links_from_other_sites_need_a_click(private_url: str, site: Site, context: Contexts, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 401")
    friend = context()
    page = friend.new_page()
    page.goto(f"{private_url}/?token={TOKEN}")
    link = f'<a href="{private_url}/?q=koala">photos</a>'
    page.route("http://elsewhere.example/", lambda route: route.fulfill(content_type="text/html", body=link))
    page.goto("http://elsewhere.example/")
    page.get_by_role("link").click()
    page.get_by_role("link", name="Continue").click()
    expect(page.locator(".found li.tile .title").first).to_have_text("koala.jpg")


def test_too_many_requests_are_retried(site: Site, context: Contexts, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 429")
    page = context().new_page()
    refused = list[str]()

    def answer_busy(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route.request.url)
        body = '{"error": "too much is asked at once", "remedy": "Try again in a moment."}'
        route.fulfill(status=429, headers={"retry-after": "1", "content-type": "application/json"}, body=body)

    page.route("**/api/search", answer_busy)
    open_results(site, page, "/?q=koala")
    assert len(refused) == 1
    assert get_hit_names(page)[0] == "koala.jpg"
