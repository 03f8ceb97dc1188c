"""The page of an image: the picture first; next and previous, zoom, copying, download, and back to the same place."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image, ImageOps
from playwright.sync_api import BrowserContext, CDPSession, Locator, Page, ViewportSize, expect
from support.browser.page_actions import call_api, open_gallery, open_weak_matches, wait_until
from support.browser.web_server import PHOTOS, Site, ingest_images, save_screenshot, serve_site
from support.corpora.camera_photos import build_camera_exif

Contexts = Callable[..., BrowserContext]
SMALL_LAPTOP: ViewportSize = {"width": 1366, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
QUERY = "a mountain with snow"
PANORAMA_SIZE, PORTRAIT_SIZE = (3000, 500), (700, 1700)
FIELDS = "caption=caption,text=text,text_boxes=text_boxes"
ZERMATT = (46.0207, 7.7491)
FOUND = ".results li.tile:not(.skeleton):visible"


@pytest.fixture(scope="module")
def shape_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a panorama, a portrait and a copy among them."""
    shape_folder = tmp_path_factory.mktemp("shapes") / "photos of mine"
    shutil.copytree(PHOTOS, shape_folder)
    with Image.open(PHOTOS / "alpine-path.jpg") as photo:
        photo.resize(PANORAMA_SIZE, box=(0, 100, 640, 207)).save(shape_folder / "panorama.jpg", exif=build_camera_exif(ZERMATT))
        photo.resize(PORTRAIT_SIZE, box=(200, 0, 398, 480)).save(shape_folder / "portrait.jpg")
    shutil.copy(PHOTOS / "giant-panda.jpg", shape_folder / "panda-again.jpg")
    for photo_file in sorted(PHOTOS.glob("*.jpg")):  # for a second page of hits
        with Image.open(photo_file) as photo:
            ImageOps.mirror(photo).resize((96, 72)).save(shape_folder / f"small-{photo_file.name}")
    rows = [json.loads(line) for line in (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    made = {file.name for file in shape_folder.glob("*.jpg")} - {row["file"] for row in rows}
    rows += [{"file": name, "caption": f"the {name}"} for name in sorted(made)]
    lines = [{"text": "Departures", "box": [0.25, 0.5, 0.75, 1.0]}, {"text": "Gate 7", "box": [0, 0, 0.1, 0.2]}]
    text = {"text": "Departures\nGate 7", "text_boxes": lines}
    rows = [row | text if row["file"] == "panorama.jpg" else row for row in rows]
    (shape_folder / "captions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return shape_folder


@pytest.fixture(scope="module")
def shape_site(node_url: str, shape_folder: Path) -> Iterator[Site]:
    """The page of these photos."""
    ingest_images(
        node_url,
        "page-shapes",
        shape_folder / "captions.jsonl",
        "--image-column",
        "file",
        "--thumbnail-px",
        "256",
        "--field",
        FIELDS,
        "--enrich",
        "exif:location=2",
    )
    with serve_site(node_url, "page-shapes", "--images", shape_folder) as base:
        yield Site(base=base)


def get_id(site: Site, name: str) -> str:
    """Return the id of an image."""
    hits = call_api(site, {"k": 100})["hits"]  # all of them
    return next(str(one["id"]) for hit in hits for one in (hit, *hit["duplicates"]) if one["name"] == name)


def test_a_place_leads_to_images_near_it(shape_site: Site, page: Page) -> None:
    page.goto(f"{shape_site.base}/image/{get_id(shape_site, 'panorama.jpg')}")
    expect(page.locator(".known")).to_contain_text("Canon EOS 80D · EF-S17-55mm f/2.8 IS USM · f/2.8 · 1/200 s · ISO 100 · 35 mm")
    expect(page.locator(".known .place")).to_contain_text("46.02, 7.75")
    page.get_by_role("link", name="near here").click()
    expect(page.locator(FOUND)).to_have_count(1)
    expect(page.get_by_text("within 10 km of 46.02, 7.75")).to_be_visible()
    page.goto(f"{shape_site.base}/?q=snow+near:0,0")
    page.get_by_role("button", name=re.compile("within 10 km of 0, 0")).first.click()
    expect(page).to_have_url(re.compile(r"\?q=snow$"))
    page.goto(f"{shape_site.base}/image/{get_id(shape_site, 'portrait.jpg')}")
    expect(page.locator(".known .place")).to_be_hidden()


def test_lines_with_a_word_of_the_query_are_framed(shape_site: Site, page: Page) -> None:
    """They stay framed in the picture that replaces the thumbnail, and not in the next one."""
    names = open_found(shape_site, page, query="departures")
    assert names[0] == "panorama.jpg"
    expect(page.locator(".canvas img[data-last]")).to_be_visible()
    expect(page.locator(".known .lines")).to_have_text("Departures\nGate 7\n")
    expect(page.locator(".known .lines mark")).to_have_text(["Departures"])
    frames = page.locator(".boxes i")
    expect(frames).to_have_count(1)
    frame, picture = frames.bounding_box(), page.locator(".canvas img").last.bounding_box()
    assert frame is not None
    assert picture is not None
    assert frame["x"] == pytest.approx(picture["x"] + picture["width"] / 4, abs=1)
    assert frame["y"] == pytest.approx(picture["y"] + picture["height"] / 2, abs=1)
    assert frame["width"] == pytest.approx(picture["width"] / 2, abs=1)
    save_screenshot(page, "image-text")
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1:visible")).not_to_have_text("panorama.jpg")
    expect(frames).to_have_count(0)


def open_found(site: Site, page: Page, place: int = 0, query: str = QUERY) -> list[str]:
    """Search, open the image at a place of the gallery, weak matches among them, and return the names of all."""
    open_gallery(site, page, f"/?q={query}")
    open_weak_matches(page)
    by_id = {hit["id"]: str(hit["name"]) for hit in call_api(site, {"text": query, "k": 100})["hits"]}
    names = [by_id[id_] for id_ in page.locator(FOUND).evaluate_all("(tiles) => tiles.map((tile) => tile.dataset.id)")]
    page.locator(FOUND).nth(place).locator("a").click()
    expect_shown(page, names[place])
    return names


def expect_shown(page: Page, name: str) -> None:
    """Expect that the page shows an image whose picture has come."""
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.locator(".canvas img:only-of-type[src^='original/']")).to_be_visible()  # the thumbnail has gone
    expect(page.locator(".image")).to_have_attribute("aria-busy", "false")


def get_scale(page: Page) -> float:
    """Return how much the picture is enlarged."""
    return float(page.locator(".canvas").evaluate("(one) => one.getBoundingClientRect().width / one.offsetWidth"))


def test_next_and_previous_by_key_and_button(shape_site: Site, page: Page) -> None:
    names = open_found(shape_site, page)
    total = len(names)
    expect(page.get_by_role("button", name="Previous image")).to_have_attribute("aria-disabled", "true")
    for press, name in (
        ("ArrowRight", names[1]),
        ("j", names[2]),
        ("k", names[1]),
        ("ArrowLeft", names[0]),
        ("ArrowLeft", names[0]),
    ):
        page.keyboard.press(press)
        expect_shown(page, name)
    page.get_by_role("button", name="Next image").click()
    expect_shown(page, names[1])
    expect(page.get_by_role("button", name="Next image")).to_be_focused()
    expect(page.locator("#said")).to_have_text(f"image 2 of {total}, {names[1]}")
    expect(page.locator(".position")).to_have_text(f"2 of {total}")
    expect(page).to_have_title(f"{names[1]} · page-shapes")
    assert page.url.endswith(f"/image/{get_id(shape_site, names[1])}")


def test_beyond_the_loaded_page(shape_site: Site, context: Contexts) -> None:
    page = context().new_page()
    page.add_init_script("IntersectionObserver.prototype.observe = () => {};")  # the gallery gets no page by itself
    path = "/?filter=width:>10"
    hits = call_api(shape_site, {"filter": "width:>10", "k": 100})["hits"]
    open_gallery(shape_site, page, path)
    last = page.locator(FOUND).count()
    assert last < len(hits) - 3
    page.locator(FOUND).nth(last - 2).locator("a").click()
    for number in range(last - 1, last + 2):
        expect(page.locator(".position")).to_contain_text(f"{number} of")
        page.keyboard.press("j")
    expect(page.locator(".position")).to_contain_text(f"{last + 2} of")
    page.keyboard.press("Escape")
    expect(page.locator(FOUND).nth(last + 1).locator(":focus")).to_have_count(1)


@pytest.mark.parametrize("way", ["Escape", "link", "back"])
def test_back_to_the_same_place_with_the_focus_on_the_last_image(shape_site: Site, page: Page, way: str) -> None:
    names = open_found(shape_site, page)
    for name in names[1:6]:
        page.keyboard.press("ArrowRight")
        expect_shown(page, name)
    address = page.url
    if way == "Escape":
        page.keyboard.press("Escape")
    elif way == "link":
        page.get_by_role("link", name="← back to the search").click()
    else:
        page.go_back()
    tile = page.locator(FOUND).nth(5)
    expect(tile.locator(":focus")).to_have_count(1)
    expect(tile).to_be_in_viewport()
    assert f"/{tile.get_attribute('data-id')}" in address
    page.go_forward()
    expect_shown(page, names[5])


def test_a_reload_keeps_the_way_back(shape_site: Site, page: Page) -> None:
    names = open_found(shape_site, page)
    page.reload()
    expect_shown(page, names[0])
    page.keyboard.press("Escape")
    expect(page.locator(FOUND)).not_to_have_count(0)
    expect(page.get_by_role("searchbox", name="Words to look for")).to_have_value(QUERY)


def test_an_image_opened_by_its_address_has_no_next(shape_site: Site, page: Page) -> None:
    page.goto(f"{shape_site.base}/image/{get_id(shape_site, 'giant-panda.jpg')}")
    expect_shown(page, "giant-panda.jpg")
    expect(page.get_by_role("button", name="Next image")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    expect_shown(page, "giant-panda.jpg")


def test_the_next_picture_is_there_already(shape_site: Site, page: Page) -> None:
    names = open_found(shape_site, page)
    next_id = get_id(shape_site, names[1])
    following = f"{shape_site.base}/original/{next_id}"
    wait_until(page, f"performance.getEntriesByName({following!r}).some((one) => one.responseEnd > 0)")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("ArrowRight")
    expect_shown(page, names[1])
    assert f"{shape_site.base}/api/image/{next_id}" not in asked


def test_zoom_by_key_button_click_and_wheel(shape_site: Site, page: Page) -> None:
    names = open_found(shape_site, page)
    page.keyboard.press("z")
    large = get_scale(page)
    assert large > 1.2
    page.keyboard.press("+")
    assert get_scale(page) > large
    page.keyboard.press("-")
    page.keyboard.press("z")
    assert get_scale(page) == 1
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    expect(page.locator(".percent")).not_to_be_empty()
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_role("button", name="Zoom out").click()
    assert get_scale(page) == 1

    stage = page.get_by_role("figure", name="Image")
    stage.click(position={"x": 200, "y": 200})
    assert get_scale(page) == pytest.approx(large, rel=0.01)
    before = page.locator(".canvas").bounding_box()
    page.keyboard.press("ArrowRight")  # moves the picture; the next one is not shown
    after = page.locator(".canvas").bounding_box()
    assert before is not None
    assert after is not None
    assert after["x"] < before["x"]
    expect_shown(page, names[0])
    page.mouse.wheel(0, -200)
    wait_until(page, f"document.querySelector('.canvas').getBoundingClientRect().width > {after['width']}")
    still = page.locator(".canvas").bounding_box()
    drag_stage(page, stage, 150)
    moved = page.locator(".canvas").bounding_box()
    assert still is not None
    assert moved is not None
    assert moved["x"] > still["x"]
    page.keyboard.press("Escape")
    assert get_scale(page) == 1
    expect_shown(page, names[0])


def drag_stage(page: Page, stage: Locator, by_px: int) -> None:
    """Drag the picture to the right."""
    box = stage.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by_px, y, steps=4)
    page.mouse.up()


def send_touch(cdp: CDPSession, kind: str, *points: tuple[float, float]) -> None:
    """Touch the screen at some points."""
    touched = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
    cdp.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})


