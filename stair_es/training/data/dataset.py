"""Image-caption pairs to train on, from any number of caption sets, stored as bytes: a million take some hundred megabytes.

Unusable pairs are skipped and counted by reason.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from stair_es.errors import DatasetError
from stair_es.eval.datasets.detect import get_image_folder, is_caption_folder, read_entries, read_sidecar_captions
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry
from stair_es.sources.base import Locator, ReadLimits
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.locator_registry import restore_locator

_MAX_EXAMPLES = 5
_MAX_TAGS = 4
DEFAULT_TAG_SHARE = 0.5
"""Fraction of captions followed by tags, for images with tags."""


@dataclass(frozen=True, kw_only=True)
class PairFile:
    """A caption set to train on."""

    path: Path
    """Any format that `stair-es evaluate` reads."""
    images: Path | None = None
    """Folder that image names are relative to; None for the set's own."""
    split: str | None = None
    """Split, for Karpathy's format: `train+restval`. None for `test`, so that the training split must be given."""


class TrainingPair(NamedTuple):
    """One image with its captions."""

    name: str
    """Name in its set, prefixed with the number of the set if there are several."""
    locator: Locator
    captions: tuple[str, ...]
    """Distinct captions, at least one."""
    tags: tuple[str, ...] = ()


class ProblemCounter:
    """Counts of skipped entries by reason, with the first examples."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.examples = defaultdict[str, list[str]](list)

    def add_problem(self, where: str, reason: str, count: int = 1) -> None:
        """Count a skipped entry. Reasons that differ only in numbers, or after the colon, are counted together.

        Args:
            where: Name of the entry; empty for several.
            reason: Why it is skipped.
            count: Number of entries.
        """
        kind = re.sub(r"\d+", "N", reason.partition(": ")[0])
        self.counts[kind] += count
        if len(self.examples[kind]) < _MAX_EXAMPLES:
            self.examples[kind].append(f"{where[:200]}: {reason[:300]}" if where else f"{count} {reason[:300]}")

    def add_entry(self, entry: InvalidEntry) -> None:
        """Count an entry that a set can't use."""
        self.add_problem(entry.where, f"{entry.reason}: {entry.detail}" if entry.detail else entry.reason, entry.count)

    def merge_json(self, value: Mapping[str, Any]) -> None:
        """Add the counts of another counter, as its `to_json` returned them."""
        self.counts.update(value["counts"])
        for kind, examples in value["examples"].items():
            self.examples[kind] = [*self.examples[kind], *examples][:_MAX_EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        """Return counts and examples."""
        return {"counts": dict(self.counts), "examples": dict(self.examples)}

    def format_lines(self) -> list[str]:
        """Return one line per reason, the most frequent first."""
        return [f"{count:,} left out: {kind} (first: {self.examples[kind][0]})" for kind, count in self.counts.most_common()]


class TrainingSet:
    """Pairs by number. Picklable and without a Python object per pair, so that forked workers share the memory."""

    def __init__(
        self, blob: NDArray[np.uint8], ends: NDArray[np.int64], rows: NDArray[np.int64], problems: ProblemCounter
    ) -> None:
        self._blob, self._ends, self._rows = blob, ends, rows
        self.problems = problems
        self.tag_share = DEFAULT_TAG_SHARE

    @classmethod
    def from_pairs(cls, pairs: Iterable[TrainingPair], problems: ProblemCounter | None = None) -> TrainingSet:
        """Build the set from pairs.

        Pairs with the same name are merged: in a batch, each would be a false negative of the other. Pairs whose image is only
        in memory, or whose texts aren't valid Unicode, are problems.
        """
        problems = problems if problems is not None else ProblemCounter()
        train_set, duplicates = cls._pack_pairs(pairs, problems)
        if not duplicates:
            return train_set
        return cls._pack_pairs((_merge_pairs(pair, duplicates.pop(pair.name, pair)) for pair in train_set), problems)[0]

    @classmethod
    def _pack_pairs(cls, pairs: Iterable[TrainingPair], problems: ProblemCounter) -> tuple[TrainingSet, dict[str, TrainingPair]]:
        """Return the set of the first pair of each name, and what later pairs of a name add."""
        blob, ends, seen, duplicates = bytearray(), array("q"), set[str](), dict[str, TrainingPair]()
        for each in pairs:
            pair = each._replace(name=each.name.encode("utf-8", "backslashreplace").decode())
            if pair.name in seen:
                duplicates[pair.name] = _merge_pairs(duplicates.get(pair.name), pair)
                continue
            packed = _serialize_pair(pair)
            if isinstance(packed, str):
                problems.add_problem(pair.name, packed)
                continue
            seen.add(pair.name)
            blob += packed
            ends.append(len(blob))
        rows = np.arange(len(ends), dtype=np.int64)
        return cls(np.frombuffer(blob, dtype=np.uint8), np.frombuffer(ends, dtype=np.int64), rows, problems), duplicates

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> TrainingPair:
        row = int(self._rows[number])
        begin = int(self._ends[row - 1]) if row else 0
        name, locator, captions, tags = orjson.loads(self._blob[begin : int(self._ends[row])].tobytes())
        return TrainingPair(
            name, FileLocator(locator) if isinstance(locator, str) else restore_locator(locator), tuple(captions), tuple(tags)
        )

    def __iter__(self) -> Iterator[TrainingPair]:
        return (self[number] for number in range(len(self)))

    def sample_caption(self, number: int, rng: np.random.Generator) -> str:
        """Return a random caption of a pair, with tags for a fraction of `tag_share`."""
        return sample_caption(self[number], rng, self.tag_share)

    @property
    def nbytes(self) -> int:
        """Memory used by the set, in bytes."""
        return int(self._blob.nbytes + self._ends.nbytes + self._rows.nbytes)

    def select_pairs(self, numbers: Sequence[int] | NDArray[np.int64]) -> TrainingSet:
        """Return the set of the given pairs, in this order; the bytes are shared."""
        subset = TrainingSet(self._blob, self._ends, self._rows[np.asarray(numbers, dtype=np.int64)], self.problems)
        subset.tag_share = self.tag_share
        return subset

    def exclude_pairs(self, reasons: Mapping[int, str]) -> TrainingSet:
        """Return the set without some pairs (number -> reason), which are added to the problems."""
        kept = np.ones(len(self), dtype=bool)
        for number, reason in reasons.items():
            kept[number] = False
            self.problems.add_problem(self[number].name, reason)
        return self.select_pairs(np.flatnonzero(kept))


AddCaptions: TypeAlias = Callable[[Iterable[TrainingPair], ProblemCounter], Iterator[TrainingPair]]
"""Pairs, some without a caption, and where problems go -> pairs with captions, in order."""


def read_pairs(files: Sequence[PairFile], add_captions: AddCaptions | None = None) -> TrainingSet:
    """Read the pairs of caption sets, in order; consecutive entries of an image are merged.

    Args:
        files: The caption sets.
        add_captions: Adds captions to images without any, which are problems otherwise; a set may then be a folder of images.

    Raises:
        UsageError: If a set is missing, isn't a caption set, or has no pair.
        MissingExtra: If a library for its format isn't installed.
        SourceError: If captions can't be added.
    """
    problems = ProblemCounter()
    return TrainingSet.from_pairs(_iterate_pairs(files, problems, add_captions), problems)


def sample_caption(pair: TrainingPair | CaptionEntry, rng: np.random.Generator, tag_share: float = DEFAULT_TAG_SHARE) -> str:
    """Return a random caption, a fraction of `tag_share` followed by one to four tags: `caption, tag, tag`.

    The number of random draws depends only on the number of captions and tags, so a run can be repeated.
    """
    text = pair.captions[int(rng.integers(len(pair.captions)))]
    if not pair.tags:
        return text
    with_tags, count = rng.random() < tag_share, int(rng.integers(1, _MAX_TAGS + 1))
    order = rng.permutation(len(pair.tags))
    return ", ".join((text, *(pair.tags[int(each)] for each in order[:count]))) if with_tags else text


def read_image_bytes(locator: Locator) -> bytes:
    """Read the bytes of an image.

    Raises:
        ReadError: If the image can't be read.
    """
    result = locator.read(ReadLimits())
    return result.data if result else b""


def _iterate_pairs(
    files: Sequence[PairFile], problems: ProblemCounter, add_captions: AddCaptions | None
) -> Iterator[TrainingPair]:
    for number, file in enumerate(files, 1):
        empty = True
        prefix = f"{number}/" if len(files) > 1 else ""
        pairs = _read_pair_file(file, problems, may_lack_captions=add_captions is not None)
        for pair in pairs if add_captions is None else add_captions(pairs, problems):
            empty = False
            yield pair._replace(name=prefix + pair.name)
        if empty:
            first = next((example for examples in problems.examples.values() for example in examples), "")
            remedy = "Specify the folder that its images are in; docs/evaluate.md shows what a caption set looks like."
            raise DatasetError(f"no image with a caption in {file.path}{': ' if first else ''}{first}", remedy)


def _read_pair_file(file: PairFile, problems: ProblemCounter, *, may_lack_captions: bool) -> Iterator[TrainingPair]:
    has_none = may_lack_captions and file.path.is_dir() and not is_caption_folder(file.path)
    entries = read_sidecar_captions(file.path) if has_none else read_entries(file.path, file.split)[1]
    folder = str(file.images or get_image_folder(file.path))
    for entry in _merge_runs(entries, problems):
        locator = entry.find_image(folder)
        if locator is None:
            problems.add_problem(entry.name, f"no such file in {folder}")
        elif not entry.captions and not may_lack_captions:
            problems.add_problem(entry.name, "no caption")
        else:
            yield TrainingPair(entry.name, locator, tuple(dict.fromkeys(entry.captions)), entry.tags)


def _merge_runs(entries: Iterable[CaptionEntry | InvalidEntry], problems: ProblemCounter) -> Iterator[CaptionEntry]:
    """Yield the entries; consecutive entries of the same image are merged."""
    last: CaptionEntry | None = None
    for entry in entries:
        if isinstance(entry, InvalidEntry):
            problems.add_entry(entry)
        elif last is not None and last.name == entry.name:
            last = last.merge_with(entry)
        else:
            if last is not None:
                yield last
            last = entry
    if last is not None:
        yield last


def _merge_pairs(merged: TrainingPair | None, pair: TrainingPair) -> TrainingPair:
    """Merge two pairs of the same image."""
    if merged is None:
        return pair
    captions, tags = dict.fromkeys((*merged.captions, *pair.captions)), dict.fromkeys((*merged.tags, *pair.tags))
    return pair._replace(locator=merged.locator, captions=tuple(captions), tags=tuple(tags))


def _serialize_pair(pair: TrainingPair) -> bytes | str:
    """Return a pair as JSON, or the reason why it can't be serialized."""
    locator = pair.locator.uri if isinstance(pair.locator, FileLocator) else pair.locator.to_json()
    if locator is None:
        return "its bytes are only in memory, and can't be read again"
    try:
        return orjson.dumps((pair.name, locator, pair.captions, pair.tags))
    except (orjson.JSONEncodeError, TypeError):
        return "a text isn't valid Unicode"
