"""Thumbnails in half blocks, for terminals with enough colors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.errors import DecodeError, MissingExtra
from stair_es.optional import import_optional

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_MIN_CELLS, _MAX_CELLS = 4, 40
_MARGIN = 2
_MAX_THUMBNAIL_PIXELS = 4_000_000
"""Larger thumbnails are not decoded: the index is untrusted."""


def can_show_thumbnails(console: Console) -> bool:
    """Return whether the console is a terminal with at least 256 colors and Unicode."""
    colors = console.color_system in ("256", "truecolor") and not console.no_color
    return console.is_terminal and colors and console.encoding.lower().startswith("utf")


def render_terminal_thumbnail(data: bytes, console: Console, *, required: bool) -> RenderableType | None:
    """Render a thumbnail, at most as wide as the console.

    Returns:
        The thumbnail, or None if the data is not an image or the console is too narrow.

    Raises:
        MissingExtra: If the user asked for it and rich-pixels isn't installed.
    """
    try:
        pixels = import_optional("rich_pixels", "terminal").Pixels
    except MissingExtra:
        if required:
            raise
        return None
    from PIL import Image
    from rich.padding import Padding

    from stair_es.sources.image.decode import DecodeLimits, decode_image
    from stair_es.types import ImageSpec

    cells = min(_MAX_CELLS, console.width - 2 * _MARGIN)
    if cells < _MIN_CELLS:
        return None
    try:
        decoded = decode_image(data, ImageSpec(size_px=cells), DecodeLimits(max_pixels=_MAX_THUMBNAIL_PIXELS))
    except DecodeError:
        return None
    left, upper, right, lower = decoded.box
    cropped = Image.fromarray(decoded.pixels_HWC[upper : max(lower, upper + 1), left : max(right, left + 1)])
    return Padding(pixels.from_image(cropped), (0, 0, 0, _MARGIN), expand=False)
