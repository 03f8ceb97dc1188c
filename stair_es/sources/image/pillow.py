"""Pillow's decoders: which are enabled, and how far its limit of pixels applies."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from stair_es.config.defaults import MAX_PIXELS
from stair_es.errors import DecodeError, DecompressionBomb
from stair_es.sources.image.bombs import ReadBudgetBytesIO, check_decompression_bomb
from stair_es.sources.image.exif import find_exif_block
from stair_es.sources.image.isolated import find_isolated_format, open_isolated
from stair_es.sources.image.raw import read_raw

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")


class _PixelAllowance:
    """Pillow's limit of pixels, raised for the images that need it.

    It is one variable of the process, and nothing but that variable raises the limit for some steps of decoding. So it is left
    alone for images within it, which are nearly all, and for a larger one that our own limit allows it is raised while that image
    is decoded. The last of several such images, in any thread, restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before: int | None = None

    @contextmanager
    def allow(self, pixels: int) -> Iterator[None]:
        with self._lock:
            limit = self._before if self._count else Image.MAX_IMAGE_PIXELS
            is_needed = limit is not None and pixels > limit
            if is_needed:
                self._before, self._count = limit, self._count + 1
                Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            if is_needed:
                with self._lock:
                    self._count -= 1
                    if not self._count:
                        Image.MAX_IMAGE_PIXELS = self._before


_allowance = _PixelAllowance()


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, *, is_isolated_allowed: bool = True) -> PilImage:
    """Open an image file of a known format; of a RAW file, the picture in it. The caller checks its size.

    Pixels aren't decoded, except those of `ISOLATED_FORMATS`, whose headers no process but their own reads.

    `PIL.Image.open` would apply Pillow's own limit, which belongs to the whole process, so the decoders are called directly.
    `max_pixels` is for decoders that need memory for all pixels to open an image.

    Raises:
        DecodeError: If such a decoder refuses the size, decoding takes far more time or memory than the pixels suggest, or the
            format isn't installed or isn't allowed.
        UnidentifiedImageError: If it has no known format.
        Exception: If the decoder fails; hostile bytes may raise anything.
    """
    if isolated := find_isolated_format(data):
        if is_isolated_allowed:
            return open_isolated(data, isolated, max_pixels)
        raise DecodeError(f"{isolated.name} isn't accepted here: convert it to JPEG or PNG", code="format-not-accepted")
    if (raw := read_raw(data)) is None:
        return _open_plain(data, max_pixels)
    if not raw.preview:
        raise DecodeError(f"a RAW file ({raw.format}) without a picture that its camera has made", code="no-raw-preview")
    image = _open_plain(raw.preview, max_pixels)
    image.format = raw.format
    if not find_exif_block(image.info):
        image.info["exif"] = raw.exif
    return image


def _open_plain(data: bytes, max_pixels: int) -> PilImage:
    check_decompression_bomb(data, max_pixels)
    try:
        return _open_with_decoders(data)
    except Image.DecompressionBombError as error:  # of WebP, whose decoder checks before it allocates
        if max_pixels <= 2 * (Image.MAX_IMAGE_PIXELS or 0):
            raise DecompressionBomb(f"decompression bomb? its pixels exceed the limit of {max_pixels}") from error
        with _allowance.allow(max_pixels):
            return _open_with_decoders(data)


def _open_with_decoders(data: bytes) -> PilImage:
    """Do what `PIL.Image.open` does, except for its check of the size."""
    if not Image.OPEN.keys() >= set(IMAGE_FORMATS):
        Image.init()
    for name in IMAGE_FORMATS:
        decoder, accepts = Image.OPEN.get(name, (None, None))
        accepted = decoder is not None and (accepts is None or accepts(data[:16]))
        if decoder is None or not accepted or isinstance(accepted, str):  # text: Pillow was built without it
            continue
        try:
            return decoder(ReadBudgetBytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # not a file of this format
            continue
    raise UnidentifiedImageError


def load_pixels(image: PilImage) -> None:
    """Decode the pixels of an image whose size was checked."""
    with _allowance.allow(image.width * image.height):
        image.load()
