"""Remove training images that occur in evaluation sets: identical bytes, or near-duplicates.

The fingerprint of an image is the hash of its bytes, a perceptual hash, and coarse colors. All pairs of hashes are compared,
which takes far less time than reading and decoding the images.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stair_es.errors import DecodeError, ReadError
from stair_es.optional import import_optional
from stair_es.sources.base import Locator
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.data.dataset import TrainingPair, TrainingSet, read_image_bytes
from stair_es.types import Floats, ImageSpec, PartProgressCallback, Pixels

HASH_BITS = 64
MAX_BITS = 8
"""Maximum number of differing bits of the perceptual hashes of duplicates.

For 40 photos, resizing or recompression changed 0 to 2 bits, a crop of 2 % at each side 4 on average and at most 8; the two most
similar different photos differ in 18.
"""
_MAX_COLOR_DIFFERENCE = 16.0
"""Maximum mean difference, of 255, of the 4 x 4 mean colors of duplicates."""
COLOR_BYTES = 4 * 4 * 3
_SPEC = ImageSpec(size_px=128)
_PREFETCH = 64
"""Images in flight."""
_REPORT_EVERY = 500
"""Images between two calls of the progress callback."""
_PAIRS_PER_BLOCK = 1 << 22
"""Pairs of hashes that are compared at once: 16 MB."""
_MAX_SAME_HASH = 500
"""Images with the same hash that are compared by color."""


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
    images: Iterable[TrainingPair], progress: Callable[[int], None] | None = None, workers: int = 1
) -> FingerprintTable:
    """Compute the fingerprints of a set's images; each takes some milliseconds.

    Returns:
        The fingerprints, and the reasons for unreadable images.

    Raises:
        MissingExtra: If ImageHash isn't installed.
    """
    import_optional("imagehash", "train")
    rows, unreadable, buffer = list[int](), dict[int, str](), bytearray()
    row = -1
    for row, fingerprint in enumerate(_iterate_fingerprints(images, workers)):
        if isinstance(fingerprint, str):
            unreadable[row] = fingerprint
        else:
            rows.append(row)
            buffer += fingerprint.sha256 + fingerprint.perceptual.to_bytes(8, "little") + fingerprint.colors
        if progress is not None and (row + 1) % _REPORT_EVERY == 0:
            progress(row + 1)
    if progress is not None:
        progress(row + 1)
    table = np.frombuffer(bytes(buffer), dtype=np.uint8).reshape(len(rows), 32 + 8 + COLOR_BYTES)
    return FingerprintTable(
        rows=np.asarray(rows, dtype=np.int64),
        sha256=np.ascontiguousarray(table[:, :32]).view("<u8"),
        perceptual=np.ascontiguousarray(table[:, 32:40]).view("<u8").reshape(-1),
        colors=np.ascontiguousarray(table[:, 40:]),
        unreadable=unreadable,
    )


def compute_image_fingerprint(data: bytes) -> ImageFingerprint:
    """Compute the fingerprint of an image file's bytes.

    Raises:
        DecodeError: If the bytes aren't an image.
    """
    decoded = decode_image(data, _SPEC, DecodeLimits())
    image = Image.fromarray(decoded.pixels_HWC).crop(decoded.box)
    bits = import_optional("imagehash", "train").phash(image).hash.reshape(-1)
    return ImageFingerprint(
        hashlib.sha256(data).digest(), int.from_bytes(np.packbits(bits).tobytes(), "big"), _compute_colors(image)
    )


def _compute_colors(image: Image.Image) -> bytes:
    small: Pixels = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    return small.tobytes()


def _hash_image(locator: Locator) -> ImageFingerprint | str:
    try:
        return compute_image_fingerprint(read_image_bytes(locator))
    except (ReadError, DecodeError) as error:
        return error.message


def _iterate_fingerprints(images: Iterable[TrainingPair], workers: int) -> Iterator[ImageFingerprint | str]:
    """Yield the results in order, with a bounded number of images in flight."""
    if workers == 1:
        yield from (_hash_image(image.locator) for image in images)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures = deque[Future[ImageFingerprint | str]]()
        for image in images:
            futures.append(pool.submit(_hash_image, image.locator))
            if len(futures) >= _PREFETCH:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()


@dataclass(frozen=True, kw_only=True)
class DuplicateMatch:
    """An image of one set that is also in another."""

    row: int
    other: int
    """Row of the nearest image in the other set."""
    bits: int
    """Number of differing bits of the perceptual hashes."""
    same_bytes: bool


def remove_duplicates(
    training: TrainingSet,
    references: Mapping[str, Iterable[TrainingPair]],
    *,
    progress: PartProgressCallback = lambda name, done, total: None,
    workers: int = 1,
) -> TrainingSet:
    """Return the training set without images of other sets, and without unreadable images.

    Args:
        training: Training set; removed pairs are added to its `problems`.
        references: Images of the other sets (validation, test) by name of the set.
        progress: Called with the name of the set being read, images done, and their number.
        workers: Threads that read and decode.

    Raises:
        MissingExtra: If ImageHash isn't installed.
    """
    fingerprints = compute_fingerprints(training, lambda done: progress("training", done, len(training)), workers)
    reasons = dict(fingerprints.unreadable)
    for name, images in references.items():
        pairs = list(images)
        reference_fingerprints = compute_fingerprints(pairs, partial(_report_progress, progress, name, len(pairs)), workers)
        for match in find_duplicates(fingerprints, reference_fingerprints):
            relation = "the same bytes as" if match.same_bytes else f"{match.bits} bits from"
            reasons.setdefault(match.row, f"in {name} too: {relation} {pairs[match.other].name}")
    return training.exclude_pairs(reasons)


def _report_progress(progress: PartProgressCallback, name: str, total: int, done: int) -> None:
    progress(name, done, total)


def find_duplicates(one: FingerprintTable, other: FingerprintTable) -> list[DuplicateMatch]:
    """Return the images of one table that are also in another, each with its nearest match, in order."""
    best: dict[int, tuple[int, int]] = {}
    for index, match in _match_bytes(one, other):
        best.setdefault(index, (-1, match))
    hashes, hash_of_index = np.unique(one.perceptual, return_inverse=True)
    other_hashes, hash_of_match = np.unique(other.perceptual, return_inverse=True)
    indices_by_hash = _group_members(hash_of_index, len(hashes))
    matches_by_hash = _group_members(hash_of_match, len(other_hashes))
    for left, right, bits in _find_near_hashes(hashes, other_hashes, MAX_BITS):
        candidates = _drop_same_colors(matches_by_hash(right), other.colors)
        for index in indices_by_hash(left):
            if best.get(int(index), (HASH_BITS + 1, 0))[0] <= bits:
                continue
            similar = candidates[_compare_colors(one.colors[index], other.colors[candidates], _MAX_COLOR_DIFFERENCE)]
            if len(similar):
                best[int(index)] = (bits, int(similar[0]))
    return [
        DuplicateMatch(row=int(one.rows[index]), other=int(other.rows[match]), bits=max(bits, 0), same_bytes=bits < 0)
        for index, (bits, match) in sorted(best.items())
    ]


def _match_bytes(one: FingerprintTable, other: FingerprintTable) -> Iterator[tuple[int, int]]:
    index_of_digest = dict[bytes, int]()
    for number, value in enumerate(other.sha256):
        index_of_digest.setdefault(value.tobytes(), number)
    for number, value in enumerate(one.sha256):
        if (match := index_of_digest.get(value.tobytes())) is not None:
            yield number, match


def _group_members(groups: NDArray[np.intp], count: int) -> Callable[[int], NDArray[np.intp]]:
    """Return a function from a group to the indices of its members, given the group of each index."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=count))
    return lambda group: order[ends[group - 1] if group else 0 : ends[group]]


