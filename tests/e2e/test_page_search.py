"""The page: search, and the controls for the words of a query."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from playwright.sync_api import Page, expect
from support.browser.page_actions import (
    PAGE,
    QUERY,
    call_api,
    get_facet,
    get_hit_names,
    get_slider,
    get_weight,
    list_hits,
    open_filter,
    open_results,
    wait_for_hits,
    wait_for_start_page,
    wait_for_tiles,
)
from support.browser.web_server import PHOTOS, Site, save_screenshot


def press_button(page: Page, label: str) -> None:
    """Presses the button of that name in the query panel."""
    page.locator(".query").get_by_role("button", name=label, exact=True).click()


def test_words_find_and_explain_hits(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?show=explain")
    wait_for_start_page(page)
    save_screenshot(page, "landing")
    page.get_by_role("searchbox", name="Words to look for").fill(QUERY)
    page.keyboard.press("Enter")
    answer = call_api(site, {"text": QUERY, "k": PAGE})
    wait_for_hits(page, [hit["name"] for hit in answer["hits"]])
    first = page.locator(".found li.hit").first
    expect(first.locator(".score")).to_have_text(f"{answer['hits'][0]['score']:.3f}")
    for row, reason in zip(first.locator(".reasons li").all(), answer["hits"][0]["contributions"][:4], strict=True):
        expect(row.locator(".term")).to_have_text(reason["token"])
        expect(row.locator(".sum")).to_have_text(
            f"{reason['query_weight']:.3f} × {reason['document_weight']:.3f} = {reason['contribution']:.3f}"
        )
    expect(first.locator("img").first).to_have_js_property("complete", True)
    total = call_api(site, {"text": QUERY}, "facets")["total"]
    expect(page.locator("#said")).to_have_text(f"{total} match{'' if total == 1 else 'es'} found")
    expect(page).to_have_title(f"{QUERY} · page-photos")
    save_screenshot(page, "search")


def test_corpus_examples_need_one_click(site: Site, page: Page) -> None:
    page.goto(site.base)
    first = page.locator(".examples button").first
    word = first.locator(".word").inner_text()
    assert word in [item["token"] for item in call_api(site, None, "about")["suggestions"]]
    first.click()
    wait_for_tiles(page, list_hits(site, text=word))


def test_a_slider_ranks_again_as_the_api_does(site: Site, page: Page) -> None:
    open_results(site, page)
    before = get_hit_names(page)
    handle = get_slider(page, "tree")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if "/api/search" in request.url else None)
    handle.focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    after = list_hits(site, text=QUERY, factors={"tree": 2.5})
    assert before != after
    wait_for_hits(page, after)
    expect(handle).to_be_focused()
    expect(handle).to_have_attribute("aria-valuetext", f"times 2.5, weight {2.5 * get_weight(site, 'tree'):.3f}")
    assert "x=2.5*tree" in page.url
    assert 1 <= len(requests) <= 31
    page.go_back()  # one step for the whole move
    wait_for_hits(page, before)
    expect(handle).to_have_value("1")


def test_dragged_slider_moves_hits_after_release(site: Site, page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    open_results(site, page)
    first = get_hit_names(page)[0]
    page.evaluate("document.querySelector('.found li.hit').kept = true")
    box = get_slider(page, "tree").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    page.mouse.down()
    for part in (0.5, 0.7, 0.9, 1.0):
        page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2, steps=3)
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"tree": 3}))
    page.mouse.up()
    kept = page.locator("li.hit").filter(has_text=first)
    assert kept.evaluate("hit => hit.kept === true")  # the same element


def test_mute_require_exclude_boost_reset(site: Site, page: Page) -> None:
    open_results(site, page)
    before = get_hit_names(page)
    press_button(page, "mute: bear")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 0}))
    press_button(page, "mute: bear")
    wait_for_hits(page, before)
    press_button(page, "×2: tree")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"tree": 2}))
    press_button(page, "must: tree")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"tree": 2}, require=["tree"]))
    press_button(page, "not: bear")
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"tree": 2}, require=["tree"], exclude=["bear"]))
    assert "not=bear" in page.url
    page.get_by_role("button", name="Allow bear again").click()
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"tree": 2}, require=["tree"]))
    page.get_by_role("button", name="reset").click()
    wait_for_hits(page, before)


def test_operators_show_in_the_panel_and_can_be_removed(site: Site, page: Page) -> None:
    open_results(site, page, "/?q=%2Btree bear -animal")
    wait_for_hits(page, list_hits(site, text="+tree bear -animal"))
    expect(page.locator(".query").get_by_role("button", name="must: tree", exact=True)).to_have_attribute("aria-pressed", "true")
    press_button(page, "must: tree")
    wait_for_hits(page, list_hits(site, text="tree bear -animal"))
    page.get_by_role("button", name="Allow animal again").click()
    wait_for_hits(page, list_hits(site, text="tree bear"))
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value("tree bear")


def test_a_click_on_a_hit_s_word_requires_or_adds_it(site: Site, page: Page) -> None:
    open_results(site, page)
    page.locator(".found li.hit").first.get_by_role("button", name="tree", exact=True).click()
    wait_for_hits(page, list_hits(site, text=QUERY, require=["tree"]))
    other = page.locator(".found li.hit .also .tag").first
    word = other.inner_text()
    other.click()
    wait_for_hits(page, list_hits(site, text=QUERY, require=["tree"], factors={word: 0.5}))
    expect(get_slider(page, word)).to_have_value("0.5")
    press_button(page, f"drop: {word}")
    wait_for_hits(page, list_hits(site, text=QUERY, require=["tree"]))


def test_all_words_in_common_on_demand(site: Site, page: Page) -> None:
    open_results(site, page)
    [first] = call_api(site, {"text": QUERY, "k": 1})["hits"]
    card = page.locator(".found li.hit").first
    card.locator("button.rest").click()
    expect(card.locator(".reasons li")).to_have_count(len(first["contributions"]))


def test_facets_and_filters_narrow(site: Site, page: Page) -> None:
    open_results(site, page)
    word, total = "animal", call_api(site, {"text": QUERY}, "facets")["total"]
    condition = {"field": "top_tokens", "all": [word]}
    open_filter(page, "Words").get_by_role("checkbox", name=word).check()
    wait_for_hits(page, list_hits(site, text=QUERY, filters=[condition]))
    narrowed = call_api(site, {"text": QUERY, "filters": [condition]}, "facets")["total"]
    assert narrowed <= total
    expect(page.locator("#said")).to_have_text(f"{narrowed} match{'' if narrowed == 1 else 'es'} found")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"Remove: Words: {word}").click()
    box = open_filter(page, "Query").get_by_role("combobox")
    box.fill("caption:panda")
    box.press("Enter")
    wait_for_hits(page, list_hits(site, text=QUERY, filter="caption:panda"))
    page.get_by_role("button", name="Remove: where caption:panda").click()
    wait_for_hits(page, list_hits(site, text=QUERY))


def test_a_color_narrows_and_is_shown_with_a_patch_of_it(site: Site, page: Page) -> None:
    open_results(site, page)
    counted = get_facet(site, "colors", text=QUERY)["buckets"]
    colors = open_filter(page, "Colors").locator(".values")
    expect(colors.locator(".what")).to_have_text([bucket["value"] for bucket in counted])
    expect(colors.locator(".n")).to_have_text([str(bucket["count"]) for bucket in counted])
    name, other = (bucket["value"] for bucket in counted[:2])
    chosen = colors.get_by_role("listitem").filter(has_text=name)
    expect(chosen.locator(f".patch[data-color={name}]")).to_be_visible()
    chosen.get_by_role("checkbox").check()
    found = list_hits(site, text=QUERY, filters=[{"field": "colors", "all": [name]}])
    wait_for_hits(page, found)
    assert 0 < len(found) < len(list_hits(site, text=QUERY, k=100))
    expect(chosen.locator(".n")).to_have_text(str(counted[0]["count"]))
    assert f"is.colors={name}" in page.url
    save_screenshot(page, "colors")
    page.reload()
    wait_for_hits(page, found)
    open_filter(page, "Colors").get_by_role("checkbox", name=other).check()  # both
    wait_for_hits(page, list_hits(site, text=QUERY, filters=[{"field": "colors", "all": [name, other]}]))
    page.keyboard.press("Escape")
    expect(page.get_by_role("list", name="Active filters")).to_have_text(f"Colors: {name} and {other}")
    page.get_by_role("button", name=f"Remove: Colors: {name} and {other}").click()
    wait_for_hits(page, list_hits(site, text=QUERY))
    open_results(site, page, f"/?q={QUERY}&is.colors={name}")
    page.locator(".results li.hit a.name").first.click()
    shown = page.locator(".facts tr", has=page.get_by_role("rowheader", name="colors"))
    expect(shown.locator(f".patch[data-color={name}]")).to_be_visible()
    save_screenshot(page, "colors-of-an-image")


def test_a_color_of_the_text_is_a_chip(site: Site, page: Page) -> None:
    open_results(site, page, "/?q=brown animal")
    wait_for_hits(page, list_hits(site, text="brown animal"))
    page.get_by_role("button", name="Remove: Colors: brown").click()
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value('"brown" animal')
    wait_for_hits(page, list_hits(site, text='"brown" animal'))


def test_methods_rank_differently(site: Site, page: Page) -> None:
    open_results(site, page)
    ranked = page.get_by_label("ranked by", exact=True)
    ranked.select_option("text")
    wait_for_hits(page, list_hits(site, text=QUERY, method="text"))
    expect(page.get_by_text("there are no weights to adjust")).to_be_visible()
    ranked.select_option("words")
    wait_for_hits(page, list_hits(site, text=QUERY, method="words"))


def fetch_answer(site: Site, path: Path) -> dict[str, Any]:
    """The tokens of a file by the API."""
    request = Request(f"{site.base}/api/image", path.read_bytes(), {"Content-Type": "image/jpeg"})
    with urlopen(request) as answer:
        made: dict[str, Any] = json.load(answer)
        return made


def test_a_dropped_image_is_a_query(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?show=explain")
    wait_for_start_page(page)
    data = base64.b64encode((PHOTOS / "tabby-cat.jpg").read_bytes()).decode()
    transfer = page.evaluate_handle(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], 'tabby-cat.jpg', {type: 'image/jpeg'}));
            return transfer;
        }""",
        data,
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator(".veil")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    words = {word: round(value, 4) for word, value in fetch_answer(site, PHOTOS / "tabby-cat.jpg")["tokens"]}
    wait_for_hits(page, list_hits(site, vector=words))
    assert get_hit_names(page)[0] == "tabby-cat.jpg"
    chip = page.locator(".image-chip")
    assert str(chip.locator("img").get_attribute("src")).startswith("data:image/")
    assert page.url.count("&v=") == len(words) - 1
    save_screenshot(page, "dropped")
    expect(get_slider(page, next(iter(words)))).to_be_visible()
    page.reload()
    expect(chip.locator("img")).to_be_visible()  # this tab remembers what it looked like
    chip.get_by_role("button").click()
    wait_for_start_page(page)


