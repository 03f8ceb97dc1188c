"""The filters of the page: fields of a shop's table as lists and histograms, the query box, chips, the URL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any, Literal

import pytest
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect
from support.browser.page_actions import (
    PAGE,
    call_api,
    find_violations,
    get_facet,
    list_hits,
    open_filter,
    open_gallery,
    open_results,
    wait_for_hits,
    wait_for_tiles,
)
from support.browser.web_server import OTHER_SIZE, PHOTOS, PageErrors, Site, ingest_images, save_screenshot, serve_site

Contexts = Callable[..., BrowserContext]
BRANDS = ["Acme", "Borealis", "Côte & Fils", 'The "Quoted" Co']
DESKTOP: ViewportSize = {"width": 1366, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone", marks=OTHER_SIZE)]
QUERY = "animal"


@pytest.fixture(scope="module")
def shop_site(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page of photos with columns: a title, a price except for each fifth, a brand, a year, stars, a day."""
    table = tmp_path_factory.mktemp("shop") / "shop.jsonl"
    lines = []
    for place, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        columns = {
            **({"title": "A print of a photo" + " on heavy paper" * 30} if place % 2 else {}),
            **({} if place % 5 == 4 else {"price": round(5 + place * 2.5, 2)}),
            "brand": BRANDS[place % 4 if place % 3 else 0],
            "year": 1985 + place,
            "stars": 1 + place % 5,
            "sold_on": (date(2024, 1, 10) + timedelta(days=9 * place)).isoformat(),
        }
        lines.append(json.dumps({"file": str(photo), "caption": photo.stem.replace("-", " "), **columns}))
    table.write_text("\n".join(lines) + "\n")
    ingest_images(node_url, "page-shop", table, "--image-column", "file", "--field", "*", "--thumbnail-px", "256")
    with serve_site(node_url, "page-shop") as base:
        yield Site(base=base)


@pytest.fixture
def page(page: Page) -> Page:
    """A page on a desktop of another size."""
    page.set_viewport_size(DESKTOP)
    return page


def open_field(page: Page, name: str) -> Any:  # noqa: ANN401  a locator
    """Open a field's filter, which is a section of "More filters" where there is no room for its button."""
    bar = page.get_by_role("region", name="Filters")
    expect(bar.locator(".filter-buttons > li").first).to_be_attached()
    if bar.get_by_role("button", name=re.compile(f"^{name}(, 1 chosen)?$")).is_visible():
        return open_filter(page, name)
    section = open_filter(page, "Filters" if page.viewport_size == PHONE else "More filters").locator(
        "details", has=page.locator("summary", has_text=name)
    )
    section.locator("summary").click()
    return section


def list_chips(page: Page) -> list[str]:
    """The texts of the chips."""
    return page.get_by_role("list", name="Active filters").get_by_role("listitem").all_inner_texts()


def read_list(site: Site, *conditions: dict[str, Any], **body: Any) -> list[str]:  # noqa: ANN401  fields of a question
    """The names that a search with conditions finds."""
    return list_hits(site, text=QUERY, filters=list(conditions), **body)


