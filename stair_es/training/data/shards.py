"""Pairs in webdataset shards, read as streams: the order of shards and samples, and the places where readers are in them.

A set of shards may be far larger than memory and is never listed. Each reader takes its share of the shards of an epoch, in
random order, and reads one after the other from begin to end. It shuffles the samples in windows. So a place in the stream is
four numbers, from which reading continues with exactly the samples that would have followed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from stair_es.errors import ConfigError, DatasetError, SourceError, UsageError
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry
from stair_es.eval.datasets.tabular import ALL_COLUMNS, read_source_entries
from stair_es.sources.base import ListingFailure
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.open_file import create_file_lister
from stair_es.sources.io.remote import strip_credentials
from stair_es.sources.io.uris import TAR_SUFFIXES, get_scheme, has_source_suffix
from stair_es.sources.kinds.webdataset import WebdatasetSource, expand_braces
from stair_es.training.config.schema import DatasetConfig
from stair_es.training.config.train_config import TrainConfig

_SHARDS, _WINDOWS = 11, 12
"""Streams of random numbers, apart from those of `collate`."""
_MAX_EMPTY_SHARDS = 20
"""Shards in a row without a sample, before a reader gives up: a few may be missing, and a reader may have few."""
_GLOB_MAGIC = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """The shards of one training set."""

    shards: tuple[str, ...]
    """Paths or URLs."""
    weight: float
    """Share of the samples that come from it, relative to the other sources."""


class ShardPosition(NamedTuple):
    """A place in a reader's stream of samples."""

    epoch: int = 0
    shard: int = 0
    """Number in the reader's order of the epoch."""
    begin: int = 0
    """Entries of the shard before the current window."""
    taken: int = 0
    """Samples of the window that were taken."""


class ShardSample(NamedTuple):
    """A sample, and the place after it."""

    entry: CaptionEntry
    position: ShardPosition


@dataclass(frozen=True, kw_only=True)
class ShardStream:
    """The share of a source's shards that one reader reads, epoch after epoch."""

    source: ShardSource
    seed: int
    reader: int
    """Number of the reader among those of all workers."""
    readers: int
    window: int
    """Samples that are shuffled together."""

    def iterate_samples(self, position: ShardPosition) -> Iterator[ShardSample | InvalidEntry]:
        """Yield the samples from a place on, without end, and the entries that can't be used.

        The unusable entries of a window come before its samples; they are left out if some of its samples were taken before.

        Raises:
            SourceError: If many shards in a row have no sample.
        """
        empty_shards = 0
        while True:
            for number, shard in enumerate(self._order_shards(position.epoch)[position.shard :], position.shard):
                begin = position if number == position.shard else ShardPosition(position.epoch, number)
                is_empty, problem = not begin.begin, InvalidEntry(strip_credentials(self.source.shards[shard]), "no sample")
                for each in self._read_shard(shard, begin):
                    if isinstance(each, InvalidEntry):
                        problem = each
                    else:
                        is_empty = False
                    yield each
                empty_shards = empty_shards + 1 if is_empty else 0
                if empty_shards == _MAX_EMPTY_SHARDS:
                    raise SourceError(
                        f"{empty_shards} shards in a row have no sample that can be read, the last one: {problem}",
                        "Check the paths, and that the tars have images with captions (a.jpg with a.txt or a.json).",
                        code="shards-unreadable",
                    )
            position = ShardPosition(position.epoch + 1)

    def _order_shards(self, epoch: int) -> list[int]:
        """Return the numbers of this reader's shards in their order of an epoch."""
        order = np.random.default_rng((self.seed, _SHARDS, epoch)).permutation(len(self.source.shards))
        return [int(shard) for shard in order[self.reader :: self.readers]]

    def _read_shard(self, shard: int, position: ShardPosition) -> Iterator[ShardSample | InvalidEntry]:
        """Yield the samples of a shard from a place on."""
        entries = _read_entries(self.source.shards[shard])
        begin, taken = position.begin, position.taken
        for _ in islice(entries, begin):
            pass
        while window := list[CaptionEntry | InvalidEntry | None](islice(entries, self.window)):
            usable = [index for index, each in enumerate(window) if isinstance(each, CaptionEntry)]
            if not taken:
                yield from (each for each in window if isinstance(each, InvalidEntry))
            order = np.random.default_rng((self.seed, _WINDOWS, position.epoch, shard, begin)).permutation(usable)
            for index in order[:taken].tolist():
                window[index] = None
            for count, index in enumerate(order[taken:].tolist(), taken + 1):
                entry, window[index] = window[index], None  # frees each image as soon as it is taken
                assert isinstance(entry, CaptionEntry)
                yield ShardSample(entry, position._replace(begin=begin, taken=count))
                del entry
            begin, taken = begin + len(window), 0


