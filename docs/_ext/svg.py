"""SVG elements for the figures of the documentation, self-contained and with colors for light and dark pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

_STYLE = """
:root { --ink: #211d18; --soft: #625a4e; --line: #cfc6b6; --sheet: #f6f3ec; --accent: #a5381c; --bar: #d99a83; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ece6da; --soft: #aca393; --line: #4a453d; --sheet: #24211d; --accent: #f0906f; --bar: #8f4a35; }
}
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; fill: var(--ink); }
.soft { fill: var(--soft); font-size: 12.5px; }
.strong { font-weight: 600; }
.accent { fill: var(--accent); }
.bar { fill: var(--bar); }
.box { fill: var(--sheet); stroke: var(--line); }
.line { stroke: var(--soft); fill: none; stroke-width: 1.3; }
.thin { stroke: var(--line); fill: none; }
.dashed { stroke-dasharray: 4 4; }
.head { fill: var(--soft); }
"""
_HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker>'
)

Anchor = Literal["start", "middle", "end"]


def build_svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Return the whole file; a screen reader reads `title` aloud."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<defs>{_HEAD}</defs>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def draw_text(x: float, y: float, words: str, kind: str = "", anchor: Anchor = "start") -> str:
    """Return a line of text with its baseline at `y`."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def draw_rect(x: float, y: float, width: float, height: float, kind: str = "box", radius: float = 6) -> str:
    """Return a rectangle: a box or a bar."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.5g}" height="{height:g}" rx="{radius:g}" class="{kind}"/>'


def draw_box(x: float, y: float, width: float, height: float, *lines: str, kind: str = "box") -> str:
    """Return a box with centered lines, the first one in bold."""
    top = y + height / 2 + 5 - 9 * (len(lines) - 1)
    shown = [draw_text(x + width / 2, top + 18 * i, line, "soft" if i else "strong", "middle") for i, line in enumerate(lines)]
    return draw_rect(x, y, width, height, kind) + "".join(shown)


def draw_arrow(path: str, kind: str = "line") -> str:
    """Return a line with an arrowhead at its end."""
    return f'<path d="{path}" class="{kind}" marker-end="url(#head)"/>'


def draw_photo(x: float, y: float, width: int, height: int, file: Path) -> str:
    """Return a photo cropped to this size and embedded, because an SVG shown as an image can't load another file."""
    with Image.open(file) as opened:
        cut = ImageOps.fit(ImageOps.exif_transpose(opened).convert("RGB"), (2 * width, 2 * height))
    made = io.BytesIO()
    cut.save(made, "JPEG", quality=72, optimize=True)
    data = base64.b64encode(made.getvalue()).decode("ascii")
    return f'<image x="{x:g}" y="{y:g}" width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'
