"""Pillow's decoders: which are enabled, with their warnings disabled."""

from __future__ import annotations

import ctypes
import logging
import warnings
from typing import TYPE_CHECKING

from PIL import Image, _imaging

from stair_es.sources.image.bombs import ReadBudgetBytesIO

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")


def _disable_decoder_logs() -> None:
    """Disable the warnings of Pillow and libtiff about damaged files, thousands of lines: a `DecodeError` is enough."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    try:
        libtiff = ctypes.CDLL(_imaging.__file__)  # or a library linked with it
        for kind in ("Error", "Warning"):
            getattr(libtiff, f"TIFFSet{kind}Handler")(None)
    except (AttributeError, OSError):
        pass  # built without libtiff, or with its symbols hidden


_disable_decoder_logs()


def open_image(data: bytes) -> PilImage:
    """Open an image file of a known format without decoding its pixels.

    Raises:
        Exception: If the decoder fails; hostile bytes may raise anything.
    """
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit, checked before decoding
    return Image.open(ReadBudgetBytesIO(data), formats=IMAGE_FORMATS)
