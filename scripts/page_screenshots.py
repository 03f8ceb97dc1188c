"""Take the screenshots of the page for the documentation, of the bundled photos on a node and in a real browser.

::

    python scripts/page_screenshots.py --url "$(stair-es node up)" --out docs/images
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.browser.page_actions import call_api, get_slider, open_results
from support.browser.web_server import PHOTOS, Site, ingest_photos, serve_site, start_chromium

INDEX = "photos"
MAX_BYTES = 400_000
QUERY = "a bear in a tree"
WIDE = (1280, 840)
PHONE = (390, 844)


def show_search(page: Page, site: Site) -> None:
    """Show a search with a moved slider and a required word."""
    open_results(site, page, f"/?q={QUERY}")
    get_slider(page, "tree").fill("1.5")
    page.locator(".query").get_by_role("button", name="Require tree", exact=True).click()
    expect(page.locator("#said")).to_contain_text("found")
    page.mouse.move(0, 0)
    page.locator("body").click(position={"x": 5, "y": 5})


def show_image(page: Page, site: Site) -> None:
    """Show all words of one image."""
    hit = call_api(site, {"text": "red panda", "k": 1})["hits"][0]
    page.goto(f"{site.base}/image/{hit['id']}")
    expect(page.locator(".below li.hit").first).to_be_attached()


def show_comparison(page: Page, site: Site) -> None:
    """Show one query with two methods."""
    page.goto(f"{site.base}/compare?a.q=a+castle+on+a+hill&b.q=a+castle+on+a+hill&b.by=bag")
    expect(page.locator(".lines path").first).to_be_attached()


def show_dark_search(page: Page, site: Site) -> None:
    """Show a search by the words of an image, in the dark theme."""
    hit = call_api(site, {"text": "macaw", "k": 1})["hits"][0]
    open_results(site, page, f"/?like={hit['id']}")
    expect(page.locator("#said")).to_contain_text("found")


def show_phone_search(page: Page, site: Site) -> None:
    """Show a search on a phone."""
    open_results(site, page, "/?q=a parrot")
    expect(page.locator("#said")).to_contain_text("found")


def show_start(page: Page, site: Site) -> None:
    """Show the page before the first query."""
    page.goto(site.base)
    expect(page.locator(".specimen li.hit").first).to_be_visible()


Scene = Callable[[Page, Site], None]
SCENES: dict[str, tuple[Scene, tuple[int, int], Literal["light", "dark"]]] = {
    "page-start": (show_start, WIDE, "light"),
    "page-search": (show_search, WIDE, "light"),
    "page-image": (show_image, WIDE, "light"),
    "page-compare": (show_comparison, WIDE, "light"),
    "page-dark": (show_dark_search, WIDE, "dark"),
    "page-phone": (show_phone_search, PHONE, "light"),
}


@contextmanager
def open_page(browser: Browser, size: tuple[int, int], theme: Literal["light", "dark"]) -> Iterator[Page]:
    """Yield a new page with this size and theme."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce")
    try:
        yield context.new_page()
    finally:
        context.close()


def compress_png(png: bytes) -> bytes:
    """Return the same picture with the best compression of PNG.

    Raises:
        ValueError: If it is still too large for the repository.
    """
    from PIL import Image

    made = BytesIO()
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").save(made, "PNG", optimize=True)
    if len(made.getvalue()) > MAX_BYTES:
        raise ValueError(f"{len(made.getvalue()):,} bytes, {MAX_BYTES:,} are allowed")
    return made.getvalue()


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="URL of a node; its index `photos` is written")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENES)} (default: all)")
    args = parser.parse_args()
    photos = Path(tempfile.gettempdir()) / "photos"  # a screenshot shows this path
    shutil.copytree(PHOTOS, photos, dirs_exist_ok=True)
    ingest_photos(args.url, INDEX, photos)
    args.out.mkdir(parents=True, exist_ok=True)
    with serve_site(args.url, INDEX, "--images", photos) as base, start_chromium() as browser:
        for name in args.names or SCENES:
            scene, size, theme = SCENES[name]
            with open_page(browser, size, theme) as page:
                scene(page, Site(base=base))
                page.wait_for_load_state("networkidle")
                png = compress_png(page.screenshot())
            (args.out / f"{name}.png").write_bytes(png)
            print(f"{name}.png: {len(png) / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
