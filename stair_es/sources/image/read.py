"""Read an image that a caller names or holds, as the pixels that an encoder requires."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from stair_es.errors import DecodeError, ReadError
from stair_es.sources.base import Locator, ReadLimits
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.http.urls import redact_web_url
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.io.resolve import resolve_image_reference
from stair_es.sources.io.uris import get_scheme, to_file_uri
from stair_es.types import ImageSpec, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

ImageLike: TypeAlias = "Path | str | bytes | PilImage"
"""An image file, an http(s) or `data:` URL, the bytes of a file, or an image of Pillow. A string is a URL or a path."""

_DATA = "data:"


def read_image(image: ImageLike, spec: ImageSpec, read_limits: ReadLimits | None = None) -> Pixels:
    """Return the upright pixels of an image on the square of an encoder (`pixels_HWC`), as `ingest` reads them.

    Addresses of URLs are checked as `read_limits.url_policy` says: by default, none leads into a private network.

    Raises:
        DecodeError: If it can't be read, is too large or is not an image; the message names it.
        MissingExtra: If it is a URL and the HTTP library is not installed.
    """
    limits = read_limits or ReadLimits()
    try:
        data = _read_bytes(image, limits) if isinstance(image, str | Path | bytes) else image
        return decode_image(data, spec, DecodeLimits(max_pixels=limits.max_pixels)).pixels_HWC
    except (ValueError, OSError) as error:  # a NUL character in a path, or a name that isn't Unicode
        raise DecodeError(f"{describe_image(image)}: not a path: {error}", code="not-an-image-reference") from error
    except (ReadError, DecodeError) as error:
        kind = type(error) if isinstance(error, DecodeError) else DecodeError
        raise kind(f"{describe_image(image)}: {error.message}", error.remedy, code=error.code) from error


def _read_bytes(image: str | Path | bytes, limits: ReadLimits) -> bytes:
    content = _locate(image).read(limits)
    return content.data if content else b""


def _locate(image: str | Path | bytes) -> Locator:
    if isinstance(image, bytes):
        return InlineBytes(image)
    if isinstance(image, str) and is_http_url(image):
        return UrlLocator(image)
    if isinstance(image, str) and image.startswith(_DATA):
        resolved = resolve_image_reference(image, "")
        if isinstance(resolved, str):
            raise DecodeError(resolved, code="not-an-image-reference")
        return resolved.locator
    is_uri = isinstance(image, str) and get_scheme(image) == "file"
    return FileLocator(str(image) if is_uri else to_file_uri(image))


def is_http_url(text: str) -> bool:
    """Check whether a string is an http(s) URL, not a path."""
    return get_scheme(text) in ("http", "https")


def describe_image(image: ImageLike) -> str:
    """Return a description of an image for messages, without the secrets of a URL."""
    if isinstance(image, bytes):
        return f"an image of {len(image):,} bytes"
    if isinstance(image, str) and is_http_url(image):
        return repr(redact_web_url(image))
    if isinstance(image, str) and image.startswith(_DATA):
        return f"an image of {len(image):,} characters"
    return repr(str(image)) if isinstance(image, str | Path) else f"an image of {image.width} x {image.height} pixels"
