"""Load the page in a browser, and measure requests, bytes, and the time until pictures are there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TIMEOUT_S = 60.0
_COUNT_SHIFTS = """
window.layoutShift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.layoutShift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
_READ_PICTURES = """() => {
  const shown = [...document.querySelectorAll("main img")].filter((image) => {
    const box = image.getBoundingClientRect();
    return box.width > 20 && box.height > 20 && box.top >= 0 && box.bottom <= innerHeight;
  });
  const ends = new Map(performance.getEntriesByType("resource").map((entry) => [entry.name, entry.responseEnd]));
  return {
    shown: shown.length,
    loaded: shown.filter((image) => image.complete && image.naturalWidth).length,
    ends: shown.map((image) => ends.get(image.currentSrc)).filter(Boolean),
    shift: window.layoutShift,
  };
}"""


@dataclass(frozen=True, kw_only=True)
class PageLoad:
    """One load of the page with an empty cache."""

    requests: int
    """Requests other than for pictures."""
    page_bytes: int
    """Bytes transferred for everything except pictures, including headers."""
    picture_bytes: int
    pictures: int
    """Pictures that are fully visible on the first screen."""
    first_picture_ms: float
    """From the navigation until the first of these pictures is loaded."""
    screen_ms: float
    """From the navigation until all of these pictures are loaded."""
    layout_shift: float
    """Cumulative layout shift of the Layout Instability API; below 0.1 is good (web.dev/cls)."""


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Start Chromium as the tests of the page do."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from support.browser.web_server import start_chromium

    with start_chromium() as browser:
        yield browser


def load_page(browser: Browser, url: str, *, width_px: int = 1366, height_px: int = 900, scale: float = 1.0) -> PageLoad:
    """Load a page in a new context, and wait until all pictures of its first screen are loaded.

    Raises:
        TimeoutError: If they aren't loaded within a minute.
    """
    context = browser.new_context(viewport={"width": width_px, "height": height_px}, device_scale_factor=scale)
    try:
        page = context.new_page()
        page.add_init_script(_COUNT_SHIFTS)
        session = context.new_cdp_session(page)
        kinds: dict[str, str] = {}
        sizes: dict[str, int] = {}
        session.on("Network.responseReceived", lambda event: kinds.__setitem__(event["requestId"], event["type"]))
        session.on(
            "Network.loadingFinished", lambda event: sizes.__setitem__(event["requestId"], int(event["encodedDataLength"]))
        )
        session.send("Network.enable")
        page.goto(url, wait_until="commit")
        pictures = _wait_for_pictures(page)
        return PageLoad(
            requests=sum(kind != "Image" for kind in kinds.values()),
            page_bytes=sum(size for id_, size in sizes.items() if kinds.get(id_) != "Image"),
            picture_bytes=sum(size for id_, size in sizes.items() if kinds.get(id_) == "Image"),
            pictures=int(pictures["shown"]),
            first_picture_ms=float(min(pictures["ends"])),
            screen_ms=float(max(pictures["ends"])),
            layout_shift=float(pictures["shift"]),
        )
    finally:
        context.close()


def _wait_for_pictures(page: Any) -> dict[str, Any]:  # noqa: ANN401  playwright's Page
    """Return the state of the pictures when all of the first screen are loaded, twice in a row."""
    end_s, last = time.monotonic() + TIMEOUT_S, -1
    while time.monotonic() < end_s:
        found: dict[str, Any] = page.evaluate(_READ_PICTURES)
        if found["shown"] and found["shown"] == found["loaded"] == len(found["ends"]) == last:
            return found
        last = found["shown"]
        page.wait_for_timeout(100)
    raise TimeoutError(f"the pictures of the first screen were not there after {TIMEOUT_S:g} s: {page.url}")