def _find_near_hashes(one: NDArray[np.uint64], other: NDArray[np.uint64], max_bits: int) -> Iterator[tuple[int, int, int]]:
    """Yield the values that differ in at most `max_bits` bits: (index in `one`, index in `other`, bits)."""
    other_signs, rows = _unpack_signs(other), max(1, _PAIRS_PER_BLOCK // max(1, len(other)))
    for begin in range(0, len(one), rows):
        products = _unpack_signs(one[begin : begin + rows]) @ other_signs.T
        left, right = np.nonzero(products >= HASH_BITS - 2 * max_bits)
        bits = (HASH_BITS - products[left, right].astype(int)) // 2
        yield from zip((left + begin).tolist(), right.tolist(), bits.tolist(), strict=True)


def _unpack_signs(hashes_N: NDArray[np.uint64]) -> Floats:
    """Return the bits [N, 64] as -1 and 1, so that a dot product of two hashes is 64 minus twice the bits that differ."""
    bits = np.unpackbits(np.ascontiguousarray(hashes_N).view(np.uint8).reshape(-1, HASH_BITS // 8), axis=1)
    return bits.astype(np.float32) * 2 - 1


def _drop_same_colors(numbers: NDArray[np.intp], colors: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return images with the same perceptual hash, without those whose colors equal those of an earlier one.

    Blank images can occur by the ten thousand. Beyond `_MAX_SAME_HASH` images of different colors the rest is ignored.
    """
    if len(numbers) <= _MAX_SAME_HASH:
        return numbers
    first = np.unique(colors[numbers], axis=0, return_index=True)[1]
    return numbers[np.sort(first)[:_MAX_SAME_HASH]]


def _compare_colors(one: NDArray[np.uint8], others: NDArray[np.uint8], max_difference: float) -> NDArray[np.bool_]:
    difference: NDArray[np.float64] = np.abs(others.astype(np.int16) - one.astype(np.int16)).mean(axis=1)
    return difference <= max_difference
