"""What pictures are known again by: the hash of their bytes, a perceptual hash, and a few coarse colours."""

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
"""How many pictures are done."""


class Pictured(Protocol):
    """What has a picture: an image of a caption set, a pair."""

    @property
    def name(self) -> str:
        """As its set has it."""

    @property
    def place(self) -> Place:
        """Where its bytes are."""


@dataclass(frozen=True)
class Fingerprint:
    """Of one picture."""

    sha256: bytes
    perceptual: int
    """64 bits of the lowest frequencies (pHash), of the picture without what pads it to a square."""
    colours: bytes
    """4 x 4 mean colours: red and blue hearts have the same perceptual hash."""


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """Of a set, in its order: `rows` says which of its pictures could be read."""

    rows: NDArray[np.int64]
    sha256: NDArray[np.uint64]
    """[pictures, 4]."""
    perceptual: NDArray[np.uint64]
    colours: NDArray[np.uint8]
    """[pictures, 48]."""
    unreadable: dict[int, str]
    """Row -> why."""

    def __len__(self) -> int:
        return len(self.rows)


def fingerprints(pictures: Iterable[Pictured], progress: Progress | None = None, workers: int = 1) -> Fingerprints:
    """Those of the pictures of a set; each takes some milliseconds, and what can't be read is told.

    Args:
        pictures: The set.
        progress: Is told now and then how many are done.
        workers: Threads that read and decode.

    Raises:
        MissingExtra: ImageHash isn't installed.
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
    """That of a file's bytes.

    Raises:
        DecodeError: They are no picture.
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
    """In the order of the pictures, only a few of them ahead."""
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
