"""The enricher `pixelate`: coarse blocks instead of the picture, in the input of the encoder and in the thumbnail.

It hides the whole picture. An enricher that hides faces needs one more step: find the rectangles first. The rest is the same:
replace everything that shows the picture, `pixels_HWC` and `thumbnail`. The original bytes are never stored in a document.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from stair_es.api import EnricherInput, Enrichment, UsageError

_GRAY_OF_RGB = (0.299, 0.587, 0.114)


class PixelateKind:
    """See `EnricherKind`."""

    api_version = 1
    name = "pixelate"
    description = "coarse blocks in place of the picture, its brightness as a field (option: blocks=N, by default 8)"

    def build(self, options: Mapping[str, str]) -> Pixelate:
        """Build the enricher, once in each process that uses it. An unknown option is an error."""
        unknown = set(options) - {"blocks"}
        blocks = options.get("blocks", "8")
        if unknown or not blocks.isdecimal() or not 1 <= int(blocks) <= 64:
            raise UsageError(f"enricher 'pixelate' can't be built from {dict(options)}", "Its option is blocks=N, from 1 to 64.")
        return Pixelate(int(blocks))


class Pixelate:
    """See `Enricher`."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    @property
    def version(self) -> str:
        """Return a version with everything that changes the result, options too: otherwise stored documents stay."""
        return f"1-blocks-{self._blocks}"

    def enrich(self, images: Sequence[EnricherInput]) -> list[Enrichment]:
        """Return one enrichment per image, in order. If this raises, stair-es tries each image alone."""
        return [self._enrich_image(image) for image in images]

    def _enrich_image(self, image: EnricherInput) -> Enrichment:
        left, top, right, bottom = image.box  # around it is background
        brightness = float(image.pixels_HWC[top:bottom, left:right].mean(axis=(0, 1)) @ _GRAY_OF_RGB) / 255
        square = Image.fromarray(image.pixels_HWC)
        square.paste(self._pixelate_picture(square.crop(image.box)), (left, top))
        return Enrichment(
            fields={"brightness": round(brightness, 3)},
            pixels_HWC=np.asarray(square),  # of the same shape and type
            thumbnail=self._pixelate_thumbnail(image.thumbnail) if image.thumbnail else None,
        )

    def _pixelate_thumbnail(self, data_uri: str) -> str:
        with Image.open(io.BytesIO(base64.b64decode(data_uri.partition(",")[2]))) as clear:
            blocky = self._pixelate_picture(clear.convert("RGB"))
        buffer = io.BytesIO()
        blocky.save(buffer, "WEBP", quality=60)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

    def _pixelate_picture(self, picture: Image.Image) -> Image.Image:
        blocks = (min(self._blocks, picture.width), min(self._blocks, picture.height))
        return picture.resize(blocks, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)


KIND = PixelateKind()