def test_an_image_can_be_chosen_or_pasted_in_addition_to_words(site: Site, page: Page) -> None:
    open_results(site, page, "/?q=grass")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Search with an image").click()
    chooser.value.set_files(PHOTOS / "bison.jpg")
    vector = {word: round(value, 4) for word, value in fetch_answer(site, PHOTOS / "bison.jpg")["tokens"]}
    wait_for_hits(page, list_hits(site, text="grass", vector=vector))
    data = base64.b64encode((PHOTOS / "koala.jpg").read_bytes()).decode()
    page.evaluate(
        """(data) => {
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            const pasted = new DataTransfer();
            pasted.items.add(new File([bytes], 'image.png', {type: 'image/png'}));
            document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: pasted, bubbles: true}));
        }""",
        data,
    )
    vector = {word: round(value, 4) for word, value in fetch_answer(site, PHOTOS / "koala.jpg")["tokens"]}
    wait_for_hits(page, list_hits(site, text="grass", vector=vector))


def test_more_like_a_hit(site: Site, page: Page) -> None:
    open_results(site, page)
    page.get_by_role("link", name="more like this: giant-panda.jpg").click()
    [panda] = [hit["id"] for hit in call_api(site, {"text": "panda"})["hits"] if hit["name"] == "giant-panda.jpg"]
    wait_for_hits(page, list_hits(site, similar_to=panda))
    expect(page.locator(".image-chip")).to_have_text("like giant-panda.jpg")