def swipe_stage(cdp: CDPSession, by_px: int) -> None:
    """Swipe over the picture."""
    send_touch(cdp, "touchStart", (195, 300))
    for part in (0.25, 0.5, 0.75, 1):
        send_touch(cdp, "touchMove", (195 + by_px * part, 302))
    send_touch(cdp, "touchEnd")


def test_swipe_and_pinch(shape_site: Site, context: Contexts) -> None:
    page = context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    names = open_found(shape_site, page)
    cdp = page.context.new_cdp_session(page)
    swipe_stage(cdp, -120)
    expect_shown(page, names[1])
    swipe_stage(cdp, -120)
    expect_shown(page, names[2])
    swipe_stage(cdp, 120)
    expect_shown(page, names[1])
    swipe_stage(cdp, 20)  # too short
    send_touch(cdp, "touchStart", (150, 300), (240, 300))
    send_touch(cdp, "touchMove", (120, 300), (270, 300))
    send_touch(cdp, "touchMove", (90, 300), (300, 300))
    send_touch(cdp, "touchEnd")
    wait_until(page, "document.querySelector('figure').classList.contains('zoomed')")
    assert get_scale(page) == pytest.approx(210 / 90, rel=0.1)
    swipe_stage(cdp, -120)  # moves the enlarged picture
    expect_shown(page, names[1])
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