def _read_entries(shard: str) -> Iterator[CaptionEntry | InvalidEntry]:
    """Yield the entries of a shard, which have the bytes of their images. A shard that can't be read is one unusable entry."""
    try:
        for entry in read_source_entries(WebdatasetSource([shard], shard, ALL_COLUMNS, stream=True)):
            if isinstance(entry, CaptionEntry) and not entry.captions:
                yield InvalidEntry(entry.name, "no caption")
            else:
                yield entry
    except UsageError as error:  # nothing there
        yield InvalidEntry(strip_credentials(shard), "the shard can't be read", error.message)


def compute_hash(text: str) -> int:
    """Return 63 bits of a hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def build_shard_sources(config: TrainConfig) -> tuple[ShardSource, ...]:
    """Return the shards of a configuration; none if its training sets are caption sets.

    Names with braces are expanded without looking whether they exist. Folders and globs are listed.

    Raises:
        UsageError: If nothing matches, or braces can't be expanded.
        SourceError: If a folder can't be listed.
    """
    return tuple(_build_source(config, each) for each in config.data.train if each.shards is not None)


def _build_source(config: TrainConfig, dataset: DatasetConfig) -> ShardSource:
    patterns = (dataset.shards,) if isinstance(dataset.shards, str) else dataset.shards or ()
    names = [name for pattern in patterns for name in _expand_pattern(config, pattern)]
    if not names:
        raise DatasetError(
            f"no shard matches {', '.join(map(strip_credentials, patterns))}",
            "Give tars: shards = 's3://bucket/{00000..09999}.tar'.",
        )
    return ShardSource(shards=tuple(names), weight=float(len(names)) if dataset.weight is None else dataset.weight)


def _expand_pattern(config: TrainConfig, pattern: str) -> Iterator[str]:
    for name in expand_braces(pattern):
        shard = name if get_scheme(name) else str(config.resolve_path(name))
        if has_source_suffix(shard, TAR_SUFFIXES) and not _GLOB_MAGIC & set(shard):
            yield shard
            continue
        files = create_file_lister(shard, TAR_SUFFIXES).list_files()
        for file in sorted(files, key=lambda each: each.uri):
            if isinstance(file, ListingFailure):
                raise SourceError(f"{file.uri} can't be listed: {file.reason}", "Check the path.", code="listing-failed")
            secret = file.locator.secret_url if isinstance(file.locator, ObjectLocator) else None
            yield secret or file.uri


def count_readers(sources: Sequence[ShardSource], readers: int, workers: int, pairs_per_worker: int) -> int:
    """Return the number of reader processes of a worker: at most one for each shard of a source and each pair of a batch.

    Raises:
        UsageError: If there are fewer shards than workers.
    """
    fewest = min(len(source.shards) for source in sources)
    if fewest < workers:
        raise ConfigError(
            f"a training set of {fewest} shards can't be shared by {workers} workers", "Use fewer workers, or split the tars."
        )
    return max(1, min(readers, fewest // workers, pairs_per_worker))
