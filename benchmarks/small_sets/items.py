"""One image with its captions and tags, and the picture files that it comes from."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DRAWN_PX = 128
"""Side of rendered pictures, between the small files of vendors (64) and the input of networks (224)."""
CUT = frozenset({"openclipart", "tuxpaint-drawing"})
"""Sources whose drawings are often small on a large empty page."""
CUT_PX = 256
MAX_PIXELS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line of a caption file, and the location of its picture."""

    image: str
    """Path below the output folder, always a PNG."""
    captions: tuple[str, ...]
    """The name, then a description for some clip art."""
    tags: tuple[str, ...]
    concept: str
    """Two items of any source show the same thing if this is equal."""
    group: str
    """Shared by concepts that must be on the same side of a split: "dog face" and "dog"."""
    source: str
    file: Path

    def to_json(self) -> str:
        """Return the item as a line of JSON, without the fields of the builder."""
        row = {
            "image": self.image,
            "captions": list(self.captions),
            "tags": list(self.tags),
            "concept": self.concept,
            "source": self.source,
        }
        return json.dumps(row, ensure_ascii=False) + "\n"


def render_picture(item: Item) -> bytes:
    """Return the picture as a PNG with alpha: PNG files of emoji and photographs unchanged, drawings cropped.

    Raises:
        OSError: If it is not an image.
        ValueError: If it is not an SVG, or larger than a drawing should be.
        SystemExit: If resvg-py isn't installed.
    """
    data = item.file.read_bytes()
    if item.file.suffix == ".svg":
        data = render_svg(data.decode("utf-8"), DRAWN_PX)
    with open_image(data) as image:
        image.load()
        is_cut = item.source in CUT
        if image.format == "PNG" and not is_cut:
            return data
        small = image.convert("RGBA")
    if is_cut:
        small = small.crop(small.getchannel("A").getbbox())
    side_px = CUT_PX if is_cut else DRAWN_PX
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Return the image, not decoded yet.

    Raises:
        OSError: If it is not an image.
        ValueError: If it is larger than a drawing should be.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} are more than {MAX_PIXELS} pixels")
    return image


def render_svg(svg: str, side_px: int) -> bytes:
    """Return the drawing as a PNG of that width.

    Raises:
        ValueError: If it isn't an SVG.
        SystemExit: If resvg-py isn't installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise SystemExit("some of the sources are SVG files: pip install resvg-py==0.5.0") from error
    # Without dpi a size in points is an error.
    drawn: bytes = resvg_py.svg_to_bytes(svg_string=svg, width=side_px, dpi=96.0, skip_system_fonts=True)
    return drawn
