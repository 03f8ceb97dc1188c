"""The gallery of the page: whole pictures in rows, what is on them, endless scrolling, weak matches, copies, notes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.request import urlopen

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Page, Route, ViewportSize, expect
from support.browser.copied_photos import copy_documents
from support.browser.page_actions import (
    PAGE,
    QUERY,
    call_api,
    find_violations,
    get_slider,
    get_tile_names,
    list_hits,
    open_gallery,
    open_weak_matches,
    wait_for_hits,
    wait_for_tiles,
    wait_until,
)
from support.browser.web_server import OTHER_SIZE, PHOTOS, PageErrors, Site, ingest_images, save_screenshot, serve_site

Contexts = Callable[..., BrowserContext]
DESKTOP: ViewportSize = {"width": 1366, "height": 900}
WIDE: ViewportSize = {"width": 2560, "height": 1300}
PHONE: ViewportSize = {"width": 390, "height": 844}
SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone", marks=OTHER_SIZE)]
MANY = 900
ON_SCREEN = """() => [...document.querySelectorAll('.found li.tile')].filter((tile) => {
    const box = tile.getBoundingClientRect();
    const header = document.querySelector('.bar').getBoundingClientRect().bottom;
    return box.top >= header && box.bottom <= innerHeight && box.left >= 0 && box.right <= innerWidth;
}).length"""
SHIFTS = """addEventListener('DOMContentLoaded', () => {
  window.shifts = [];
  new PerformanceObserver((list) => {
    for (const { value, hadRecentInput, sources } of list.getEntries())
      if (!hadRecentInput) window.shifts.push({ value, nodes: sources.map(({ node }) => (node?.className ?? node?.nodeName)) });
  }).observe({type: 'layout-shift', buffered: true});
});"""


@pytest.fixture(scope="module")
def large_site(node_url: str, site: Site) -> Iterator[Site]:
    """The page of 900 images."""
    assert site.base  # the photos are there
    copy_documents(node_url, "page-photos", "page-many", MANY)
    with serve_site(node_url, "page-many") as base:
        yield Site(base=base)


@pytest.fixture(scope="module")
def odd_shapes(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page of a panorama, a strip, a portrait, a tiny and a square picture."""
    folder = tmp_path_factory.mktemp("shapes")
    with Image.open(PHOTOS / "giant-panda.jpg") as photo:
        for name, size in {
            "panorama": (1800, 300),
            "strip": (200, 1600),
            "portrait": (400, 600),
            "tiny": (40, 30),
            "square": (500, 500),
        }.items():
            photo.convert("RGB").resize(size).save(folder / f"{name}.jpg")
    ingest_images(node_url, "page-odd-shapes", folder, "--thumbnail-px", "256")
    with serve_site(node_url, "page-odd-shapes", "--images", folder) as base:
        yield Site(base=base)


@pytest.fixture
def page(page: Page) -> Page:
    """A page on a desktop of another size."""
    page.set_viewport_size(DESKTOP)
    return page


