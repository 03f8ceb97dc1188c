"""What the page looks like: a picture of each view at three sizes, light and dark, of what it claims to show and nothing cut off.

The pictures are in `build/screenshots` (or `STAIR_ES_SCREENSHOTS`), as `looks-VIEW-SIZE-THEME.jpg`: look at them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from support.browser.copied_photos import copy_documents
from support.browser.page_actions import call_api, find_violations, get_slider, open_filter, open_gallery, open_results
from support.browser.web_server import (
    OTHER_SIZE,
    PHOTOS,
    PageErrors,
    Site,
    ingest_images,
    open_context,
    save_screenshot,
    serve_site,
)
from support.servers.recording_proxy import RecordingProxy, StubResponse

SIZES = {"desktop": (1366, 900), "wide": (2560, 1440), "phone": (390, 844)}
MANY = 2_000
ODD = {"panorama.jpg": ((2400, 400), (0, 100, 640, 206)), "portrait.jpg": ((700, 1700), (200, 0, 398, 480))}
"""Sizes, and which part of a photo they show."""
QUERY = "brown bear in a tree"
LOADED = """() => [...document.querySelectorAll('main img')].every((image) => {
    const {top, bottom} = image.getBoundingClientRect();
    return bottom < 0 || top > innerHeight || !image.checkVisibility() || (image.complete && image.naturalWidth);
})"""
CUT_OFF = """() => [...document.querySelectorAll('main img')].flatMap((image) => {
    const box = image.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight || !image.checkVisibility() || !box.width) return [];
    const natural = image.naturalWidth / image.naturalHeight;
    const whole = getComputedStyle(image).objectFit === 'contain' || Math.abs(box.width / box.height / natural - 1) < 0.02;
    const frame = image.closest('.picture, figure').getBoundingClientRect();
    const inside = box.left > frame.left - 1 && box.right < frame.right + 1 &&
        box.top > frame.top - 1 && box.bottom < frame.bottom + 1;
    const tile = image.closest('.gallery .tile');
    const snug = !tile || natural > 3.2 || natural < 0.45 || Math.abs(box.width / box.height / natural - 1) < 0.02;
    return whole && inside && snug ? [] : [`${image.src}: ${box.width} x ${box.height} of ${natural}`];
})"""
"""Pictures on the screen that don't have their own shape, and those beyond their frame."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """The pages that are looked at."""

    photos: Site
    """The bundled photos, a panorama, a portrait and a copy."""
    many: Site
    """`MANY` images."""

    def find(self, name: str) -> str:
        """Return the id of an image."""
        hits = call_api(self.photos, {"k": 100})["hits"]
        copies = [(copy["name"], copy["id"]) for hit in hits for copy in hit["duplicates"]]
        return str(dict([(hit["name"], hit["id"]) for hit in hits] + copies)[name])


@pytest.fixture(scope="module")
def looks_site(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looks]:
    """The served pages."""
    folder = tmp_path_factory.mktemp("looks") / "photos"
    shutil.copytree(PHOTOS, folder)
    with Image.open(PHOTOS / "alpine-path.jpg") as photo:
        for name, (size, box) in ODD.items():
            photo.resize(size, box=box).save(folder / name)
    shutil.copy(PHOTOS / "giant-panda.jpg", folder / "panda-again.jpg")
    ingest_images(node_url, "page-looks", folder)
    copy_documents(node_url, "page-looks", "page-looks-many", MANY)
    with (
        RecordingProxy(node_url) as proxy,
        serve_site(proxy.url, "page-looks", "--images", folder, "--title", "photos") as photos,
        serve_site(node_url, "page-looks-many", "--title", "photos") as many,
    ):
        yield Looks(photos=Site(base=photos, proxy=proxy), many=Site(base=many))


@pytest.fixture(scope="module")
def pages_by_width(browser: Browser, console: PageErrors) -> Iterator[dict[str, Page]]:
    """A page of each size, for all views."""
    with ExitStack() as contexts:
        yield {
            name: contexts.enter_context(
                open_context(
                    browser,
                    console,
                    viewport={"width": width, "height": height},
                    has_touch=name == "phone",
                    is_mobile=name == "phone",
                )
            ).new_page()
            for name, (width, height) in SIZES.items()
        }


