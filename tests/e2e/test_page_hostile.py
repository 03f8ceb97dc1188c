"""Untrusted captions, file names and columns on the page are shown as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from support.browser.hostile_corpus import ATTACK, CAPTIONS, NAMES, write_hostile_table
from support.browser.page_actions import call_api, find_violations, open_results, open_weak_matches
from support.browser.web_server import DESKTOP, PHONE, PageErrors, Site, ingest_images, save_screenshot, serve_site
from support.servers.coverage_reports import build_report
from support.servers.recording_proxy import RecordingProxy

TITLE = "<b onclick=alert(1)>title</b>"
EVERYTHING = "/?x=1*animal&x=1*book&x=1*mountain&x=1*person&x=1*bird&x=1*building&x=1*fish&x=1*tower"
ELEMENTS = "b, i, script, textarea, style, iframe, object, svg[onload], [onerror], [onclick], [onmouseover], img[src=x]"


@pytest.fixture(scope="module")
def hostile_site(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page of an index with hostile documents."""
    table = write_hostile_table(tmp_path_factory.mktemp("hostile"))
    ingest_images(node_url, "page-hostile", table, "--image-column", "file", "--field", "*", "--thumbnail-px", "0")
    report = table.with_name("coverage.json")
    report.write_text(json.dumps(build_report([*CAPTIONS, *NAMES, *map(str, range(20))], index="page-<b>hostile</b>")))
    arguments = ("--title", TITLE, "--coverage", report)
    with RecordingProxy(node_url) as proxy, serve_site(proxy.url, "page-hostile", *arguments) as base:
        yield Site(base=base, proxy=proxy)


def escape_shown(text: str) -> str:
    """Text as the page shows it: characters that reverse or break a line are escaped."""
    spelled = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    return text.translate({code: f"\\u{code:04x}" for code in spelled})


def find_active_content(page: Page) -> list[str]:
    """Elements among hits and facts that the page doesn't create."""
    made: list[str] = page.locator("main").evaluate(
        """(main, forbidden) => [...main.querySelectorAll(forbidden)]
            .filter((one) => !one.matches('i') || one.textContent).map((one) => one.outerHTML)""",
        ELEMENTS,
    )
    return made


def test_hits_show_names_and_captions_as_they_are(hostile_site: Site, page: Page) -> None:
    open_results(hostile_site, page, EVERYTHING)
    hits = page.locator("li.hit")
    expect(hits).to_have_count(len(NAMES))
    assert sorted(page.locator("li.hit a.name").all_text_contents()) == sorted(map(escape_shown, NAMES))
    captions = [caption.rstrip("…") for caption in page.locator("li.hit .caption").all_text_contents()]
    for caption in map(escape_shown, CAPTIONS):
        assert any(text and caption.startswith(text) for text in captions), caption[:60]
    expect(page.locator(".results .picture .none")).to_have_count(len(NAMES))  # no thumbnails, no broken images
    assert find_active_content(page) == []
    expect(page.locator("#title")).to_have_text(TITLE)
    expect(page).to_have_title(TITLE)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    save_screenshot(page, "hostile")


def test_words_of_a_text_are_marked_as_text(hostile_site: Site, page: Page) -> None:
    """Below the hit, in its card, and on the page of the image."""
    page.set_viewport_size(DESKTOP)
    for explain in ("", "&show=explain"):
        page.goto(f"{hostile_site.base}/?q=onerror{explain}")
        marks = page.locator(".results mark:visible")
        expect(marks).to_have_text(["onerror"])
        assert find_active_content(page) == []
    page.goto(f"{hostile_site.base}/?q=onerror")
    page.locator(".results .tile", has=page.locator("mark")).locator("a.picture").click()
    expect(page.locator(".known .lines mark")).to_have_text([CAPTIONS[0]] * 2)
    assert find_active_content(page) == []
    save_screenshot(page, "hostile-text")


def test_each_image_s_page_shows_its_facts_as_they_are(hostile_site: Site, page: Page) -> None:
    words = ("animal", "book", "mountain", "person", "bird", "building", "fish", "tower")
    page.set_viewport_size(PHONE)
    hits = call_api(hostile_site, {"factors": dict.fromkeys(words, 1)})["hits"]
    assert len(hits) == len(NAMES)
    for hit in hits:
        page.goto(f"{hostile_site.base}/image/{hit['id']}")
        expect(page.locator(".all-words li").first).to_be_visible()
        expect(page.locator("h1:visible")).to_have_text(escape_shown(hit["name"]))
        assert find_active_content(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), hit["name"]
        assert page.get_by_role("cell", name=ATTACK).count() > 0
        assert page.locator("main a").evaluate_all("(links) => links.every((link) => link.href.startsWith(location.origin))")


def test_a_report_of_coverage_shows_searches_as_they_are(hostile_site: Site, page: Page) -> None:
    page.goto(hostile_site.base)
    page.get_by_role("link", name="Coverage", exact=True).click()
    table = page.get_by_role("table", name="Words that the model doesn't know")
    rows = table.locator("tbody tr:visible")
    expect(rows).to_have_count(20)
    expect(page.get_by_role("table", name="Words that no image carries")).to_have_count(0)
    expect(page.get_by_text("The report is of another index or model")).to_be_visible()
    for theme, size in (("light", DESKTOP), ("dark", PHONE)):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        page.set_viewport_size(size)
        assert find_violations(page, whole_page=theme == "light") == [], theme
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        save_screenshot(page, f"coverage-{theme}")
    page.get_by_role("button", name="show all 40").first.click()
    expect(rows).to_have_count(len(CAPTIONS) + len(NAMES) + 20)
    assert table.locator("th a:first-child").all_text_contents()[:20] == [*map(escape_shown, (*CAPTIONS, *NAMES))]
    assert find_active_content(page) == []
    table.get_by_role("link", name=NAMES[0], exact=True).click()
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value(NAMES[0])
    page.go_back()
    expect(rows).to_have_count(40)  # as it was left


@pytest.mark.parametrize(
    "field", ["q", "is.top_tokens", "is.<b>", "range.width", "not", "must", "is.source", "filter", "like", "x", "v"]
)
def test_untrusted_urls_do_nothing(hostile_site: Site, page: Page, page_errors: PageErrors, field: str) -> None:
    page_errors.allowed.append("Failed to load resource")  # the API refuses some of them
    attack = f'"><img src=x onerror="{ATTACK}"><script>{ATTACK}</script>'
    value = f"1*{attack}" if field in ("x", "v") else attack
    page.goto(f"{hostile_site.base}/?q=animal&{quote(field)}={quote(value)}")
    expect(page.locator("li.tile, [role=alert], .lead").first).to_be_visible()
    open_weak_matches(page)
    assert find_active_content(page) == []
    assert "taken" not in page.title() or field == "q"
    page.goto(f"{hostile_site.base}/compare?a.{quote(field)}={quote(value)}&b.q=animal")
    expect(page.locator("li.row").first).to_be_visible()
    assert find_active_content(page) == []


def test_the_security_policy_blocks_injected_content(hostile_site: Site, page: Page, page_errors: PageErrors) -> None:
    open_results(hostile_site, page, EVERYTHING)
    refused = page.evaluate("() => { try { document.body.innerHTML = '<b>in</b>'; return false; } catch { return true; } }")
    assert refused
    assert page.locator("li.hit").count() == len(NAMES)
    assert any("refused by the policy" in message for message in page_errors.messages)  # the fixture would have seen it
    page_errors.allowed += ["refused by the policy", "TrustedHTML", "Content Security Policy", "Trusted Type"]