def test_copying_the_path_and_the_link(shape_site: Site, context: Contexts, shape_folder: Path) -> None:
    page = context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto(f"{shape_site.base}/image/{get_id(shape_site, 'panorama.jpg')}")
    expect_shown(page, "panorama.jpg")
    page.get_by_role("button", name="copy path").click()
    expect(page.get_by_text("Path copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == str(shape_folder.resolve() / "panorama.jpg")
    page.get_by_role("button", name="copy link", exact=True).last.click()
    expect(page.get_by_text("Link copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_download(shape_site: Site, page: Page, tmp_path: Path) -> None:
    open_found(shape_site, page)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="download").click()
    downloading.value.save_as(tmp_path / "picture")
    with Image.open(tmp_path / "picture") as image:
        assert image.format == "JPEG"
    assert downloading.value.url.endswith("?download=1")


def test_without_originals_there_is_the_thumbnail(node_url: str, shape_site: Site, page: Page) -> None:
    with serve_site(node_url, "page-shapes") as base:
        page.goto(f"{base}/image/{get_id(shape_site, 'giant-panda.jpg')}")
        expect(page.locator(".canvas img[src^='thumb/']")).to_be_visible()
        expect(page.get_by_role("link", name="more like this")).to_be_visible()
        for name in ("download", "open"):
            expect(page.get_by_role("link", name=name, exact=True)).to_have_count(0)
        page.goto("about:blank")  # asks the server for nothing more


def test_copies_stand_apart(shape_site: Site, page: Page) -> None:
    page.goto(f"{shape_site.base}/image/{get_id(shape_site, 'giant-panda.jpg')}")
    expect(page.get_by_role("list", name="Copies").get_by_role("link", name="panda-again.jpg")).to_be_visible()
    nearest = page.get_by_role("list", name="Nearest images", exact=True)
    expect(nearest.get_by_role("link", name=re.compile("^panda-again"))).to_have_count(0)


def test_focus_and_names_for_a_screen_reader(shape_site: Site, page: Page) -> None:
    names = open_found(shape_site, page)
    expect(page.get_by_role("heading", name=names[0], level=1)).to_be_focused()
    for role, name in (("figure", "Image"), ("group", "Zoom"), ("region", "Metadata"), ("list", "All words of the image")):
        expect(page.get_by_role(role, name=name, exact=True)).to_be_visible()  # type: ignore[arg-type]
    caption = call_api(shape_site, {"text": QUERY, "k": 1})["hits"][0]["caption"]
    expect(page.get_by_role("img", name=caption)).to_be_visible()
    page.locator(".strip a").first.click()
    expect(page.get_by_role("heading", level=1)).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["alpine-path.jpg", "panorama.jpg", "portrait.jpg"])
def test_the_picture_is_whole_and_large(shape_site: Site, page: Page, name: str, theme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=theme)
    for size, label in ((SMALL_LAPTOP, "desktop"), (PHONE, "phone")):
        page.set_viewport_size(size)
        page.goto(f"{shape_site.base}/image/{get_id(shape_site, name)}")
        expect_shown(page, name)
        expect(page.locator(".strip li").first).to_be_attached()
        picture, stage = page.locator(".canvas").bounding_box(), page.get_by_role("figure").bounding_box()
        assert picture is not None
        assert stage is not None
        width, height = page.locator(".canvas img").evaluate("(one) => [one.naturalWidth, one.naturalHeight]")
        assert picture["width"] / picture["height"] == pytest.approx(width / height, rel=0.02)  # whole, as it is
        assert stage["x"] - 1 <= picture["x"]
        assert picture["width"] <= stage["width"] + 1
        assert picture["height"] <= stage["height"] + 1
        assert picture["width"] > stage["width"] - 2 or picture["height"] > stage["height"] - 2
        assert stage["width"] * stage["height"] > size["width"] * size["height"] * 0.5
        assert stage["y"] + stage["height"] <= size["height"]
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        save_screenshot(page, f"image-{label}-{theme}-{name.removesuffix('.jpg')}")


def test_nothing_jumps_from_one_image_to_the_next(shape_site: Site, page: Page) -> None:
    query = "mountain landscape"
    names = open_found(shape_site, page, query=query)[:5]
    page.evaluate(
        """() => { window.seen = {}; const look = () => { const name = document.querySelector('.image h1').textContent;
            const {x, y, width, height} = document.querySelector('.canvas').getBoundingClientRect();
            (window.seen[name] ??= new Set()).add([x, y, width, height].join()); requestAnimationFrame(look); }; look(); }"""
    )
    boxes = [page.locator(place).bounding_box() for place in ("figure", ".actions")]
    for name in names[1:]:
        page.keyboard.press("ArrowRight")
        expect_shown(page, name)
        assert [page.locator(place).bounding_box() for place in ("figure", ".actions")] == boxes
    places = page.evaluate("Object.entries(window.seen).map(([name, places]) => [name, places.size])")
    assert dict(places) == dict.fromkeys(names, 1)  # the original stands where the thumbnail stood
