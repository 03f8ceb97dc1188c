"""Render images for the page: they are decoded and encoded again, so that no untrusted bytes are served."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from cachetools import TTLCache
from PIL import Image

from stair_es.sources.image.bombs import check_decompression_bomb
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.pillow import open_image
from stair_es.types import ImageSpec

ImageFormat = Literal["WEBP", "JPEG"]
_ENTRY_OVERHEAD_BYTES = 200
"""Approximate size of a cache entry in addition to its data, in bytes."""


@dataclass(frozen=True, kw_only=True)
class RenderedImage:
    """An encoded image, ready to be served."""

    content_type: str
    data: bytes
    etag: str


def render_image(data: bytes, side_px: int, image_format: ImageFormat, limits: DecodeLimits) -> RenderedImage:
    """Render the upright image in `data`, without metadata.

    Raises:
        DecodeError: If it is not an image, or too large.
    """
    check_decompression_bomb(data, limits.max_pixels)
    side_px = min(side_px, _read_longer_side(data, limits) or side_px)
    decoded = decode_image(data, ImageSpec(size_px=side_px), limits)
    left, upper, right, lower = decoded.box
    buffer = io.BytesIO()
    image = Image.fromarray(decoded.pixels_HWC[upper:lower, left:right])
    if image_format == "JPEG":
        image.save(buffer, "JPEG", quality=85, optimize=False, progressive=True)
    else:
        image.save(buffer, "WEBP", quality=80, method=2)
    encoded = buffer.getvalue()
    return RenderedImage(
        content_type=f"image/{image_format.lower()}", data=encoded, etag=f'"{hashlib.sha256(encoded).hexdigest()[:32]}"'
    )


def _read_longer_side(data: bytes, limits: DecodeLimits) -> int:
    """Read the longer side from the file header; 0 if that fails, which `decode` reports better."""
    try:
        with open_image(data, limits.max_pixels) as image:
            return max(image.size)
    except Exception:  # noqa: BLE001  decoders raise anything on hostile bytes
        return 0


class ImageCache:
    """LRU cache of rendered images with a limit in bytes. Thread safe."""

    def __init__(self, max_bytes: int, ttl_s: float = 600.0) -> None:
        """Create an empty cache.

        Args:
            max_bytes: The maximum size, in bytes.
            ttl_s: The time to live, in seconds: an image that was removed from the index is shown that long.
        """
        self._images: TTLCache[Hashable, RenderedImage] = TTLCache(
            max_bytes, ttl=ttl_s, getsizeof=lambda image: len(image.data) + _ENTRY_OVERHEAD_BYTES
        )
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> RenderedImage | None:
        """Get an image; None if it is not cached."""
        with self._lock:
            return self._images.get(key)

    def put(self, key: Hashable, image: RenderedImage) -> RenderedImage:
        """Put an image into the cache, unless it is larger than the cache; return it."""
        with self._lock:
            if len(image.data) + _ENTRY_OVERHEAD_BYTES <= self._images.maxsize:
                self._images[key] = image
        return image

    @property
    def size_bytes(self) -> int:
        """Size of the cached images, in bytes."""
        return int(self._images.currsize)
