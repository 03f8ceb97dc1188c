"""Words taught on the page: pictures are marked in several searches, the word is previewed, applied, searched and taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Locator, Page, expect
from support.browser.page_actions import call_api, find_violations, open_gallery, open_results, open_weak_matches, wait_for_tiles
from support.browser.web_server import DESKTOP, PageErrors, Site, ingest_photos, save_screenshot, serve_site

INDEX = "page-teach"
WORD = "gefieder"
BIRDS = ("kingfisher.jpg", "scarlet-macaw.jpg", "brown-hens.jpg", "white-duck.jpg")


@pytest.fixture(scope="module")
def teaching_site(node_url: str) -> Iterator[Site]:
    """The page of the bundled photos, which may teach words."""
    ingest_photos(node_url, INDEX)
    with serve_site(node_url, INDEX, "--teach") as base:
        yield Site(base=base)


def read_documents(node_url: str) -> dict[str, Any]:
    with urlopen(f"{node_url}/{INDEX}/_search?size=100") as response:
        return {hit["_id"]: hit["_source"] for hit in json.load(response)["hits"]["hits"]}


def search(page: Page, text: str) -> None:
    page.get_by_role("searchbox", name="Words to look for").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("found")


def get_picture(page: Page, name: str) -> Locator:
    return page.locator(".results li.tile").filter(has_text=name)


def mark(page: Page, name: str, clicks: int = 1) -> None:
    for _ in range(clicks):
        get_picture(page, name).locator("a").click()


def check_looks(page: Page, name: str) -> None:
    """Check the accessibility and the width, and save screenshots: on a desktop, and on the smallest phone in the dark."""
    page.mouse.move(0, 0)
    assert find_violations(page) == []
    save_screenshot(page, f"teach-{name}")
    page.set_viewport_size({"width": 320, "height": 640})
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert find_violations(page) == []
    save_screenshot(page, f"teach-{name}-small")
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.set_viewport_size(DESKTOP)


@pytest.fixture
def taught_site(teaching_site: Site) -> Iterator[Site]:
    """The page whose index was taught the word."""
    ids = {hit["name"]: hit["id"] for hit in call_api(teaching_site, {"text": "animal", "k": 60})["hits"]}
    call_api(teaching_site, {"word": WORD, "yes": [ids[name] for name in BIRDS], "no": [ids["tabby-cat.jpg"]]}, "teach/apply")
    yield teaching_site
    forget_words(teaching_site)


def forget_words(site: Site) -> None:
    for taught in call_api(site, None, "taught")["words"]:
        call_api(site, {"word": taught["word"]}, "teach/forget")


def test_a_word_is_taught_from_pictures_of_several_searches(teaching_site: Site, page: Page, node_url: str) -> None:
    before = read_documents(node_url)
    open_gallery(teaching_site, page, "/?q=cat")
    search(page, WORD)
    page.get_by_role("button", name=f"Teach it: {WORD}").click()
    bar = page.get_by_role("region", name="Teach a word")
    expect(bar.get_by_label("These show")).to_have_value(WORD)
    search(page, "bird")
    wait_for_tiles(page, [hit["name"] for hit in call_api(teaching_site, {"text": "bird", "k": 60})["hits"]])
    for name in BIRDS[:3]:
        expect(bar.get_by_role("button", name="Preview")).to_be_disabled()
        mark(page, name)
    get_picture(page, BIRDS[3]).locator("a").focus()
    page.keyboard.press("Space")
    expect(get_picture(page, BIRDS[3]).get_by_role("button")).to_have_attribute("aria-description", "shows it")
    check_looks(page, "marks")
    search(page, "cat")
    mark(page, "tabby-cat.jpg", 2)
    mark(page, "kitten-with-yarn.jpg", 3)
    expect(bar).to_contain_text("4 show it, 1 doesn't")
    bar.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name=f"Preview of “{WORD}”")).to_be_focused()
    expect(page.get_by_role("list", name="Pictures that would match").get_by_role("listitem")).to_have_count(4)
    expect(page.get_by_role("list", name="Words of the model that make it up")).to_contain_text("bird")
    check_looks(page, "preview")
    mark(page, "clownfish.jpg", 2)
    expect(bar.get_by_role("button", name="Apply")).to_be_disabled()
    bar.get_by_role("button", name="Preview").click()
    bar.get_by_role("button", name="Apply").click()
    expect(page.locator(".notes")).to_contain_text(f"'{WORD}' was taught from 4 pictures")
    expect(bar).to_be_hidden()
    assert page.url.endswith(f"?q={WORD}")
    found = call_api(teaching_site, {"text": WORD, "k": 60})["hits"]
    assert {hit["name"] for hit in found if not hit["weak"]} == set(BIRDS)
    forget_words(teaching_site)
    assert read_documents(node_url) == before


def test_the_token_of_a_taught_word_is_shown_as_the_word(taught_site: Site, page: Page) -> None:
    open_results(taught_site, page, f"/?q={WORD}")
    term = page.locator(".found li.hit .term").first
    expect(term).to_have_text(f"{WORD} (taught)")
    term.click()
    expect(page).to_have_url(f"{taught_site.base}/?q={WORD}&must=%23{WORD}&show=explain")
    expect(page.get_by_role("button", name=f"must: {WORD} (taught)")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name=f"not: {WORD} (taught)").click()
    expect(page.locator(".query .chips")).to_have_text(f"not {WORD} (taught)")
    open_gallery(taught_site, page, f"/?q={WORD}")
    expect(page.locator(".found li.tile .counting").first).to_have_text(f"{WORD} (taught)")
    page.get_by_role("link", name=f"{BIRDS[0]}, ").click()
    expect(page.get_by_role("button", name=f"{WORD} (taught)")).to_be_visible()


def test_a_word_is_taught_more_and_taken_back(taught_site: Site, page: Page, node_url: str) -> None:
    open_gallery(taught_site, page, f"/?q={WORD}")
    page.get_by_role("button", name="Teach a word").click()
    bar = page.get_by_role("region", name="Teach a word")
    bar.get_by_text("Taught words: 1").click()
    listed = bar.get_by_role("list", name="Taught words")
    listed.get_by_role("button", name=f"more pictures: {WORD}").click()
    expect(bar).to_contain_text("4 show it, 1 doesn't")
    expect(page.locator("[data-mark=yes]")).to_have_count(4)
    check_looks(page, "words")
    mark(page, BIRDS[0], 2)
    bar.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("heading", name=f"Preview of “{WORD}”")).to_be_focused()
    expect(bar).to_contain_text("3 show it, 1 doesn't")
    listed.get_by_role("button", name=f"take back: {WORD}").click()
    assert f"#{WORD}" in json.dumps(read_documents(node_url))
    listed.get_by_role("button", name=f"really take back? {WORD}").click()
    expect(page.locator("#toast")).to_contain_text("is taken back")
    assert "#" not in {token[:1] for source in read_documents(node_url).values() for token in source["tokens"]}
    expect(listed).to_be_hidden()
    expect(page.locator(".notes")).to_contain_text("is not a word of this model")
    bar.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Teach a word")).to_be_focused()
    expect(page.locator("[data-mark]")).to_have_count(0)


@pytest.mark.parametrize(
    ("text", "word"), [("windmill", "windmill"), ("seagull", "seagull"), ("plumage", "plumage"), ("kiten", "kiten")]
)
def test_words_without_pictures_are_offered_to_be_taught(teaching_site: Site, page: Page, text: str, word: str) -> None:
    open_gallery(teaching_site, page, f"/?q={text}")
    page.get_by_role("button", name=f"Teach it: {word}").click()
    expect(page.get_by_label("These show")).to_have_value(word)


def test_a_page_that_teaches_nothing_offers_nothing(site: Site, page: Page) -> None:
    open_gallery(site, page, "/?q=windmill")
    expect(page.locator(".notes")).to_contain_text("no image here")
    expect(page.get_by_role("button", name="Teach")).to_have_count(0)
    expect(page.get_by_role("region", name="Teach a word")).to_have_count(0)


def test_errors_are_shown_in_the_bar(teaching_site: Site, page: Page, page_errors: PageErrors) -> None:
    page_errors.allowed.append("status of 400")
    open_gallery(teaching_site, page, "/?q=animal")
    open_weak_matches(page)
    page.get_by_role("button", name="Teach a word").click()
    bar = page.get_by_role("region", name="Teach a word")
    bar.get_by_label("These show").fill("99")
    for name in BIRDS[:3]:
        mark(page, name)
    bar.get_by_role("button", name="Preview").click()
    expect(bar.get_by_role("alert")).to_contain_text("'99'")