def test_an_empty_result_names_the_conditions_to_remove(site: Site, page: Page) -> None:
    page.goto(f"{site.base}/?q=bear&filter=width:>100000&is.top_tokens=animal&show=explain")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    save_screenshot(page, "nothing")
    page.get_by_role("button", name="without “where width:>100000”").click()
    wait_for_hits(page, list_hits(site, text="bear", filters=[{"field": "top_tokens", "all": ["animal"]}]))


def test_a_moving_slider_shows_intermediate_results(site: Site, page: Page) -> None:
    open_results(site, page)
    moves, answers = page.evaluate(
        """async () => {
            const slider = document.querySelector('input[type=range]');
            const count = () => performance.getEntriesByType('resource').filter(({name}) => name.includes('/api/search')).length;
            const before = count();
            let move = 0;
            for (; move < 60 || (count() < before + 3 && move < 1000); move += 1) {
                slider.value = String(0.5 + (move % 50) / 20);
                slider.dispatchEvent(new Event('input', {bubbles: true}));
                await new Promise((done) => setTimeout(done, 16));
            }
            return [move, count() - before];
        }"""
    )
    assert 3 <= answers < moves
    wait_for_hits(page, list_hits(site, text=QUERY, factors={"bear": 0.5 + ((moves - 1) % 50) / 20}))