def test_values_are_chosen_counted_and_lifted(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    everything = list_hits(shop_site, text=QUERY)
    brands = open_field(page, "Brand")
    counted = get_facet(shop_site, "brand", text=QUERY)["buckets"]
    expect(brands.locator(".values .what")).to_have_text([bucket["value"] for bucket in counted])
    expect(brands.locator(".values .n")).to_have_text([str(bucket["count"]) for bucket in counted])
    brands.get_by_role("checkbox", name=BRANDS[3]).check()
    wait_for_hits(page, read_list(shop_site, {"field": "brand", "any": [BRANDS[3]]}))
    brands.get_by_role("checkbox", name="Borealis").check()  # the others are still there
    both = read_list(shop_site, {"field": "brand", "any": [BRANDS[3], "Borealis"]})
    wait_for_hits(page, both)
    assert 0 < len(both) < len(everything)
    save_screenshot(page, "filters-brand")
    page.keyboard.press("Escape")
    expect(brands).to_be_hidden()
    assert [text.strip() for text in list_chips(page)] == [f"Brand: {BRANDS[3]} or Borealis"]
    page.reload()
    wait_for_hits(page, both)
    page.go_back()
    wait_for_hits(page, read_list(shop_site, {"field": "brand", "any": [BRANDS[3]]}))
    page.go_forward()
    wait_for_hits(page, both)
    page.get_by_role("button", name=f"Remove: Brand: {BRANDS[3]} or Borealis").click()
    wait_for_hits(page, everything)
    assert "is." not in page.url


def test_a_value_stays_while_nothing_has_it(shop_site: Site, page: Page) -> None:
    page.goto(f"{shop_site.base}/?q={QUERY}&is.brand=Acme&range.year=1990..1990&show=explain")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    acme = open_field(page, "Brand").get_by_role("listitem").filter(has_text="Acme")
    expect(acme.get_by_role("checkbox")).to_be_checked()
    expect(acme.locator(".n")).to_have_text("0")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="without “Brand: Acme”").click()
    wait_for_hits(page, read_list(shop_site, {"field": "year", "gte": 1990, "lte": 1990}))


