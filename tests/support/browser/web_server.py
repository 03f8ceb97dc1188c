"""The page of real images for browser tests and pictures: a corpus on a node, `stair-es serve` before it, Chromium in front.

::

    ingest_photos(node_url, index)
    with serve_site(node_url, index) as base, start_chromium() as browser:
        page = browser.new_page()
        page.goto(base)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, ViewportSize

    from support.servers.recording_proxy import RecordingProxy

ROOT = Path(__file__).parents[3]
PHOTOS = ROOT / "examples" / "photos"
STAIR_ES = Path(sys.executable).parent / "stair-es"
SCREENSHOTS = Path(os.environ.get("STAIR_ES_SCREENSHOTS") or ROOT / "build" / "screenshots")
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 360, "height": 740}
OTHER_SIZE = pytest.mark.nightly("another size of window")
_WATCHED = "addEventListener('securitypolicyviolation', (e) => console.error('refused by the policy: ' + e.violatedDirective));"


def ingest_images(url: str, index: str, *arguments: str | Path) -> None:
    """Ingest images.

    Raises:
        RuntimeError: If it fails.
    """
    result = subprocess.run(
        [STAIR_ES, "ingest", *arguments, "--index", index, "--url", url], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(f"ingest ended with {result.returncode}: {result.stderr}")


def ingest_photos(url: str, index: str, folder: Path = PHOTOS) -> None:
    """Ingest the bundled photos with their captions; `folder` may be a copy of them."""
    ingest_images(url, index, folder / "captions.jsonl", "--image-column", "file", "--thumbnail-px", "256")


@contextmanager
def serve_site(url: str, index: str, *arguments: str | Path) -> Iterator[str]:
    """Run `stair-es serve` on a free port and yield its address.

    Raises:
        RuntimeError: If it doesn't start.
    """
    command: Sequence[str | Path] = [STAIR_ES, "serve", "--index", index, "--url", url, "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise RuntimeError(f"`stair-es serve` ended with {server.wait()}")
            yield str(json.loads(line)["url"]).rstrip("/")
        finally:
            server.terminate()


@contextmanager
def start_chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, preferably the build without windows, which takes two thirds of the CPU.

    Raises:
        RuntimeError: If there is none.
    """
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
    if executable is None:
        raise RuntimeError(
            "there is no Chromium for the tests of the page; install it with: apt-get install chromium-headless-shell"
        )
    arguments = ["--disable-gpu", "--in-process-gpu", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_context(browser: Browser, errors: PageErrors, **options: Any) -> Iterator[BrowserContext]:  # noqa: ANN401  of Playwright
    """Open a browser context whose pages report errors; on a desktop, without motion, unless the options differ."""
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
    context.set_default_timeout(60_000)  # a machine that runs all tests at once is slow
    context.on("page", errors.attach)
    try:
        yield context
    finally:
        context.close()


@dataclass(frozen=True, kw_only=True)
class Site:
    """A served page."""

    base: str
    """Its address."""
    proxy: RecordingProxy | None = None
    """Proxy between server and node."""


@dataclass(kw_only=True)
class PageErrors:
    """Collects console errors, page errors, dialogs and policy violations of a page."""

    messages: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    """Parts of messages that a test causes on purpose."""

    def attach(self, page: Page) -> None:
        """Watch a page."""
        page.on("console", self._record_message)
        page.on("pageerror", lambda error: self.messages.append(f"error: {error}"))
        page.on("dialog", self._dismiss_dialog)
        page.add_init_script(_WATCHED)

    def _record_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.messages.append(f"{message.type}: {message.text}")

    def _dismiss_dialog(self, dialog: Dialog) -> None:
        self.messages.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def get_unexpected(self) -> list[str]:
        """Return the unexpected messages."""
        return [message for message in self.messages if not any(part in message for part in self.allowed)]


def save_screenshot(page: Page, name: str) -> Path:
    """Save a screenshot, to look at after the tests."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.jpg"  # a fifth of the time that a PNG takes
    page.screenshot(path=path, quality=90, animations="disabled")
    return path
