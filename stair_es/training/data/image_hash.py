"""Fingerprints of images: the hash of the bytes, a perceptual hash, and coarse colors."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from stair_es.errors import DecodeError, ReadError
from stair_es.optional import import_optional
from stair_es.sources.base import Locator, ReadLimits
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stair_es.types import Pixels

HASH_BITS = 64
COLOR_BYTES = 4 * 4 * 3
_SPEC = ImageSpec(size_px=128)
_PREFETCH = 64
_REPORT_EVERY = 500


class LocatedImage(Protocol):
    """An item with an image: an image of a caption set, or a training pair."""

    @property
    def name(self) -> str:
        """Name in its set."""

    @property
    def locator(self) -> Locator:
        """Locator of the image's bytes."""


@dataclass(frozen=True)
class ImageFingerprint:
    """Fingerprint of one image."""

    sha256: bytes
    perceptual: int
    """64 bits of the lowest frequencies (pHash), of the image without its padding to a square."""
    colors: bytes
    """4 x 4 mean colors: a red and a blue heart have the same perceptual hash."""


@dataclass(frozen=True, kw_only=True)
class FingerprintTable:
    """Fingerprints of a set, in order; `rows` are the positions of the readable images."""

    rows: NDArray[np.int64]
    sha256: NDArray[np.uint64]
    """[images, 4]."""
    perceptual: NDArray[np.uint64]
    colors: NDArray[np.uint8]
    """[images, 48]."""
    unreadable: dict[int, str]
    """Row -> reason."""

    def __len__(self) -> int:
        return len(self.rows)


def compute_fingerprints(
    pictures: Iterable[LocatedImage], progress: Callable[[int], None] | None = None, workers: int = 1
) -> FingerprintTable:
    """Compute the fingerprints of a set's images; each takes some milliseconds.

    Args:
        pictures: Images of the set.
        progress: Called now and then with the number of images done.
        workers: Threads that read and decode.

    Returns:
        The fingerprints, and the reasons for unreadable images.

    Raises:
        MissingExtra: If ImageHash isn't installed.
    """
    import_optional("imagehash", "train")
    rows, unreadable, buffer = list[int](), dict[int, str](), bytearray()
    row = -1
    for row, found in enumerate(_iterate_fingerprints(pictures, workers)):
        if isinstance(found, str):
            unreadable[row] = found
        else:
            rows.append(row)
            buffer += found.sha256 + found.perceptual.to_bytes(8, "little") + found.colors
        if progress is not None and (row + 1) % _REPORT_EVERY == 0:
            progress(row + 1)
    if progress is not None:
        progress(row + 1)
    whole = np.frombuffer(bytes(buffer), dtype=np.uint8).reshape(len(rows), 32 + 8 + COLOR_BYTES)
    return FingerprintTable(
        rows=np.asarray(rows, dtype=np.int64),
        sha256=np.ascontiguousarray(whole[:, :32]).view("<u8"),
        perceptual=np.ascontiguousarray(whole[:, 32:40]).view("<u8").reshape(-1),
        colors=np.ascontiguousarray(whole[:, 40:]),
        unreadable=unreadable,
    )


def compute_image_fingerprint(data: bytes) -> ImageFingerprint:
    """Compute the fingerprint of an image file's bytes.

    Raises:
        DecodeError: If the bytes aren't an image.
    """
    found = decode_image(data, _SPEC, DecodeLimits())
    picture = Image.fromarray(found.pixels_HWC).crop(found.box)
    bits = import_optional("imagehash", "train").phash(picture).hash.reshape(-1)
    return ImageFingerprint(
        hashlib.sha256(data).digest(), int.from_bytes(np.packbits(bits).tobytes(), "big"), _compute_colors(picture)
    )


def _compute_colors(picture: Image.Image) -> bytes:
    small: Pixels = np.asarray(picture.resize((4, 4), Image.Resampling.BOX))
    return small.tobytes()


def _hash_image(place: Locator) -> ImageFingerprint | str:
    try:
        read = place.read(ReadLimits())
        return compute_image_fingerprint(read.data if read else b"")
    except (ReadError, DecodeError) as error:
        return error.message


def _iterate_fingerprints(pictures: Iterable[LocatedImage], workers: int) -> Iterator[ImageFingerprint | str]:
    """Yield the results in order, with a bounded number of images in flight."""
    if workers == 1:
        yield from (_hash_image(picture.locator) for picture in pictures)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque[Future[ImageFingerprint | str]]()
        for picture in pictures:
            waiting.append(pool.submit(_hash_image, picture.locator))
            if len(waiting) >= _PREFETCH:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
