"""The page below a path of a proxy, which strips the path or keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, expect
from support.browser.web_server import PHOTOS, PageErrors, Site, serve_site
from support.servers.path_proxy import PathProxy

TOKEN = "0123456789abcdef-token"
Contexts = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def server_url(node_url: str, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The photos at `/shared/images`, with an access token."""
    assert site.base  # they are in
    file = tmp_path_factory.mktemp("root-path") / "token"
    file.write_text(TOKEN)
    options = ("--images", PHOTOS, "--token-file", file, "--root-path", "/shared/images")
    with serve_site(node_url, "page-photos", *options) as base:
        yield base


@pytest.fixture(params=["stripped", "kept"])
def prefix_proxy(request: pytest.FixtureRequest, server_url: str) -> Iterator[PathProxy]:
    """A proxy in front of it."""
    with PathProxy(server_url, "/shared/images", strip=request.param == "stripped") as started:
        yield started


def test_the_printed_url_opens_the_page(server_url: str) -> None:
    assert urlsplit(server_url).path == "/shared/images"


def test_the_page_works_below_a_path(prefix_proxy: PathProxy, context: Contexts, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 401")
    visitor = context()
    visitor.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.new_page()
    page.goto(f"{prefix_proxy.url}/?q=koala")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    first = page.locator(".found li.tile").first
    expect(first.locator(".title")).to_have_text("koala.jpg")
    assert page.url == f"{prefix_proxy.url}/?q=koala"
    [cookie] = visitor.cookies()
    assert cookie["path"] == "/shared/images"
    thumbnail = first.locator("img").first
    assert thumbnail.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100

    page.get_by_role("searchbox").first.fill("panda")
    page.keyboard.press("Enter")
    expect(page.locator(".found li.tile .title").first).to_contain_text("panda")
    assert page.url == f"{prefix_proxy.url}/?q=panda"

    page.locator(".found li.tile a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("panda")
    assert urlsplit(page.url).path.startswith("/shared/images/image/")
    picture = page.get_by_role("region", name="Image").locator("img").first
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 100
    page.get_by_role("button", name="Copy link", exact=True).click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.url
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("panda")

    page.go_back()
    expect(page.locator(".found li.tile .title").first).to_contain_text("panda")
    page.go_back()
    expect(page.locator(".found li.tile .title").first).to_have_text("koala.jpg")
    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page).to_have_url(f"{prefix_proxy.url}/compare?a.q=koala&b.q=koala&b.by=bag")
    assert prefix_proxy.strays == []


def test_a_link_with_the_token_leaves_it_behind(prefix_proxy: PathProxy, context: Contexts, page_errors: PageErrors) -> None:
    page = context().new_page()
    page.goto(f"{prefix_proxy.url}?token={TOKEN}&q=koala")
    expect(page.locator(".found li.tile .title").first).to_have_text("koala.jpg")
    assert page.url == f"{prefix_proxy.url}/?q=koala"
    assert prefix_proxy.strays == []


def test_a_copied_link_opens_an_image(prefix_proxy: PathProxy, context: Contexts, page_errors: PageErrors) -> None:
    visitor = context()
    page = visitor.new_page()
    page.goto(f"{prefix_proxy.url}/?token={TOKEN}&q=koala")
    link = page.locator(".found li.tile a").first.evaluate("(a) => a.href")
    again = visitor.new_page()
    again.goto(link)
    expect(again.get_by_role("heading", level=1)).to_contain_text("koala")
    assert prefix_proxy.strays == []
