"""Remove training images that occur in evaluation sets: identical bytes, or near-duplicates.

Perceptual hashes that differ in at most k of 64 bits agree in at least one of k + 1 bit ranges, so only hashes that share a
range are compared, through an index by range (Norouzi, Punjani, Fleet: Fast Search in Hamming Space with Multi-Index Hashing,
2012).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stair_es.errors import UsageError
from stair_es.training.data.dataset import TrainingSet
from stair_es.training.data.image_hash import HASH_BITS, FingerprintTable, LocatedImage, compute_fingerprints

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stair_es.types import PartProgressCallback

_PAIRS_PER_BATCH = 1 << 20
_MAX_SAME_HASH = 500
_BIT_COUNTS = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


class ImageCollection(Protocol):
    """A sized iterable of images."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[LocatedImage]: ...


@dataclass(frozen=True, kw_only=True)
class SimilarityThresholds:
    """Thresholds below which two images count as duplicates."""

    bits: int = 8
    """Maximum number of differing bits, of 64, of the perceptual hashes. For 40 photos, resizing or recompression changed 0 to 2
    bits, a crop of 2 % at each side 4 on average and at most 8; the two most similar different photos differ in 18.
    """
    color: float = 16.0
    """Maximum mean difference, of 255, of the 4 x 4 mean colors."""

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 16:
            raise UsageError(
                f"duplicates: bits can't be {self.bits}",
                "Give a whole number from 0 to 16. Higher values match unrelated images.",
            )
        if not 0 <= self.color <= 255:
            raise UsageError(f"duplicates: color can't be {self.color}", "Give a number from 0 to 255.")


@dataclass(frozen=True, kw_only=True)
class DuplicateMatch:
    """An image of one set that is also in another."""

    row: int
    other: int
    """Row of the nearest image in the other set."""
    bits: int
    """Number of differing bits of the perceptual hashes."""
    same_bytes: bool


@dataclass(frozen=True, kw_only=True)
class RemovedPair:
    """A training pair that was removed."""

    name: str
    found_in: str
    """Name of the other set."""
    other: str
    """Name of the image in that set."""
    bits: int
    same_bytes: bool

    def __str__(self) -> str:
        relation = "the same bytes as" if self.same_bytes else f"{self.bits} bits from"
        return f"{self.name}: {relation} {self.other} of {self.found_in}"


@dataclass(frozen=True, kw_only=True)
class DedupResult:
    """The training set without duplicates of other sets."""

    kept: TrainingSet
    removed: tuple[RemovedPair, ...]
    unreadable: Mapping[str, int]
    """Set name -> number of unreadable images. Those of the training set are removed; the others couldn't be compared."""


def remove_duplicates(
    training: TrainingSet,
    references: Mapping[str, ImageCollection],
    thresholds: SimilarityThresholds | None = None,
    *,
    progress: PartProgressCallback | None = None,
    workers: int = 1,
) -> DedupResult:
    """Return the training set without images of other sets, and without unreadable images.

    Args:
        training: Training set; removed pairs are added to its `problems`.
        references: Images of the other sets (validation, test) by name of the set.
        thresholds: What counts as a duplicate.
        progress: Called with the name of the set being read, images done, and their number.
        workers: Threads that read and decode.

    Raises:
        MissingExtra: If ImageHash isn't installed.
    """

    def report_progress(name: str, size: int) -> Callable[[int], None]:
        return lambda done: progress(name, done, size) if progress is not None else None

    fingerprints = compute_fingerprints(training, report_progress("training", len(training)), workers)
    unreadable = {"training": len(fingerprints.unreadable)} if fingerprints.unreadable else {}
    reasons, removed = dict(fingerprints.unreadable), dict[int, RemovedPair]()
    for name, images in references.items():
        names = [image.name for image in images]
        reference_fingerprints = compute_fingerprints(images, report_progress(name, len(names)), workers)
        if reference_fingerprints.unreadable:
            unreadable[name] = len(reference_fingerprints.unreadable)
        for match in find_duplicates(fingerprints, reference_fingerprints, thresholds):
            pair = RemovedPair(
                name=training[match.row].name,
                found_in=name,
                other=names[match.other],
                bits=match.bits,
                same_bytes=match.same_bytes,
            )
            removed.setdefault(match.row, pair)
            reasons.setdefault(match.row, f"in {name} too: {pair}")
    rows = sorted(removed)
    return DedupResult(kept=training.exclude_pairs(reasons), removed=tuple(removed[row] for row in rows), unreadable=unreadable)


def find_duplicates(
    one: FingerprintTable, other: FingerprintTable, thresholds: SimilarityThresholds | None = None
) -> list[DuplicateMatch]:
    """Return the images of one table that are also in another, each with its nearest match, in order.

    Args:
        one: Fingerprints of the images to look up.
        other: Fingerprints to search.
        thresholds: What counts as a duplicate.
    """
    limits = thresholds or SimilarityThresholds()
    best: dict[int, tuple[int, int]] = {}
    for index, match in _match_bytes(one, other):
        best.setdefault(index, (-1, match))
    hashes, hash_of_index = np.unique(one.perceptual, return_inverse=True)
    other_hashes, hash_of_match = np.unique(other.perceptual, return_inverse=True)
    indices_by_hash = _group_members(hash_of_index, len(hashes))
    matches_by_hash = _group_members(hash_of_match, len(other_hashes))
    for left, right, bits in _find_near_hashes(hashes, other_hashes, limits.bits):
        candidates = _drop_same_colors(matches_by_hash(right), other.colors)
        for index in indices_by_hash(left):
            if best.get(int(index), (HASH_BITS + 1, 0))[0] <= bits:
                continue
            similar = candidates[_compare_colors(one.colors[index], other.colors[candidates], limits.color)]
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
    """Yield the values that differ in at most `max_bits` bits: (index in `one`, index in `other`, bits); some more than once."""
    edges = [round(HASH_BITS * number / (max_bits + 1)) for number in range(max_bits + 2)]
    for begin, end in pairwise(edges):
        low, mask = np.uint64(begin), np.uint64((1 << (end - begin)) - 1)
        other_part = (other >> low) & mask
        order = np.argsort(other_part, kind="stable")
        part, other_part = (one >> low) & mask, other_part[order]
        first, last = np.searchsorted(other_part, part, "left"), np.searchsorted(other_part, part, "right")
        for left, right in _expand_ranges(first, last):
            bits = _count_differing_bits(one[left], other[order[right]])
            near = np.flatnonzero(bits <= max_bits)
            yield from zip(left[near].tolist(), order[right[near]].tolist(), bits[near].tolist(), strict=True)


def _expand_ranges(first: NDArray[np.intp], last: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield all pairs (index, element of its range from `first` to `last`), about `_PAIRS_PER_BATCH` per batch."""
    counts = last - first
    parts = np.cumsum(counts) // _PAIRS_PER_BATCH
    for part in np.unique(parts):
        numbers = np.flatnonzero((parts == part) & (counts > 0))
        lengths = counts[numbers]
        offsets = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield np.repeat(numbers, lengths), np.repeat(first[numbers], lengths) + offsets


def _count_differing_bits(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.int64]:
    octets = np.bitwise_xor(one, other).view(np.uint8).reshape(-1, 8)
    total: NDArray[np.int64] = _BIT_COUNTS[octets].sum(axis=1, dtype=np.int64)
    return total


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
