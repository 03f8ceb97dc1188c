"""The page: an image, two rankings side by side, addresses, keys, small screens, themes, and a cluster that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect
from support.browser.page_actions import (
    QUERY,
    call_api,
    get_hit_names,
    get_slider,
    list_hits,
    open_filter,
    open_results,
    wait_for_hits,
    wait_for_scroll_end,
    wait_for_start_page,
    wait_for_tiles,
    wait_until,
)
from support.browser.web_server import PHONE, PageErrors, Site, save_screenshot
from support.servers.recording_proxy import RecordedRequest, StubResponse

Contexts = Callable[..., BrowserContext]


def get_panda_id(site: Site) -> str:
    """The id of an image."""
    return next(str(hit["id"]) for hit in call_api(site, {"text": "panda"})["hits"] if hit["name"] == "giant-panda.jpg")


def test_an_image_has_all_its_words(site: Site, page: Page) -> None:
    open_results(site, page)
    page.get_by_role("link", name="giant-panda.jpg", exact=True).click()
    image = call_api(site, None, f"image/{get_panda_id(site)}")
    expect(page.get_by_role("heading", name="giant-panda.jpg", level=1)).to_be_visible()
    bars = page.locator(".all-words li")
    expect(bars).to_have_count(len(image["tokens"]))
    expect(bars.first).to_have_text(f"{image['tokens'][0][0]}{image['tokens'][0][1]:.3f}")
    expect(page.get_by_role("cell", name=image["uri"])).to_be_visible()
    expect(page.get_by_role("cell", name=image["facts"]["sha256"])).to_be_visible()
    figure = page.locator("figure img")
    expect(figure).to_have_count(1)  # the original in place of the thumbnail
    expect(figure).to_have_attribute("src", image["original"])
    expect(figure).to_have_js_property("naturalWidth", image["facts"]["width"])
    near = call_api(site, None, f"image/{get_panda_id(site)}/neighbors?k=18")["hits"]
    strip = page.get_by_role("list", name="Nearest images", exact=True)
    expect(strip.get_by_role("listitem")).to_have_count(len(near))
    shown = strip.get_by_role("listitem").evaluate_all("(tiles) => tiles.map((tile) => tile.dataset.id)")
    assert shown == [hit["id"] for hit in near]
    page.get_by_role("button", name="explain").click()
    expect(page.locator(".near li.hit a.name")).to_have_text([hit["name"] for hit in near])
    page.get_by_role("button", name="explain").click()
    save_screenshot(page, "image")

    page.get_by_label("order").select_option("name")
    shown = [text.lstrip("#") for text in bars.locator(".word").all_inner_texts()]
    assert shown == sorted(shown, key=str.casefold)
    page.get_by_role("searchbox", name="find").fill("an")
    expect(bars).to_have_count(sum("an" in word for word, _ in image["tokens"]))
    expect(page).to_have_title("giant-panda.jpg · page-photos")
    page.reload()
    expect(bars).to_have_count(sum("an" in word for word, _ in image["tokens"]))
    expect(page).to_have_title("giant-panda.jpg · page-photos")


def test_searching_with_an_image_s_words_all_or_chosen(site: Site, page: Page) -> None:
    words = {word: round(weight, 4) for word, weight in call_api(site, None, f"image/{get_panda_id(site)}")["tokens"]}
    page.goto(f"{site.base}/image/{get_panda_id(site)}")
    page.get_by_role("link", name="search with these words").click()
    wait_for_tiles(page, list_hits(site, vector=words))
    page.go_back()
    bars = page.get_by_role("list", name="All words of the image")
    for word in ("panda", "bear"):
        bars.get_by_role("button", name=word).first.click()
    page.get_by_role("link", name="search with 2 selected words").click()
    wait_for_tiles(page, list_hits(site, vector={word: words[word] for word in ("panda", "bear")}))


def test_navigation_to_neighbors_and_back(site: Site, page: Page) -> None:
    open_results(site, page)
    page.get_by_role("link", name="giant-panda.jpg", exact=True).click()
    neighbor = page.locator(".strip a").first
    name = str(neighbor.get_attribute("aria-label")).partition(",")[0]
    neighbor.click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    page.get_by_role("link", name="← back to the search").click()
    wait_for_hits(page, list_hits(site, text=QUERY))
    expect(page.locator(".search")).to_be_visible()


def test_missing_image(site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 404")
    page.goto(f"{site.base}/image/nothing")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("link", name="← back to the search").click()
    wait_for_start_page(page)


def test_two_methods_side_by_side(site: Site, page: Page) -> None:
    filters = {"filter": "width:>300"}
    open_results(site, page, f"/?q={QUERY}&filter=width:>300")
    page.get_by_role("link", name="Compare", exact=True).click()
    left, right = (list_hits(site, text=QUERY, k=50, method=method, **filters) for method in ("words-and-text", "bag"))
    rows = [page.get_by_role("list", name=f"{side} ranking").locator("a.name") for side in ("Left", "Right")]
    expect(rows[0]).to_have_text(left[:10])
    expect(rows[1]).to_have_text(right[:10])
    both = set(left[:10]) & set(right[:10])
    assert both
    expect(page.locator(".sum-up")).to_contain_text(f"overlap@10 is {len(both) / 10:.2f}: {len(both)} of 10 images")
    expect(page.locator(".lines path")).to_have_count(len(both))
    marks = page.get_by_role("list", name="Right ranking").locator(".move")
    for place, name in enumerate(right[:10]):
        before = left.index(name) if name in left else None
        label = "only here" if before is None else "same" if before == place else f"was {before + 1}"
        expect(marks.nth(place)).to_contain_text(label)
    save_screenshot(page, "compare")
    page.get_by_label("Right: ranked by").select_option("text")
    expect(rows[1]).to_have_text(list_hits(site, text=QUERY, method="text", k=10, **filters))
    page.reload()
    expect(rows[1]).to_have_text(list_hits(site, text=QUERY, method="text", k=10, **filters))


def test_two_queries_side_by_side(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/compare")
    page.get_by_role("searchbox", name="Left: words").fill("dog")
    expect(page.get_by_role("link", name="words and text next to words")).to_be_visible()  # announcements during typing
    page.get_by_role("searchbox", name="Right: words").fill("cat")
    page.keyboard.press("Enter")
    rows = [page.get_by_role("list", name=f"{side} ranking").locator("a.name") for side in ("Left", "Right")]
    expect(rows[0]).to_have_text(list_hits(site, text="dog", k=10))
    expect(rows[1]).to_have_text(list_hits(site, text="cat", k=10))
    page.get_by_role("button", name="swap sides").click()
    expect(rows[0]).to_have_text(list_hits(site, text="cat", k=10))
    page.get_by_label("first", exact=True).select_option("20")
    expect(rows[0]).to_have_text(list_hits(site, text="cat", k=20))
    expect(page.locator(".sum-up")).to_contain_text("overlap@20")


def test_url_has_the_whole_state(site: Site, page: Page, context: Contexts) -> None:
    open_results(site, page)
    open_filter(page, "Words").get_by_role("checkbox", name="animal").check()  # before nothing but weak hits is left
    page.keyboard.press("Escape")
    get_slider(page, "tree").fill("2.5")
    page.locator(".query").get_by_role("button", name="must: tree", exact=True).click()
    page.locator(".query").get_by_role("button", name="not: bear", exact=True).click()
    box = open_filter(page, "Query").get_by_role("combobox")
    box.fill("width:>10")
    box.press("Enter")
    expected = list_hits(
        site,
        text=QUERY,
        factors={"tree": 2.5},
        require=["tree"],
        exclude=["bear"],
        filters=[{"field": "top_tokens", "all": ["animal"]}],
        filter="width:>10",
    )
    assert expected
    wait_for_hits(page, expected)
    context_of_copy = context(permissions=["clipboard-read", "clipboard-write"])
    copying = context_of_copy.new_page()
    open_results(site, copying, page.url.removeprefix(site.base))
    copying.get_by_role("button", name="Copy link").click()
    expect(copying.get_by_text("Link copied.")).to_be_visible()
    address = copying.evaluate("navigator.clipboard.readText()")
    other = context().new_page()  # shares only the URL
    other.goto(address)
    wait_for_hits(other, expected)
    expect(get_slider(other, "tree")).to_have_value("2.5")
    expect(open_filter(other, "Query").get_by_role("combobox")).to_have_value("width:>10")
    expect(other.get_by_role("searchbox", name="Words to look for")).to_have_value(QUERY)


def test_back_and_forward(site: Site, page: Page) -> None:
    open_results(site, page)
    first = get_hit_names(page)
    page.get_by_role("searchbox", name="Words to look for").fill("bird")
    page.keyboard.press("Enter")
    second = list_hits(site, text="bird")
    wait_for_hits(page, second)
    page.mouse.wheel(0, 900)
    wait_until(page, "scrollY > 500")
    place = wait_for_scroll_end(page)
    page.locator(".results li.hit a.name").nth(8).click()
    expect(page.locator(".all-words li").first).to_be_visible()
    assert page.evaluate("scrollY") == 0
    page.go_back()
    wait_for_hits(page, second)
    wait_until(page, f"Math.abs(scrollY - {place}) < 200")
    page.go_back()
    wait_for_hits(page, first)
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value(QUERY)
    page.go_forward()
    wait_for_hits(page, second)


def test_by_keyboard_alone(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?show=explain")
    wait_for_start_page(page)
    page.keyboard.press("/")
    page.keyboard.type(QUERY)
    page.keyboard.press("Enter")
    expected = list_hits(site, text=QUERY)
    wait_for_hits(page, expected)
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".results li.hit a.name").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.locator(".results li.hit a.name").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".results li.hit a.name").nth(1)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=expected[1], level=1)).to_be_visible()
    page.keyboard.press("Escape")
    wait_for_hits(page, expected)
    page.keyboard.press("e")
    expect(get_slider(page, "bear")).to_be_focused()
    page.keyboard.press("End")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 3}))
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="mute: bear")).to_be_focused()
    page.keyboard.press("Enter")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 0}))
    expect(page.get_by_role("button", name="mute: bear")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_hidden()
    page.locator(".results li.hit a.name").nth(1).focus()
    name = page.locator(".results li.hit a.name").nth(1).inner_text()
    page.keyboard.press("m")
    expect(page.locator(".image-chip")).to_have_text(f"like {name}")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_tab_reaches_all_clickable_elements(site: Site, page: Page) -> None:
    open_results(site, page)
    missed = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, input:not([type=file]), select')]
            .filter((one) => one.checkVisibility({visibilityProperty: true}) && one.tabIndex < 0)
            .filter((one) => !one.matches('.picture'))
            .map((one) => one.outerHTML)"""
    )
    assert missed == []