def test_whole_numbers_as_a_list(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    stars = get_facet(shop_site, "stars", text=QUERY)["buckets"][0]["value"]  # of matches
    open_field(page, "Stars").get_by_role("checkbox", name=str(stars)).check()
    expected = read_list(shop_site, {"field": "stars", "any": [stars]})
    wait_for_hits(page, expected)
    page.reload()
    wait_for_hits(page, expected)
    assert [text.strip() for text in list_chips(page)] == [f"Stars: {stars}"]


def test_a_histogram_chooses_what_it_counts(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    price = open_field(page, "Price")
    buckets = get_facet(shop_site, "price", text=QUERY)["buckets"]
    bars = price.locator(".bars")
    expect(bars.locator("span")).to_have_count(len(buckets))
    place = max(range(len(buckets)), key=lambda each: buckets[each]["count"])
    bars.locator("span").nth(place).click()
    bucket = buckets[place]
    expected = read_list(shop_site, {"field": "price", "gte": bucket["from"], "lt": bucket["to"]})
    assert len(expected) == bucket["count"]
    wait_for_hits(page, expected)
    expect(bars.locator("span.in")).to_have_count(1)
    box = bars.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.47, box["y"] + 40, steps=5)
    page.mouse.up()
    last = int(0.47 * len(buckets))
    wait_for_hits(page, read_list(shop_site, {"field": "price", "gte": buckets[0]["from"], "lt": buckets[last]["to"]}))
    assert f"range.price={buckets[0]['from']}...{buckets[last]['to']}" in page.url
    save_screenshot(page, "filters-price")
    price.get_by_label("Price from").fill("20")
    price.get_by_label("Price to").fill("40")
    price.get_by_label("Price to").press("Enter")
    wait_for_hits(page, read_list(shop_site, {"field": "price", "gte": 20, "lte": 40}))
    page.keyboard.press("Escape")
    assert [text.strip() for text in list_chips(page)] == ["Price: 20 to 40"]


def test_days(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    sold = open_field(page, "Sold on")
    buckets = get_facet(shop_site, "sold_on", text=QUERY)["buckets"]
    place = max(range(len(buckets)), key=lambda each: buckets[each]["count"])
    sold.locator(".bars span").nth(place).click()
    expected = read_list(shop_site, {"field": "sold_on", "gte": buckets[place]["from"], "lt": buckets[place]["to"]})
    assert len(expected) == buckets[place]["count"]
    wait_for_hits(page, expected)
    sold.get_by_label("Sold on from").fill("2024-02-01")
    sold.get_by_label("Sold on to").fill("2024-05-31")
    sold.get_by_label("Sold on to").press("Tab")
    wait_for_hits(page, read_list(shop_site, {"field": "sold_on", "gte": "2024-02-01", "lt": "2024-06-01"}))
    page.keyboard.press("Escape")
    assert [text.strip() for text in list_chips(page)] == ["Sold on: 1 Feb 2024 to 31 May 2024"]
    page.reload()
    wait_for_hits(page, read_list(shop_site, {"field": "sold_on", "gte": "2024-02-01", "lt": "2024-06-01"}))


def test_filters_without_a_query_show_pictures(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, "/?is.brand=Borealis&range.year=2000..")
    conditions = [{"field": "brand", "any": ["Borealis"]}, {"field": "year", "gte": 2000}]
    wait_for_hits(page, list_hits(shop_site, filters=conditions))
    assert [text.strip() for text in list_chips(page)] == ["Brand: Borealis", "Year: from 2000"]
    page.get_by_role("button", name="clear all").click()
    expect(page.get_by_role("list", name="Active filters")).to_be_hidden()
    assert page.url == f"{shop_site.base}/?show=explain"


def test_the_query_box_completes_fields_and_values(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    query = open_filter(page, "Query")
    box = query.get_by_role("combobox")
    expect(box).to_be_focused()
    page.keyboard.type("bra")
    options = query.get_by_role("option")
    expect(options.first).to_contain_text("brand")
    expect(box).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    active = box.get_attribute("aria-activedescendant")
    assert active == options.first.get_attribute("id")
    page.keyboard.press("Enter")
    expect(box).to_have_value("brand:")
    expect(options).to_have_count(4)
    page.keyboard.type("The")
    expect(options).to_have_count(1)
    save_screenshot(page, "filters-completion")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(box).to_have_value('brand:"The \\"Quoted\\" Co" ')
    expect(options.first).to_have_text("AND")
    page.keyboard.press("Escape")  # the options, not what they are in
    expect(options).to_have_count(0)
    page.keyboard.type("AND pri")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(options.first).to_contain_text(">=")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("50")
    page.keyboard.press("Enter")
    expect(query).to_be_hidden()
    text = 'brand:"The \\"Quoted\\" Co" AND price:>=50'
    wait_for_hits(page, list_hits(shop_site, text=QUERY, filter=text))
    assert [chip.strip() for chip in list_chips(page)] == [f"where {text}"]
    page.reload()
    wait_for_hits(page, list_hits(shop_site, text=QUERY, filter=text))
    expect(open_filter(page, "Query").get_by_role("combobox")).to_have_value(text)


def test_a_wrong_filter_is_explained_beside_it(shop_site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 400")
    open_results(shop_site, page, f"/?q={QUERY}")
    before = list_hits(shop_site, text=QUERY)
    query = open_filter(page, "Query")
    box = query.get_by_role("combobox")
    box.fill("((")
    box.press("Enter")
    expect(query.get_by_role("alert")).to_contain_text("filter")
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(box).to_be_focused()
    wait_for_hits(page, before)
    assert "filter=" not in page.url
    save_screenshot(page, "filters-error")
    box.fill("year:>2010")
    expect(query.get_by_role("alert")).to_have_count(0)
    box.press("Enter")
    wait_for_hits(page, list_hits(shop_site, text=QUERY, filter="year:>2010"))


def test_examples_are_of_this_index(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    query = open_filter(page, "Query")
    examples = query.locator(".filter-help button")
    expect(examples.nth(2)).to_be_visible()
    for text in examples.all_inner_texts():
        assert call_api(shop_site, {"filter": text}, "facets")["total"] > 0, text
    examples.first.click()
    expect(query.get_by_role("combobox")).to_have_value(examples.first.inner_text())


def test_the_keyboard_alone(shop_site: Site, page: Page) -> None:
    open_results(shop_site, page, f"/?q={QUERY}")
    words = page.get_by_role("button", name="Words", exact=True).first
    words.focus()
    page.keyboard.press("ArrowRight")
    colors = page.get_by_role("button", name="Colors", exact=True)
    expect(colors).to_be_focused()
    page.keyboard.press("ArrowDown")
    opened = page.get_by_role("dialog", name="Colors", exact=True)
    expect(opened).to_be_visible()
    page.keyboard.press("Escape")
    expect(opened).to_be_hidden()
    expect(colors).to_be_focused()
    page.keyboard.press("Enter")
    expect(opened.locator(":focus")).to_be_visible()
    colors.press("ArrowDown")  # at the button again: moves into it, and doesn't close it
    expect(opened.locator(":focus")).to_be_visible()
    while not opened.get_by_role("checkbox").first.evaluate("box => box === document.activeElement"):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    second = get_facet(shop_site, "colors", text=QUERY)["buckets"][1]["value"]
    wait_for_hits(page, read_list(shop_site, {"field": "colors", "all": [second]}))
    expect(opened.get_by_role("checkbox", name=second)).to_be_focused()
    page.mouse.click(700, 880)  # beside it
    expect(opened).to_be_hidden()


def test_buttons_stay_where_they_are(shop_site: Site, page: Page) -> None:
    fields = [facet["label"] for facet in call_api(shop_site, {}, "facets")["facets"]]
    buttons = page.locator(".filter-buttons button.opens")
    condition = {"field": "year", "gte": 2000, "lte": 2001}
    left = [facet["label"] for facet in call_api(shop_site, {"text": QUERY, "filters": [condition]}, "facets")["facets"]]
    assert 1 < len(left) < len(fields)
    page.set_viewport_size({"width": 1800, "height": 900})  # room for all of them
    open_results(shop_site, page, f"/?q={QUERY}&range.year=2000..2001")
    expect(buttons).to_have_text(["Year 1" if field == "Year" else field for field in fields])
    for field in set(fields) - {"Year"}:
        expect(buttons.nth(fields.index(field))).to_be_enabled(enabled=field in left)


def test_buttons_without_room_are_in_one(shop_site: Site, page: Page) -> None:
    page.set_viewport_size({"width": 900, "height": 800})
    open_results(shop_site, page, f"/?q={QUERY}")
    fields = [facet["label"] for facet in call_api(shop_site, {}, "facets")["facets"]]
    bar = page.get_by_role("region", name="Filters")
    expect(bar.get_by_role("button", name="More filters")).to_be_visible()
    shown = [label for label in fields if bar.get_by_role("button", name=label, exact=True).is_visible()]
    assert shown == fields[: len(shown)]
    assert 0 < len(shown) < len(fields)
    room = bar.get_by_role("list", name="Filters by field").evaluate("(list) => list.getBoundingClientRect().right")
    edge = bar.get_by_role("button", name=shown[-1], exact=True).evaluate("(button) => button.getBoundingClientRect().right")
    assert edge <= room  # the last one isn't cut
    more = open_filter(page, "More filters")
    expect(more.locator("summary span:first-child")).to_have_text(fields[len(shown) :])
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 2400, "height": 800})
    expect(bar.get_by_role("button", name="More filters")).to_be_hidden()
    expect(bar.get_by_role("button", name=fields[-1], exact=True)).to_be_visible()


def test_a_phone_has_one_button_and_a_sheet(shop_site: Site, context: Contexts) -> None:
    page = context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    open_results(shop_site, page, f"/?q={QUERY}&is.brand=Acme&range.price=..60&not=water")
    expect(page.get_by_role("button", name="Brand", exact=True)).to_be_hidden()
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    save_screenshot(page, "filters-phone")
    sheet = open_filter(page, "Filters")
    sheet.locator("summary", has_text="Brand").tap()
    sheet.get_by_role("checkbox", name="Borealis").check()
    conditions: list[dict[str, Any]] = [{"field": "brand", "any": ["Acme", "Borealis"]}, {"field": "price", "lte": 60}]
    wait_for_hits(page, read_list(shop_site, *conditions, exclude=["water"]))
    total = call_api(shop_site, {"text": QUERY, "filters": conditions, "exclude": ["water"]}, "facets")["total"]
    save_screenshot(page, "filters-phone-sheet")
    sheet.get_by_role("button", name=f"Show {total} images").tap()
    expect(sheet).to_be_hidden()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(shop_site: Site, page: Page, theme: Literal["light", "dark"], size: ViewportSize) -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=theme)
    open_results(shop_site, page, f"/?q={QUERY}&is.brand=Acme&is.colors=gray&range.price=10...80&filter=width:>10&not=water")
    on_phone = size is PHONE
    for name in ("Brand", "Price", "Query"):
        if name == "Query":
            opened = open_filter(page, name)
            opened.get_by_role("combobox").fill("w")
            expect(opened.get_by_role("option").first).to_be_visible()
        else:
            open_field(page, name)
        assert find_violations(page, whole_page=theme == "light" and size is DESKTOP) == [], name
        save_screenshot(page, f"filters-{name.lower()}-{theme}-{'phone' if on_phone else 'desktop'}")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")


def test_settings_of_the_url_are_checked(shop_site: Site, page: Page) -> None:
    hostile = "range.price=now..2&range.year=..&range.stars=1e999..&is.brand=&range.width=1&range.sold_on=2024-99-99.."
    open_results(shop_site, page, f"/?q={QUERY}&{hostile}")
    wait_for_hits(page, list_hits(shop_site, text=QUERY))
    expect(page.get_by_role("list", name="Active filters")).to_be_hidden()


def test_matches_are_sorted_by_a_price(shop_site: Site, page: Page) -> None:
    open_gallery(shop_site, page, f"/?q={QUERY}")
    order = page.get_by_role("combobox", name="sorted by")
    for label, sort in (("Price, low to high", "price:asc"), ("Sold on, newest first", "sold_on:desc")):
        order.select_option(label=label)
        expected = list_hits(shop_site, text=QUERY, sort=sort)
        assert 5 < len(expected) < len(list_hits(shop_site, text=QUERY))
        wait_for_tiles(page, expected)
        expect(page.get_by_role("button", name="Weak matches")).to_be_hidden()
    page.go_back()
    page.reload()
    expect(order).to_have_value("price:asc")
    expected = list_hits(shop_site, text=QUERY, sort="price:asc")
    wait_for_tiles(page, expected)
    prices = [float(text) for text in page.locator(".found .price").all_text_contents()]
    assert prices == sorted(prices)
    assert len(prices) < len(expected)  # those without a price come last
    save_screenshot(page, "gallery-sorted")
    open_gallery(shop_site, page, "/")
    expect(order).to_have_value("")
    order.select_option(label="Price, high to low")
    wait_for_tiles(page, list_hits(shop_site, sort="price:desc"))
    page.goto(f"{shop_site.base}/?q=zebrafish&sort=price:asc")  # nothing but weak matches
    page.get_by_role("button", name="weak matches too, best first").click()
    wait_for_tiles(page, list_hits(shop_site, text="zebrafish"))


@pytest.mark.parametrize("locale", ["en-US", "de-DE"])
@pytest.mark.parametrize("size", SIZES)
def test_a_title_and_a_price_are_below_a_picture(shop_site: Site, context: Contexts, locale: str, size: ViewportSize) -> None:
    page = context(viewport=size, locale=locale).new_page()
    open_gallery(shop_site, page, "/")
    hits = {hit["name"]: hit for hit in call_api(shop_site, {"k": PAGE})["hits"]}
    tiles = page.locator(".found li.tile").evaluate_all(
        """(tiles) => tiles.map((tile) => {
            const [frame, name, price] = ['.frame', '.offer .name', '.price'].map((part) => tile.querySelector(part));
            const {width, height} = frame.getBoundingClientRect();
            const shape = width / height - Number(tile.style.getPropertyValue('--ratio'));
            return {file: tile.querySelector('.title').textContent, name: name.textContent, price: price?.textContent ?? null,
                line: name.getBoundingClientRect().height, shape};
        })"""
    )
    assert len(tiles) == len(hits) > 30
    for tile in tiles:
        hit = hits[tile["file"]]
        assert (hit["title"] or hit["caption"]).startswith(tile["name"])
        price = None if hit["price"] is None else f"{hit['price']:.2f}".removesuffix(".00")
        assert tile["price"] == (price and price.replace(".", "," if locale == "de-DE" else "."))
        assert tile["line"] < 24  # also of a long title
        assert tile["shape"] == pytest.approx(0, abs=0.03)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not find_violations(page)
    page.locator(".offer").nth(1).click(force=True)  # leads to the picture, as it does
    expect(page).to_have_url(re.compile("/image/"))
