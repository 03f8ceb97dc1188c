"""Fingerprints of images: the hash of the bytes, a perceptual hash, and coarse colors."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from PIL import Image

from stair_es.errors import DecodeError, ReadError
from stair_es.extras import need
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.item import Place, Reading
from stair_es.types import ImageSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stair_es.types import Pixels

BITS = 64
COLOURS = 4 * 4 * 3
_SPEC = ImageSpec(size_px=128)
_AHEAD = 64
_EVERY = 500

Progress: TypeAlias = Callable[[int], None]
"""Number of images done."""


class Pictured(Protocol):
    """An item with an image: an image of a caption set, or a training pair."""

    @property
    def name(self) -> str:
        """Name in its set."""

    @property
    def place(self) -> Place:
        """Locator of the image's bytes."""


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one image."""

    sha256: bytes
    perceptual: int
    """64 bits of the lowest frequencies (pHash), of the image without its padding to a square."""
    colours: bytes
    """4 x 4 mean colors: a red and a blue heart have the same perceptual hash."""


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Fingerprints of a set, in order; `rows` are the positions of the readable images."""

    rows: NDArray[np.int64]
    sha256: NDArray[np.uint64]
    """[images, 4]."""
    perceptual: NDArray[np.uint64]
    colours: NDArray[np.uint8]
    """[images, 48]."""
    unreadable: dict[int, str]
    """Row -> reason."""

    def __len__(self) -> int:
        return len(self.rows)


def fingerprints(pictures: Iterable[Pictured], progress: Progress | None = None, workers: int = 1) -> Fingerprints:
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
    need("imagehash", "train")
    rows, unreadable, buffer = list[int](), dict[int, str](), bytearray()
    row = -1
    for row, found in enumerate(_each(pictures, workers)):
        if isinstance(found, str):
            unreadable[row] = found
        else:
            rows.append(row)
            buffer += found.sha256 + found.perceptual.to_bytes(8, "little") + found.colours
        if progress is not None and (row + 1) % _EVERY == 0:
            progress(row + 1)
    if progress is not None:
        progress(row + 1)
    whole = np.frombuffer(bytes(buffer), dtype=np.uint8).reshape(len(rows), 32 + 8 + COLOURS)
    return Fingerprints(
        rows=np.asarray(rows, dtype=np.int64),
        sha256=np.ascontiguousarray(whole[:, :32]).view("<u8"),
        perceptual=np.ascontiguousarray(whole[:, 32:40]).view("<u8").reshape(-1),
        colours=np.ascontiguousarray(whole[:, 40:]),
        unreadable=unreadable,
    )


def fingerprint(data: bytes) -> Fingerprint:
    """Compute the fingerprint of an image file's bytes.

    Raises:
        DecodeError: If the bytes aren't an image.
    """
    found = decode(data, _SPEC, DecodeLimits())
    picture = Image.fromarray(found.pixels_HWC).crop(found.box)
    bits = need("imagehash", "train").phash(picture).hash.reshape(-1)
    return Fingerprint(hashlib.sha256(data).digest(), int.from_bytes(np.packbits(bits).tobytes(), "big"), _colours(picture))


def _colours(picture: Image.Image) -> bytes:
    small: Pixels = np.asarray(picture.resize((4, 4), Image.Resampling.BOX))
    return small.tobytes()


def _of(place: Place) -> Fingerprint | str:
    try:
        read = place.read(Reading())
        return fingerprint(read.data if read else b"")
    except (ReadError, DecodeError) as error:
        return error.message


def _each(pictures: Iterable[Pictured], workers: int) -> Iterator[Fingerprint | str]:
    """Yield the results in order, with a bounded number of images in flight."""
    if workers == 1:
        yield from (_of(picture.place) for picture in pictures)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque[Future[Fingerprint | str]]()
        for picture in pictures:
            waiting.append(pool.submit(_of, picture.place))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
