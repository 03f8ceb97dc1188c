"""Accessibility of the page: axe reports no violation in any view, theme and size."""

from __future__ import annotations

from typing import Literal

import pytest
from playwright.sync_api import Page, ViewportSize, expect
from support.browser.page_actions import QUERY, call_api, find_violations, get_slider, get_weight, open_results
from support.browser.web_server import DESKTOP, OTHER_SIZE, PHONE, PageErrors, Site

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone", marks=OTHER_SIZE)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_view(site: Site, page: Page, theme: Literal["light", "dark"], size: ViewportSize) -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=theme)
    whole_page = theme == "light" and size is DESKTOP
    page.goto(site.base)
    expect(page.locator(".found li.tile").first).to_be_visible()
    assert find_violations(page, whole_page=whole_page) == [], "the start"

    open_results(site, page, f"/?q={QUERY} -water&x=2*tree&x=0*bear&x=0.5*panda&must=tree&is.top_tokens=animal&filter=width:>10")
    expect(page.locator("#said")).to_contain_text("found")
    if size is PHONE:
        page.get_by_role("button", name="Weights", exact=True).click()
        expect(get_slider(page, "bear")).to_be_visible()
    assert find_violations(page, whole_page=whole_page) == [], "a search"

    found = call_api(site, {"text": "panda", "k": 1})["hits"][0]["id"]
    page.goto(f"{site.base}/image/{found}?pick=panda")
    expect(page.locator(".strip li").first).to_be_visible()
    assert find_violations(page, whole_page=whole_page) == [], "an image"
    page.get_by_role("button", name="explain").click()
    expect(page.locator(".near li.hit").first).to_be_visible()
    page.keyboard.press("z")
    assert find_violations(page, whole_page=whole_page) == [], "an enlarged image, its neighbors explained"

    page.goto(f"{site.base}/compare?a.q=bear&b.q=bear&b.by=bag")
    expect(page.locator(".sum-up")).to_be_visible()
    assert find_violations(page, whole_page=whole_page) == [], "a comparison"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_messages_above_and_in_place_of_hits(
    site: Site, page: Page, page_errors: PageErrors, theme: Literal["light", "dark"]
) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto(f"{site.base}/compare")
    expect(page.get_by_role("link", name="words and text next to words")).to_be_visible()
    assert find_violations(page, whole_page=True) == [], "a comparison to come"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert find_violations(page, whole_page=True) == [], "the keys"
    page.goto(f"{site.base}/?q=bear&is.top_tokens=nothing")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    assert find_violations(page, whole_page=True) == [], "nothing found"
    page_errors.allowed.append("status of 400")
    page.goto(f"{site.base}/?q=bear&filter=((")
    expect(page.get_by_role("alert")).to_be_visible()
    assert find_violations(page, whole_page=True) == [], "an error"


def test_screen_reader_text(site: Site, page: Page) -> None:
    open_results(site, page)
    for role, name in (("search", "Images"), ("navigation", "Views"), ("complementary", "Words")):
        expect(page.get_by_role(role, name=name)).to_be_visible()  # type: ignore[arg-type]
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("list", name="Images found").get_by_role("listitem").first).to_be_visible()
    handle, bear = get_slider(page, "bear"), get_weight(site, "bear")
    expect(handle).to_have_attribute("aria-valuetext", f"times 1, weight {bear:.3f}")
    handle.fill("0.5")
    expect(handle).to_have_attribute("aria-valuetext", f"times 0.5, weight {bear / 2:.3f}")
    expect(page.get_by_role("button", name="mute: bear")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#said")).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize(("media", "expected"), [("reduce", False), ("no-preference", True)])
def test_reduced_motion_is_respected(site: Site, page: Page, media: Literal["reduce", "no-preference"], expected: bool) -> None:
    page.emulate_media(reduced_motion=media)
    open_results(site, page)
    page.evaluate(
        """() => { window.most = 0; const look = () => { window.most = Math.max(window.most, document.getAnimations().length);
        requestAnimationFrame(look); }; look(); }"""
    )
    get_slider(page, "tree").fill("3")
    expect(page).to_have_url(f"{site.base}/?q=brown+bear+in+a+tree&x=3*tree&show=explain")
    page.wait_for_timeout(700)
    assert (page.evaluate("window.most") > 0) is expected
