"""Make the pictures of the page and of a dashboard for the documentation: the bundled photos on a node, and a browser.

::

    python scripts/docs_pictures.py --url "$(stair-es node up)"             # the page
    python scripts/docs_pictures.py --kibana "$(stair-es dashboards publish)"  # or --opensearch-dashboards
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.browser.page_actions import get_slider, open_filter, open_gallery, open_results
from support.browser.web_server import PHOTOS, Site, ingest_photos, serve_site, start_chromium

INDEX = "photos"
PRODUCTS = ("kibana", "opensearch-dashboards")
MAX_BYTES = 400_000
DESKTOP = (1366, 900)
PHONE = (390, 844)
PRODUCT = (1280, 1530)


def show_start(page: Page, site: Site) -> None:
    """Show the page before the first query."""
    open_gallery(site, page, "/")


def show_gallery(page: Page, site: Site) -> None:
    """Show what a query finds among the larger pictures, one of them with its name, score and words."""
    open_gallery(site, page, "/?q=animal&range.width=300..")
    page.locator(".found li.tile > a").nth(3).hover()


def show_explanation(page: Page, site: Site) -> None:
    """Show why hits are found, with a moved slider."""
    open_results(site, page, "/?q=mammal")
    get_slider(page, "animal").fill("1.5")
    page.locator("body").click(position={"x": 5, "y": 5})
    page.mouse.move(0, 0)


def show_filters(page: Page, site: Site) -> None:
    """Show an open filter, and the chip of another."""
    open_gallery(site, page, "/?range.width=400..")
    open_filter(page, "Colors")


def show_image(page: Page, site: Site) -> None:
    """Show one of the images found, with its words."""
    open_gallery(site, page, "/?q=mammal")
    page.get_by_role("link", name="red-panda.jpg").click()
    expect(page.locator(".strip li").first).to_be_attached()
    expect(page.locator("figure img")).to_have_count(1)  # the original, in place of the thumbnail


def show_comparison(page: Page, site: Site) -> None:
    """Show one query with two methods."""
    page.goto(f"{site.base}/compare?a.q=a+castle+on+a+hill&b.q=a+castle+on+a+hill&b.by=bag")
    expect(page.locator(".lines path").first).to_be_attached()


def show_dark_gallery(page: Page, site: Site) -> None:
    """Show what a query finds beside the weights of its words, in the dark theme."""
    open_gallery(site, page, "/?q=mammal")
    page.get_by_role("button", name="Weights", exact=True).click()


def show_phone_gallery(page: Page, site: Site) -> None:
    """Show what a query finds on a phone."""
    open_gallery(site, page, "/?q=mammal")


Scene = Callable[[Page, Site], None]
SCENES: dict[str, tuple[Scene, tuple[int, int], Literal["light", "dark"]]] = {
    "page-start": (show_start, DESKTOP, "light"),
    "page-gallery": (show_gallery, (1440, 690), "light"),
    "page-explain": (show_explanation, DESKTOP, "light"),
    "page-filters": (show_filters, DESKTOP, "light"),
    "page-image": (show_image, DESKTOP, "light"),
    "page-compare": (show_comparison, DESKTOP, "light"),
    "page-dark": (show_dark_gallery, DESKTOP, "dark"),
    "page-phone": (show_phone_gallery, PHONE, "light"),
}


@contextmanager
def open_page(browser: Browser, size: tuple[int, int], theme: Literal["light", "dark"]) -> Iterator[Page]:
    """Yield a new page with this size and theme."""
    viewport: ViewportSize = {"width": size[0], "height": size[1]}
    on_phone = size == PHONE
    context = browser.new_context(
        viewport=viewport, color_scheme=theme, reduced_motion="reduce", has_touch=on_phone, is_mobile=on_phone
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def compress_picture(png: bytes) -> bytes:
    """Return the same picture as WebP: as PNG, photographs would have 1 MB.

    Raises:
        ValueError: If it is still too large for the repository.
    """
    from PIL import Image

    made = BytesIO()
    with Image.open(BytesIO(png)) as picture:
        picture.convert("RGB").save(made, "WEBP", quality=88, method=6)
    if len(made.getvalue()) > MAX_BYTES:
        raise ValueError(f"{len(made.getvalue()):,} bytes, {MAX_BYTES:,} are allowed")
    return made.getvalue()


def take_screenshots(url: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Take screenshots of the page; yield the name of each and its picture."""
    photos = Path(tempfile.gettempdir()) / INDEX  # a screenshot shows this path
    shutil.copytree(PHOTOS, photos, dirs_exist_ok=True)
    ingest_photos(url, INDEX, photos)
    with serve_site(url, INDEX, "--images", photos) as base, start_chromium() as browser:
        for name in names:
            scene, size, theme = SCENES[name]
            with open_page(browser, size, theme) as page:
                scene(page, Site(base=base))
                page.wait_for_load_state("networkidle")
                yield name, compress_picture(page.screenshot())


def take_product_screenshot(link: str) -> bytes:
    """Take a screenshot of a published dashboard, once its charts are drawn."""
    with start_chromium() as browser, open_page(browser, PRODUCT, "light") as page:
        page.goto(link, timeout=120_000)
        expect(page.locator(".vgaVis canvas, .vgaVis svg, .vgaVis__view canvas, .vgaVis__view svg").nth(1)).to_be_visible(
            timeout=120_000
        )
        page.wait_for_timeout(10_000)  # neither product says when the classic charts are drawn
        for button in page.get_by_role("button", name="Dismiss").all():
            button.click()
        page.mouse.click(5, PRODUCT[1] - 5)  # closes what Kibana opens above the panels
        page.wait_for_timeout(1_000)
        return compress_picture(page.screenshot(timeout=120_000))


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="URL of a node; its index `photos` is written")
    for product in PRODUCTS:
        parser.add_argument(f"--{product}", metavar="LINK", help="link of a dashboard, as `dashboards publish` prints it")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCENES)} (default: all)")
    args = parser.parse_args()
    expect.set_options(timeout=30_000)
    args.out.mkdir(parents=True, exist_ok=True)
    pages = take_screenshots(args.url, args.names or [*SCENES]) if args.url else ()
    links = {product: getattr(args, product.replace("-", "_")) for product in PRODUCTS}
    if not args.url and not any(links.values()):
        parser.error("nothing to do: --url, or the link of a dashboard")
    dashboards = ((f"dashboards-{product}", take_product_screenshot(link)) for product, link in links.items() if link)
    for name, picture in chain(pages, dashboards):
        (args.out / f"{name}.webp").write_bytes(picture)
        print(f"{name}.webp: {len(picture) / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