def change_answers(page: Page, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the answers of searches, as a server with other images or another model would."""

    def fulfill_route(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        if response.ok:
            change(body)
        route.fulfill(response=response, body=json.dumps(body))

    page.route("**/api/search", fulfill_route)


@pytest.mark.parametrize(
    ("size", "least"),
    [
        pytest.param(DESKTOP, 24, id="desktop"),
        pytest.param(WIDE, 40, id="wide", marks=OTHER_SIZE),
        pytest.param(PHONE, 8, id="phone", marks=OTHER_SIZE),
    ],
)
def test_a_screen_is_full_of_pictures(large_site: Site, context: Contexts, size: ViewportSize, least: int) -> None:
    page = context(viewport=size, has_touch=size is PHONE, is_mobile=size is PHONE).new_page()
    open_gallery(large_site, page, "/?q=animal")
    assert page.evaluate(ON_SCREEN) >= least
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    right = page.locator(".found li.tile").evaluate_all(
        "(tiles) => Math.max(...tiles.map((tile) => tile.getBoundingClientRect().right))"
    )
    assert right > page.evaluate("document.documentElement.clientWidth") - 40  # the whole width
    save_screenshot(page, f"gallery-{size['width']}")


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_whole(odd_shapes: Site, page: Page, size: ViewportSize) -> None:
    page.set_viewport_size(size)
    open_gallery(odd_shapes, page, "/")
    wait_until(page, "[...document.querySelectorAll('.tile img')].every((image) => image.complete && image.naturalWidth)")
    shapes = page.locator(".found li.tile").evaluate_all(
        """(tiles) => tiles.map((tile) => {
            const image = tile.querySelector('img');
            const {width, height} = tile.getBoundingClientRect();
            return [tile.querySelector('.title').textContent, getComputedStyle(image).objectFit, width / height,
                image.naturalWidth / image.naturalHeight, height];
        })"""
    )
    assert len(shapes) == 5
    expect(page.locator(".offer")).to_have_count(0)  # no titles, no prices
    expect(page.locator(".found li.tile img").first).to_have_css("outline", re.compile("solid 1px"))  # the edge of a white one
    for name, fit, shown, natural, height in shapes:
        assert fit == "contain", name
        assert height < 420, name
        if name not in ("panorama.jpg", "strip.jpg"):  # these have space beside them
            assert shown == pytest.approx(natural, rel=0.02), name
    save_screenshot(page, f"gallery-shapes-{size['width']}")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 20])
def test_the_last_row_is_full_too(site: Site, page: Page, size: ViewportSize, count: int) -> None:
    page.set_viewport_size(size)
    change_answers(page, lambda answer: answer.update(hits=answer["hits"][:count], after=None))
    open_gallery(site, page, "/?q=animal -airplane")
    if page.get_by_role("button", name="Weak matches").is_visible():
        page.get_by_role("button", name="Weak matches").click()
    for lists in page.locator(".gallery:visible").all():
        boxes = lists.locator(".frame").evaluate_all(
            "(frames) => frames.map((frame) => frame.getBoundingClientRect()).map(({top, right, height}) => [top, right, height])"
        )
        edge = lists.evaluate("(list) => list.getBoundingClientRect().right")
        assert max(height for _, _, height in boxes) <= 391
        for top in {top for top, _, _ in boxes}:
            row = [(right, height) for other, right, height in boxes if other == top]
            assert max(height for _, height in row) - min(height for _, height in row) < 1
            filled = edge - max(right for right, _ in row) < 2
            assert filled or (len(boxes) < 3 and 259 < row[0][1] < 261)  # one or two don't fill the width of a desktop


def test_a_last_row_waits_for_the_images_that_fill_it(large_site: Site, context: Contexts) -> None:
    page = context(viewport=DESKTOP).new_page()
    page.add_init_script(SHIFTS)
    open_gallery(large_site, page, "/")
    for pages in (2, 3):
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        wait_until(page, f"document.querySelectorAll('.found li.tile').length >= {pages * PAGE}")
    page.wait_for_timeout(300)
    shifts = [shift for shift in page.evaluate("window.shifts") if shift["value"] > 0.01]
    assert [shift for shift in shifts if "wide" not in shift["nodes"]] == []  # the button below the images alone moves
    rows = page.locator(".found li.tile").evaluate_all(
        "(tiles) => tiles.filter((tile) => tile.checkVisibility({visibilityProperty: true}))"
        ".map((tile) => tile.getBoundingClientRect()).map(({top, right}) => [top, right])"
    )
    last = max(top for top, _ in rows)
    assert max(right for top, right in rows if top == last) == pytest.approx(max(right for _, right in rows), abs=2)


def test_nothing_jumps_while_pictures_load(large_site: Site, context: Contexts) -> None:
    page = context(viewport=DESKTOP).new_page()
    page.add_init_script(SHIFTS)
    open_gallery(large_site, page, "/?q=animal")
    wait_until(page, "[...document.querySelectorAll('.tile img')].slice(0, 20).every((image) => image.complete)")
    for _ in range(8):
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(150)
    wait_until(page, f"document.querySelectorAll('.found li.tile').length > {PAGE}")
    assert sum(shift["value"] for shift in page.evaluate("window.shifts")) < 0.02


def test_first_pictures_are_eager_and_later_ones_lazy(large_site: Site, page: Page) -> None:
    open_gallery(large_site, page, "/?q=animal")
    images = page.locator(".found li.tile img")
    expect(images.first).to_have_attribute("fetchpriority", "high")
    expect(images.first).to_have_attribute("loading", "eager")
    expect(images.nth(40)).to_have_attribute("loading", "lazy")


def test_a_picture_says_what_it_is_on_hover_and_focus(site: Site, page: Page) -> None:
    open_gallery(site, page)
    hits = call_api(site, {"text": QUERY, "k": PAGE})["hits"]
    wait_for_tiles(page, [hit["name"] for hit in hits])
    words = [reason["token"] for reason in hits[1]["contributions"] if not reason["token"].startswith("##")][:3]
    link = page.get_by_role("link", name=f"{hits[1]['name']}, score {hits[1]['score']:.3f}: {', '.join(words)}", exact=True)
    about = link.locator(".about")
    expect(about).to_have_css("opacity", "0")
    link.hover()
    expect(about).to_have_css("opacity", "1")
    expect(about).to_contain_text(words[0])
    page.mouse.move(0, 0)
    expect(about).to_have_css("opacity", "0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(link).to_be_focused()
    expect(about).to_have_css("opacity", "1")
    save_screenshot(page, "gallery-focus")


def test_arrows_move_in_two_dimensions(large_site: Site, page: Page) -> None:
    open_gallery(large_site, page, "/?q=animal")
    place = "[...document.querySelectorAll('.tile > a')].indexOf(document.activeElement)"
    box = "(({left, top, width}) => [left + width / 2, top + scrollY])(document.activeElement.getBoundingClientRect())"
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate(place) == 2
    before = page.evaluate(box)
    page.keyboard.press("ArrowDown")
    below = page.evaluate(box)
    assert below[1] > before[1] + 50
    assert abs(below[0] - before[0]) < 250
    page.keyboard.press("ArrowUp")
    assert page.evaluate(box)[1] == pytest.approx(before[1], abs=2)
    page.keyboard.press("Enter")
    expect(page.locator(".all-words li").first).to_be_visible()


def test_explain_is_one_key_away(site: Site, page: Page) -> None:
    open_gallery(site, page)
    expected = list_hits(site, text=QUERY)
    wait_for_tiles(page, expected)
    page.keyboard.press("x")
    wait_for_hits(page, expected)
    assert "show=explain" in page.url
    expect(get_slider(page, "bear")).to_be_visible()
    expect(page.get_by_role("link", name="Explain", exact=True)).to_have_attribute("aria-current", "true")
    page.reload()
    wait_for_hits(page, expected)
    page.get_by_role("link", name="Gallery", exact=True).click()
    wait_for_tiles(page, expected)
    assert "show" not in page.url
    page.go_back()
    wait_for_hits(page, expected)


def test_the_weights_open_beside_the_gallery(site: Site, page: Page) -> None:
    open_gallery(site, page)
    expect(get_slider(page, "bear")).to_be_hidden()
    page.keyboard.press("e")
    expect(get_slider(page, "bear")).to_be_focused()
    save_screenshot(page, "gallery-weights")
    page.keyboard.press("End")
    wait_for_tiles(page, list_hits(site, text=QUERY, factors={"bear": 3}))
    page.keyboard.press("Escape")
    expect(get_slider(page, "bear")).to_be_hidden()
    expect(page.get_by_role("button", name="Weights", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(get_slider(page, "bear")).to_be_visible()


def test_scrolling_loads_more_and_back_returns_to_the_place(large_site: Site, page: Page) -> None:
    open_gallery(large_site, page, "/?q=animal")
    shown = "document.querySelectorAll('.results li.tile').length"
    for pages in range(1, 5):
        page.keyboard.press("End")
        open_weak_matches(page)  # they go on below the matches
        wait_until(page, f"{shown} >= {pages * PAGE}")
    names = get_tile_names(page)
    assert page.get_by_role("list", name="Weak matches").get_by_role("listitem").count() > 0
    assert len(set(names)) == len(names)
    first = call_api(large_site, {"text": "animal", "k": 200})
    rest = call_api(large_site, {"text": "animal", "k": 200, "after": first["after"]})
    loaded = [*first["hits"], *rest["hits"]][: len(names)]
    assert names == [hit["name"] for hit in sorted(loaded, key=lambda hit: hit["weak"])]  # each part by score
    tile = page.locator(".found li.tile").nth(60)
    tile.scroll_into_view_if_needed()
    place = page.evaluate("scrollY")
    assert place > 500
    tile.locator("a").click()
    expect(page.locator(".all-words li").first).to_be_visible()
    page.go_back()
    wait_until(page, f"Math.abs(scrollY - {place}) < 5")
    page.reload()  # as a shared link: all that were there
    expect(page.locator(".found li.tile:not(.skeleton)").first).to_be_visible()
    open_weak_matches(page)
    wait_until(page, f"{shown} >= {len(names)}")


def test_matches_after_weak_ones_are_loaded(large_site: Site, page: Page) -> None:
    matches_by_page = [set(range(0, PAGE, 2)), {1}, set[int]()]  # places on each page
    pages: list[int] = []

    def mark_request(route: Route) -> None:
        answer = route.fetch().json()
        matches = matches_by_page[min(len(pages), 2)]
        pages.append(len(answer["hits"]))
        for place, hit in enumerate(answer["hits"]):
            hit["weak"] = place not in matches
        route.fulfill(json=answer)

    page.route("**/api/search", mark_request)
    open_gallery(large_site, page, "/?q=animal")
    for _ in range(400):  # as often as a busy machine needs until it asks for the third page
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(150)
        if len(pages) == len(matches_by_page):
            break
    for _ in range(3):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(150)
    expect(page.get_by_role("list", name="Images found").get_by_role("listitem")).to_have_count(PAGE // 2 + 1)
    assert pages == [PAGE] * 3  # the third page has no match, so none is asked for after it
    page.get_by_role("button", name="Weak matches").click()
    wait_until(page, f"document.querySelectorAll('.weak li.tile').length >= {PAGE * 2}")


def test_a_failed_page_is_asked_for_by_hand(large_site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 503")

    def fail_route(route: Route) -> None:
        if "after" in (route.request.post_data or ""):
            route.fulfill(status=503, content_type="application/json", body='{"error": "the cluster is away", "remedy": "Wait."}')
        else:
            route.continue_()

    page.route("**/api/search", fail_route)
    open_gallery(large_site, page, "/?q=animal")
    page.keyboard.press("End")
    expect(page.get_by_role("alert")).to_contain_text("The cluster is away")
    page.unroute("**/api/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    wait_until(page, f"document.querySelectorAll('.found li.tile').length > {PAGE}")
    place = "[...document.querySelectorAll('.found li.tile > a')].indexOf(document.activeElement)"
    wait_until(page, f"{place} > {PAGE - 12} && {place} <= {PAGE}")  # the row that was held back, or the first new one


def test_the_start_shows_the_newest_images(large_site: Site, page: Page) -> None:
    open_gallery(large_site, page, "/")
    newest = call_api(large_site, {"k": PAGE})["hits"]
    assert get_tile_names(page)[:PAGE] == [hit["name"] for hit in newest]
    expect(page.locator(".status .count")).to_have_text("Newest first")
    assert page.locator(".examples button").count() > 5
    assert page.locator(".examples button", has_text="##").count() == 0
    save_screenshot(page, "gallery-start")
    open_gallery(large_site, page, "/?is.colors=green")
    total = call_api(large_site, {"filters": [{"field": "colors", "all": ["green"]}]}, "facets")["total"]
    expect(page.locator(".status .count")).to_contain_text(f"{total} images, newest first")


def test_weak_matches_are_apart(site: Site, page: Page) -> None:
    hits = call_api(site, {"text": QUERY, "k": PAGE})["hits"]
    names = {weak: [hit["name"] for hit in hits if hit["weak"] is weak] for weak in (False, True)}
    assert min(map(len, names.values())) > 1
    open_gallery(site, page)
    matches, weak = (page.get_by_role("list", name=name) for name in ("Images found", "Weak matches"))
    expect(matches.locator(".title")).to_have_text(names[False])
    expect(weak).to_be_hidden()
    expect(page.locator(".status .count")).to_contain_text(f"{len(names[False])} matches")
    divider = page.get_by_role("button", name=f"Weak matches: {call_api(site, {'text': QUERY}, 'facets')['weak']}")
    expect(divider).to_have_attribute("aria-expanded", "false")
    save_screenshot(page, "gallery-weak")
    divider.click()
    expect(divider).to_have_attribute("aria-expanded", "true")
    expect(weak.locator(".title")).to_have_text(names[True])
    page.keyboard.press("x")
    expect(matches.locator("a.name")).to_have_text(names[False])
    expect(weak.locator("a.name")).to_have_text(names[True])
    divider.click()
    expect(weak).to_be_hidden()


def test_a_long_wait_replaces_the_count_of_the_previous_search(site: Site, page: Page) -> None:
    open_gallery(site, page)
    count = page.locator(".status .count")
    expect(count).to_contain_text("match")
    held: list[Route] = []
    page.route("**/api/search", lambda route: held.append(route))
    box = page.get_by_role("searchbox", name="Words to look for")
    box.fill("red flower")
    box.press("Enter")
    expect(page.locator(".skeleton").first).to_be_visible()
    expect(count).not_to_contain_text("match")
    expect(count).to_have_text("Still waiting for the cluster")
    expect(page.locator("#said")).to_have_text("Still waiting for the cluster")
    save_screenshot(page, "gallery-waiting")
    held[0].continue_()
    wait_for_tiles(page, list_hits(site, text="red flower"))
    expect(count).to_contain_text("match")


def test_all_weak_is_no_good_match(site: Site, page: Page) -> None:
    def weaken_hits(answer: dict[str, Any]) -> None:
        for hit in answer["hits"]:
            hit["weak"] = True
        answer["weak_below"] = 5.0

    change_answers(page, weaken_hits)
    page.route("**/api/facets", lambda route: route.fulfill(json={"total": 0, "weak": 2, "facets": []}))
    page.goto(f"{site.base}/?q={QUERY}")
    expect(page.locator(".verdict")).to_contain_text("No good match.")
    expect(page.locator(".verdict")).to_contain_text("a match has at least 5.000")
    expect(page.locator(".status .count")).to_contain_text("0 matches")
    expect(page.get_by_role("listitem").and_(page.locator(".tile"))).to_have_count(0)
    page.get_by_role("button", name="Weak matches").click()
    shown = page.get_by_role("list", name="Weak matches").locator(".title")
    expect(shown).to_have_text(list_hits(site, text=QUERY))
    page.goto(f"{site.base}/?q={QUERY}&is.colors=green")
    page.get_by_role("button", name="Weak matches").click()
    page.get_by_role("button", name="Remove: Colors: green").click()
    expect(shown).to_have_text(list_hits(site, text=QUERY))  # they stay open
    save_screenshot(page, "gallery-no-good-match")


def test_a_query_without_known_words_finds_nothing(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?q=the catnip")
    expect(page.get_by_role("list", name="Notes on the query")).to_contain_text("catnip")
    expect(page.locator(".empty")).to_contain_text("No image")
    expect(page.locator(".tile")).to_have_count(0)
    page.goto(f"{site.base}/?q=katze")
    expect(page.get_by_role("list", name="Notes on the query")).to_contain_text("searched for cat")
    expect(page.get_by_role("list", name="Images found").get_by_role("listitem").first).to_be_visible()
    save_screenshot(page, "gallery-searched-for")


def test_unknown_words_and_remarks_are_said(site: Site, page: Page) -> None:
    def add_remark(answer: dict[str, Any]) -> None:
        answer["unknown_words"] = [
            {"word": "beaar", "suggestions": ["bear", "beard"], "searched_for": None},
            {"word": "<i>x", "suggestions": [], "searched_for": None},
            {"word": "buterfly", "suggestions": ["butter"], "searched_for": "butterfly"},
        ]
        answer["remarks"] = ["AND has no meaning here"]

    change_answers(page, add_remark)
    open_gallery(site, page, "/?q=a beaar in a tree")
    notes = page.get_by_role("list", name="Notes on the query").get_by_role("listitem")
    expect(notes).to_have_text(
        [
            "“beaar” is not a word of this model. Did you mean bear or beard?",
            "“<i>x” is not a word of this model.",
            "“buterfly”: searched for butterfly. Did you mean butter?",
            "AND has no meaning here",
        ]
    )
    save_screenshot(page, "gallery-unknown")
    page.unroute("**/api/search")
    notes.get_by_role("link", name="bear", exact=True).click()
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value("a bear in a tree")
    wait_for_tiles(page, list_hits(site, text="a bear in a tree"))
    expect(notes).to_have_count(0)


def test_words_that_matches_share_narrow_the_search(site: Site, page: Page) -> None:
    open_gallery(site, page, "/?q=mammal")
    answer = call_api(site, {"text": "mammal", "k": PAGE})
    least = 0.05 * max(each["weight"] for each in answer["query"])
    asked = {each["token"] for each in answer["query"] if each["weight"] >= least}
    weights: dict[str, list[float]] = {}
    for token, weight in (pair for hit in answer["hits"] if not hit["weak"] for pair in hit["tokens"]):
        weights.setdefault(token, []).append(weight)
    shared = [token for token, each in weights.items() if len(each) > 1 and token not in asked]
    related = sorted(shared, key=lambda token: -sum(weights[token]))[:8]
    assert len(related) > 2
    words = page.get_by_role("list", name="Related words").get_by_role("button")
    expect(words).to_have_text(related)
    words.first.click()
    text = f"mammal {related[0]}"
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value(text)
    wait_for_tiles(page, list_hits(site, text=text))
    expect(words.filter(has_text=related[0])).to_have_count(0)


def test_copies_are_folded_and_listed(large_site: Site, page: Page) -> None:
    def fold_duplicates(answer: dict[str, Any]) -> None:
        hits = answer["hits"]
        hits[0]["duplicates"] = [{"id": "other", "name": "other.jpg", "uri": "file:///other.jpg"}]
        hits[3]["sha256"] = hits[0]["sha256"]

    change_answers(page, fold_duplicates)
    open_gallery(large_site, page, "/?q=animal")
    hits = call_api(large_site, {"text": "animal", "k": PAGE})["hits"]
    assert get_tile_names(page)[:4] == [hits[place]["name"] for place in (0, 1, 2, 4)]
    badge = page.get_by_role("button", name=f"2 copies of {hits[0]['name']}")
    expect(badge).to_have_text("+2")
    badge.click()
    dialog = page.get_by_role("dialog", name="3 files of the same image")
    expect(dialog.get_by_role("link")).to_have_text([hits[0]["name"], "other.jpg", hits[3]["name"]])
    save_screenshot(page, "gallery-copies")
    dialog.get_by_role("link").nth(2).click()
    expect(page.get_by_role("heading", name=hits[3]["name"], level=1)).to_be_visible()


def test_required_words_that_no_image_has_together(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?q=%2Bpanda %2Bcastle")
    expect(page.get_by_text("No image has all of the required words “panda” and “castle”.")).to_be_visible()
    page.get_by_role("button", name="without “must have castle”").click()
    wait_for_tiles(page, list_hits(site, text="+panda castle"))


def test_try_again_is_offered_only_where_it_can_help(site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 400")
    open_gallery(site, page)
    page.goto(f"{site.base}/?q=bear&filter=((")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    expect(page.locator(".status .count")).to_be_empty()  # no number of an older answer


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_accessibility(site: Site, context: Contexts, theme: Literal["light", "dark"], size: ViewportSize) -> None:
    page = context(viewport=size, color_scheme=theme, has_touch=size is PHONE).new_page()

    def add_remark(answer: dict[str, Any]) -> None:
        answer["unknown_words"] = [{"word": "tre", "suggestions": ["tree"], "searched_for": None}]
        answer["hits"][0]["duplicates"] = [{"id": "other", "name": "other.jpg", "uri": "file:///other.jpg"}]

    change_answers(page, add_remark)
    open_gallery(site, page)
    page.get_by_role("button", name="Weak matches").click()
    assert find_violations(page, whole_page=theme == "light") == []
    save_screenshot(page, f"gallery-{theme}-{size['width']}")


def test_the_page_asks_for_few_things(site: Site, page: Page, tmp_path: Path) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    open_gallery(site, page, "/")
    expect(page.locator(".filter-buttons > li").first).to_be_attached()
    assert sorted(url.rpartition("/api/")[2] for url in asked) == ["about", "facets", "search"]
    open_gallery(site, page)
    page.wait_for_load_state("networkidle")  # all images are counted after those of the query
    assert sorted(url.rpartition("/api/")[2] for url in asked[3:]) == ["about", "facets", "facets", "search"]
    with urlopen(f"{site.base}/static/gallery.css") as answer:
        assert answer.headers["content-type"].startswith("text/css")
