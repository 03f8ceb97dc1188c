"""Pictures for the page: decoded and drawn anew, so that what leaves here is pixels, never bytes that a stranger wrote."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from cachetools import TTLCache
from PIL import Image

from stair_es.sources.costs import check_cost
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.decoders import open_image
from stair_es.types import ImageSpec

Kind = Literal["WEBP", "JPEG"]
_OVERHEAD = 200
"""Bytes of an entry beside its pixels, about."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture as it goes out."""

    content_type: str
    data: bytes
    etag: str


def drawn(data: bytes, side_px: int, kind: Kind, limits: DecodeLimits) -> Picture:
    """The upright picture in `data`, at most `side_px` long, without any metadata.

    Raises:
        DecodeError: It is none, or too large.
    """
    check_cost(data, limits.max_pixels)
    side_px = min(side_px, _longer_side(data) or side_px)
    decoded = decode(data, ImageSpec(size_px=side_px), limits)
    left, upper, right, lower = decoded.box
    buffer = io.BytesIO()
    image = Image.fromarray(decoded.pixels_HWC[upper:lower, left:right])
    if kind == "JPEG":
        image.save(buffer, "JPEG", quality=85, optimize=False, progressive=True)
    else:
        image.save(buffer, "WEBP", quality=80, method=0)
    made = buffer.getvalue()
    return Picture(content_type=f"image/{kind.lower()}", data=made, etag=f'"{hashlib.sha256(made).hexdigest()[:32]}"')


def _longer_side(data: bytes) -> int:
    """As the file's head says; 0 where it can't be read, which `decode` will say better."""
    try:
        with open_image(data) as image:
            return max(image.size)
    except Exception:  # noqa: BLE001  whatever a decoder makes of hostile bytes
        return 0


class Album:
    """Pictures that lie ready: the last ones used, at most so many bytes. For several threads."""

    def __init__(self, max_bytes: int, lasting_s: float = 600.0) -> None:
        """An empty one.

        Args:
            max_bytes: What they may take.
            lasting_s: How long one stays at most: so long one is shown whose image was taken out of the index.
        """
        self._pictures: TTLCache[Hashable, Picture] = TTLCache(
            max_bytes, ttl=lasting_s, getsizeof=lambda picture: len(picture.data) + _OVERHEAD
        )
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Picture | None:
        """What lies there."""
        with self._lock:
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: Picture) -> Picture:
        """`picture`, which lies there from now on unless it is larger than the album."""
        with self._lock:
            if len(picture.data) + _OVERHEAD <= self._pictures.maxsize:
                self._pictures[key] = picture
        return picture

    @property
    def bytes(self) -> int:
        """What they take."""
        return int(self._pictures.currsize)