def test_a_phone(site: Site, context: Contexts) -> None:
    page = context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    wide = "document.documentElement.scrollWidth > innerWidth"
    page.goto(site.base)
    wait_for_start_page(page)
    assert not page.evaluate(wide)
    open_results(site, page)
    assert not page.evaluate(wide)
    expect(get_slider(page, "bear")).to_be_hidden()
    page.get_by_role("button", name="Weights", exact=True).tap()
    expect(get_slider(page, "bear")).to_be_visible()
    save_screenshot(page, "phone-sheet")
    page.get_by_role("button", name="mute: bear").tap()
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 0}))
    assert not page.evaluate(wide)
    page.keyboard.press("Escape")
    expect(get_slider(page, "bear")).to_be_hidden()
    save_screenshot(page, "phone")
    page.locator(".results li.hit a.name").first.tap()
    expect(page.locator(".strip li").first).to_be_visible()
    assert not page.evaluate(wide)
    page.goto(f"{site.base}/compare?a.q=bear&b.q=bear&b.by=bag")
    expect(page.locator("li.row")).not_to_have_count(0)
    expect(page.locator(".sum-up")).to_be_visible()
    assert not page.evaluate(wide)
    save_screenshot(page, "phone-compare")


def test_dark_theme(site: Site, page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    open_results(site, page)
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    save_screenshot(page, "dark")
    page.get_by_role("button", name="Dark theme").click()
    light = page.evaluate(ground)
    assert sum(map(int, dark[4:-1].split(", "))) < 120 < 600 < sum(map(int, light[4:-1].split(", ")))
    page.reload()
    assert page.evaluate(ground) == light  # kept
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(ground) == dark


def answer_torn(_: object) -> StubResponse:
    """A cluster that ends the connection."""
    raise ConnectionError("the proxy is torn away")


def test_a_start_without_a_cluster(site: Site, page: Page, page_errors: PageErrors) -> None:
    assert site.proxy is not None
    page_errors.allowed.append("Failed to load resource")
    site.proxy.gate = answer_torn
    try:
        page.goto(site.base)
        expect(page.get_by_role("alert")).to_be_visible(timeout=60_000)
    finally:
        site.proxy.gate = lambda _: None
    page.get_by_role("button", name="Try again").click()
    wait_for_start_page(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_link_requests_failed_facts_again(site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 503")
    page.route(
        "**/api/about",
        lambda route: route.fulfill(status=503, json={"error": "the cluster is away", "remedy": "Wait."}),
        times=1,
    )
    page.goto(site.base)
    expect(page.get_by_role("alert")).to_be_visible()
    with page.expect_response("**/api/about") as response:
        page.get_by_role("link", name="Compare", exact=True).click()
    assert response.value.ok
    page.get_by_role("link", name="Search", exact=True).click()
    wait_for_start_page(page)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_cluster_outage(site: Site, page: Page, page_errors: PageErrors) -> None:
    assert site.proxy is not None
    open_results(site, page)
    before = get_hit_names(page)
    page_errors.allowed.append("Failed to load resource")
    site.proxy.gate = answer_torn
    try:
        page.locator(".query").get_by_role("button", name="mute: bear").click()
        alert = page.get_by_role("alert")
        expect(alert).to_be_visible(timeout=60_000)
        expect(alert.locator(".what")).not_to_be_empty()
        expect(alert.locator(".remedy")).not_to_be_empty()
        assert get_hit_names(page) == before  # the hits are still shown
        save_screenshot(page, "cluster-gone")
    finally:
        site.proxy.gate = lambda _: None
    page.get_by_role("button", name="Try again").click()
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 0}))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_slow_cluster_shows_progress_and_drops_stale_responses(site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 503")  # of the held query, if this machine takes longer than the server waits
    assert site.proxy is not None
    page.goto(f"{site.base}/?show=explain")
    wait_for_start_page(page)
    waited: list[str] = []
    released = threading.Event()

    def hold_first_query(request: RecordedRequest) -> None:
        """Hold its hits and its facets, in whatever order they are asked for."""
        if "_search" in request.target and b"bear" in request.body and not released.is_set():
            waited.append(request.target)
            released.wait(120)

    site.proxy.gate = hold_first_query
    try:
        box = page.get_by_role("searchbox", name="Words to look for")
        box.fill(QUERY)
        box.press("Enter")
        expect(page.locator(".results")).to_have_attribute("aria-busy", "true")
        expect(page.locator(".skeleton")).to_have_count(24)
        page.wait_for_timeout(200)
        box.fill("red flower")
        box.press("Enter")
        expected = list_hits(site, text="red flower")
        wait_for_hits(page, expected)
        assert waited
        released.set()
        page.wait_for_timeout(500)
        wait_for_hits(page, expected)
        expect(page.locator(".skeleton")).to_have_count(0)
        expect(page.locator(".results")).to_have_attribute("aria-busy", "false")
    finally:
        released.set()
        site.proxy.gate = lambda _: None


def test_rejected_queries_show_the_reason(site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 400")
    open_results(site, page, "/?q=bear&filter=((")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Remove: where ((").click()
    wait_for_hits(page, list_hits(site, text="bear"))
    expect(page.get_by_role("alert")).to_have_count(0)