def look_at_start(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/")
    expect(page.locator(".status .count")).to_have_text("Newest first")
    expect(page.locator(".found li.tile")).to_have_count(42)  # 43 files, two of them the same
    expect(page.locator(".examples button").nth(5)).to_be_attached()


def look_at_gallery(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?q=mammal")
    assert page.locator(".found li.tile").count() > 4
    page.get_by_role("button", name="Weak matches").click()
    expect(page.get_by_role("list", name="Weak matches").get_by_role("listitem").first).to_be_visible()


def look_at_explained_hits(looks_site: Looks, page: Page) -> None:
    open_results(looks_site.photos, page, "/?q=bird on a branch")
    assert page.locator(".found li.hit").count() > 1


def look_at_weights(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?q=bird on a branch")
    page.get_by_role("button", name="Weights", exact=True).click()
    expect(get_slider(page, "bird")).to_be_visible()


def look_at_filters(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?is.colors=green&range.width=400..")
    expect(page.get_by_role("list", name="Active filters").get_by_role("listitem")).to_have_count(2)
    on_phone = page.get_by_role("region", name="Filters").get_by_role("button", name=re.compile("^Filters")).is_visible()
    opened = open_filter(page, "Filters" if on_phone else "Colors")
    if on_phone:
        opened.locator("summary", has_text="Colors").click()
    expect(opened.get_by_role("checkbox", name="green")).to_be_checked()


def look_at_image(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/image/{looks_site.find('red-panda.jpg')}")
    expect(page.get_by_role("heading", name="red-panda.jpg", level=1)).to_be_visible()
    expect(page.locator("figure img")).to_have_count(1)  # the original in place of the thumbnail
    expect(page.get_by_role("list", name="Nearest images", exact=True).get_by_role("listitem")).to_have_count(18)


def look_at_panorama(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/image/{looks_site.find('panorama.jpg')}")
    expect(page.locator("figure img").last).to_have_js_property("naturalWidth", 1600)


def look_at_portrait(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/image/{looks_site.find('portrait.jpg')}")
    expect(page.locator("figure img").last).to_have_js_property("naturalHeight", 1600)


def look_at_odd_shapes(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?filter=name:(panorama.jpg OR portrait.jpg OR tabby-cat.jpg)")
    expect(page.locator(".found li.tile")).to_have_count(3)


def look_at_copies(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?q=panda")
    page.get_by_role("button", name=re.compile("^1 copy of ")).click()
    dialog = page.get_by_role("dialog", name="2 files of the same image")
    expect(dialog.get_by_role("link")).to_have_count(2)


def look_at_comparison(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/compare?a.q={QUERY}&b.q={QUERY}&b.by=bag")
    expect(page.locator(".sum-up")).to_be_visible()
    assert page.get_by_role("list", name="Left ranking").get_by_role("listitem").count() == 10


def look_at_no_good_match(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/?q=xyzzy submarine")
    expect(page.locator(".verdict")).to_contain_text("No good match.")
    expect(page.get_by_role("list", name="Notes on the query")).to_contain_text("“xyzzy” is not a word")
    expect(page.get_by_role("button", name="Weak matches")).to_be_visible()


def look_at_nothing_found(looks_site: Looks, page: Page) -> None:
    page.goto(f"{looks_site.photos.base}/?q=bear&is.colors=red&is.colors=pink&range.width=5000..")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    expect(page.locator(".results li.tile")).to_have_count(0)


def look_at_one_hit(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.photos, page, "/?q=castle&filter=name:fairytale-castle.jpg")
    expect(page.locator(".found li.tile")).to_have_count(1)


def look_at_many_hits(looks_site: Looks, page: Page) -> None:
    open_gallery(looks_site.many, page, "/")
    expect(page.locator("#said")).to_have_text(f"{MANY:,} images found")
    expect(page.locator(".landing .lead")).to_contain_text(f"{MANY:,} images")
    on_screen = page.locator(".found li.tile").evaluate_all(
        """(tiles) => {
            // The words are a random sample, and long ones take a second line: as much more of the page counts.
            const words = [...document.querySelectorAll('.landing li')].map((word) => word.getBoundingClientRect());
            const lines = Math.max(...words.map((word) => word.bottom)) - Math.min(...words.map((word) => word.bottom));
            const fold = innerHeight + (innerWidth > 1000 ? lines : 0);  // a phone always has several lines
            return tiles.filter((tile) => tile.getBoundingClientRect().bottom <= fold).length;
        }"""
    )
    assert on_screen >= {1366: 20, 2560: 35, 390: 6}[page.evaluate("innerWidth")]  # below words and filters


def look_at_outage(looks_site: Looks, page: Page) -> None:
    def refuse_search(_: object) -> StubResponse:
        raise ConnectionError("the cluster is gone")

    assert looks_site.photos.proxy is not None
    looks_site.photos.proxy.gate = refuse_search
    try:
        page.goto(f"{looks_site.photos.base}/?q={QUERY}")
        expect(page.get_by_role("alert").first).to_be_visible(timeout=30_000)
        expect(page.locator(".skeleton")).to_have_count(0)
    finally:
        looks_site.photos.proxy.gate = lambda _: None


VIEWS: dict[str, Callable[[Looks, Page], None]] = {
    "start": look_at_start,
    "gallery": look_at_gallery,
    "explain": look_at_explained_hits,
    "weights": look_at_weights,
    "filters": look_at_filters,
    "image": look_at_image,
    "panorama": look_at_panorama,
    "portrait": look_at_portrait,
    "odd-shapes": look_at_odd_shapes,
    "copies": look_at_copies,
    "compare": look_at_comparison,
    "no-good-match": look_at_no_good_match,
    "nothing-found": look_at_nothing_found,
    "one-hit": look_at_one_hit,
    "many": look_at_many_hits,
    "outage": look_at_outage,
}
NOT_READ_ELSEWHERE = {"weights", "copies", "no-good-match", "outage"}
"""The others are read by axe in the tests of the views."""


def wait_for_pictures(page: Page) -> None:
    """Wait until the pictures on the screen are there.

    Raises:
        TimeoutError: If they aren't after 10 s.
    """
    for _ in range(200):
        if page.evaluate(LOADED):
            return
        page.wait_for_timeout(50)
    raise TimeoutError("pictures are missing")


@pytest.mark.parametrize("size", ["desktop", *(pytest.param(size, marks=OTHER_SIZE) for size in SIZES if size != "desktop")])
@pytest.mark.parametrize("view", VIEWS)
def test_view(looks_site: Looks, pages_by_width: dict[str, Page], page_errors: PageErrors, view: str, size: str) -> None:
    if view == "outage":
        page_errors.allowed.append("Failed to load resource")
    page = pages_by_width[size]
    VIEWS[view](looks_site, page)
    wait_for_pictures(page)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert page.evaluate(CUT_OFF) == []
    for theme in ("light", "dark"):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        save_screenshot(page, f"looks-{view}-{size}-{theme}")
        if view in NOT_READ_ELSEWHERE and (size == "desktop" or (size, theme) == ("phone", "dark")):
            assert find_violations(page) == [], theme
