"""Images for the page: thumbnails and originals, decoded and encoded again, so that no untrusted bytes are served."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from cachetools import TTLCache
from PIL import Image

from stair_es.cluster.client.cluster import Cluster
from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.errors import DecodeError
from stair_es.inspection.stored_document import get_stored_fields, parse_thumbnail
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.pages import render_numbered_page
from stair_es.sources.image.pillow import open_image
from stair_es.sources.io.uris import split_page_uri
from stair_es.types import ImageSpec
from stair_es.web.config import ServerConfig
from stair_es.web.errors import build_not_found
from stair_es.web.limits import ConcurrencyLimiter
from stair_es.web.originals import Download, open_download
from stair_es.web.search.serializers import LARGE_THUMBNAIL_PX

DRAWN_THUMBNAIL_PX = THUMBNAIL_PX
"""Longer side of the thumbnails that are sent, in pixels; smaller ones stay as they are."""
ORIGINAL_PX = 1600
_STORED_LIMITS = DecodeLimits(max_pixels=1_000_000)
"""Limits for the thumbnail in a document; ingest writes at most 512 x 512 pixels."""


class ThumbnailService:
    """Service for thumbnails and originals, with a cache."""

    def __init__(self, config: ServerConfig, cluster: Cluster, limiter: ConcurrencyLimiter) -> None:
        self._config, self._cluster, self._limiter = config, cluster, limiter
        self._roots, self._limits = config.roots, config.limits
        self.cache = ImageCache(config.limits.cache_bytes)

    def get_thumbnail(self, id_: str, version: str, *, large: bool = False) -> tuple[ServedFile, bool]:
        """Get the thumbnail of an image; also tell whether it has the version (fingerprint) of its URL, so that it never changes.

        A `large` one has `LARGE_THUMBNAIL_PX`, if the original may be shown.
        """
        cached = self.cache.get((id_, version, large)) if version else None
        self._config.hooks.count_thumbnail(cached=cached is not None)
        if cached is not None:
            return cached, True
        source = self._fetch_fields(id_)
        stored = source.get("fingerprint")
        fingerprint = stored if isinstance(stored, str) else ""
        uri = source.get("uri")
        if large and isinstance(uri, str) and self._roots.contains(uri):
            image = self._render_original(id_, uri, LARGE_THUMBNAIL_PX)
        else:
            large = False
            image = self._render_stored(source.get("thumbnail")) or self._render_original(id_, uri, DRAWN_THUMBNAIL_PX)
        if fingerprint:
            self.cache.put((id_, fingerprint, large), image)
        return image, bool(version) and version == fingerprint

    def get_original(self, id_: str) -> ServedFile:
        """Get the original of an image, rendered for the page."""
        if not self._roots:
            raise build_not_found(id_)
        return self._render_original(id_, self._fetch_fields(id_).get("uri"), ORIGINAL_PX)

    def open_original(self, id_: str) -> Download:
        """Open the file of an image for a download.

        Raises:
            RequestRejected: If there is none, or where it was taken can't be removed.
        """
        uri = self._fetch_fields(id_).get("uri") if self._roots else None
        if isinstance(uri, str):
            with self._limiter():
                download = open_download(self._roots, uri, self._limits.original_bytes, self._limits.decode_limits.max_pixels)
            if download is not None:
                return download
        raise build_not_found(id_)

    def _render_stored(self, value: object) -> ServedFile | None:
        thumbnail = parse_thumbnail(value)
        try:
            return render_image(thumbnail.data, DRAWN_THUMBNAIL_PX, "WEBP", _STORED_LIMITS) if thumbnail else None
        except DecodeError:
            return None

    def _render_original(self, id_: str, uri: object, side_px: int) -> ServedFile:
        if not self._roots or not isinstance(uri, str):
            raise build_not_found(id_)
        with self._limiter():
            original = self._roots.read(uri, self._limits.original_bytes)
            if original is None:
                raise build_not_found(id_)
            page = split_page_uri(uri)[1]
            cached = self.cache.get((side_px, original.key, page))
            if cached is not None:
                return cached
            try:
                limits = self._limits.decode_limits
                data = original.data if page is None else render_numbered_page(original.data, page, limits.max_pixels)
                rendered = render_image(data, side_px, "JPEG" if side_px == ORIGINAL_PX else "WEBP", limits)
            except DecodeError:
                raise build_not_found(id_) from None
        return self.cache.put((side_px, original.key, page), rendered)

    def _fetch_fields(self, id_: str) -> dict[str, Any]:
        source = get_stored_fields(self._cluster, self._config.index, id_, ["thumbnail", "fingerprint", "uri"])
        if source is None:
            raise build_not_found(id_)
        return source


ImageFormat = Literal["WEBP", "JPEG"]
_ENTRY_OVERHEAD_BYTES = 200
"""Approximate size of a cache entry in addition to its data, in bytes."""


@dataclass(frozen=True, kw_only=True)
class ServedFile:
    """The content of an image or of a file of the page, ready to be served."""

    data: bytes
    media_type: str
    etag: str
    """Weak if the same content is sent with and without compression."""


def render_image(data: bytes, side_px: int, image_format: ImageFormat, limits: DecodeLimits) -> ServedFile:
    """Render the upright image in `data`, without metadata."""
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
    etag = f'"{hashlib.sha256(encoded).hexdigest()[:32]}"'
    return ServedFile(data=encoded, media_type=f"image/{image_format.lower()}", etag=etag)


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
        """Create an empty cache; an image that was removed from the index is shown for `ttl_s` seconds."""
        self._images: TTLCache[Hashable, ServedFile] = TTLCache(
            max_bytes, ttl=ttl_s, getsizeof=lambda image: len(image.data) + _ENTRY_OVERHEAD_BYTES
        )
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> ServedFile | None:
        """Get an image; None if it is not cached."""
        with self._lock:
            return self._images.get(key)

    def put(self, key: Hashable, image: ServedFile) -> ServedFile:
        """Put an image into the cache, unless it is larger than the cache; return it."""
        with self._lock:
            if len(image.data) + _ENTRY_OVERHEAD_BYTES <= self._images.maxsize:
                self._images[key] = image
        return image
