"""Where a training gets its batches from: pairs that are listed in memory, or shards that processes read as streams."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from stair_es.errors import DecodeError, ReadError, SourceError, StairError
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry
from stair_es.system.decoder_logs import disable_decoder_logs
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data.collate import Collator, ImageLoader, TextLoader, make_caption_rng, make_image_rng
from stair_es.training.data.dataset import ProblemCounter, read_image_bytes, sample_caption
from stair_es.training.data.dense_features import add_noise
from stair_es.training.data.sampler import BatchSampler, SampleIndex, split_batch
from stair_es.training.data.shards import ShardPosition, ShardSample, ShardSource, ShardStream, compute_hash, count_readers
from stair_es.training.data.transforms import Augmentation, augment_image, get_augmentation
from stair_es.training.step import DeviceBatch
from stair_es.training.workers import WorkerGroup
from stair_es.types import ImageSpec, Pixels

_T = TypeVar("_T")
WorkerState: TypeAlias = Mapping[str, Any]
"""Where the readers of a worker are, and what they couldn't read: lists, dictionaries, texts and whole numbers."""
_PREFETCH = 2
_NOISE, _SOURCES = 4, 13
"""Streams of random numbers, apart from those of `collate` and `shards`."""
_MAX_UNUSABLE = 1000
"""Samples in a row that can't be used, before a reader gives up."""


class BatchSource(Protocol):
    """Endless batches of this worker."""

    def iterate_batches(self, begin: int) -> Iterator[DeviceBatch]:
        """Yield the batches from a number on, or those that follow the last one that was taken."""

    def get_state(self) -> WorkerState | None:
        """Return the place after the last batch that was taken; None if its number says it."""

    def restore_state(self, states: Sequence[WorkerState | None]) -> bool:
        """Continue from the saved states of all workers; False if they are those of another number of workers."""


@dataclass(frozen=True, kw_only=True)
class DistillationTeacher:
    """A dense model for the loss `distil`."""

    image_spec: ImageSpec
    encode: Callable[[Pixels, Sequence[str]], tuple[Tensor, Tensor]]
    """Pixels [B, H, W, C] and texts -> dense vectors of both."""


@dataclass(frozen=True, kw_only=True)
class PairBatches:
    """Batches of pairs that are listed in memory: a function of seed and number."""

    collator: Collator
    sampler: BatchSampler
    workers: WorkerGroup
    seed: int
    noise: float = 0.0
    is_taught_by_backbone: bool = False
    teacher: DistillationTeacher | None = None
    teacher_images: ImageLoader | None = None
    """Images as the teacher reads them."""

    def iterate_batches(self, begin: int) -> Iterator[DeviceBatch]:
        """Yield the batches from a number on."""
        return _prefetch(self._load_batch(samples) for samples in self.sampler.iterate_batches(begin))

    def get_state(self) -> None:
        """Return nothing: the number of a batch says what is in it."""

    def restore_state(self, states: Sequence[WorkerState | None]) -> bool:
        """Do nothing."""
        return True

    def _load_batch(self, samples: Sequence[SampleIndex]) -> DeviceBatch:
        worker_samples = split_batch(samples, self.workers.rank, self.workers.count)
        images, texts, captions, used_samples = self.collator.collate_batch(worker_samples)
        teacher = None
        if self.noise and texts.states_BLD is not None:
            rng = np.random.default_rng((self.seed, _NOISE, used_samples[0].item, used_samples[0].epoch))
            images = add_noise(images, self.noise, rng)
            texts = replace(texts, states_BLD=add_noise(texts.states_BLD, self.noise, rng))
        if self.is_taught_by_backbone and texts.states_BLD is not None:
            teacher = images[:, 0], texts.states_BLD[:, 0]
        if self.teacher is not None and self.teacher_images is not None:
            pixels, _ = self.teacher_images.load_batch(
                [sample.item for sample in used_samples], [sample.epoch for sample in used_samples]
            )
            teacher = self.teacher.encode(pixels.numpy(), captions)
        return DeviceBatch(images=images, texts=texts, teacher=teacher, caption_hashes_B=_hash_captions(captions))


class ReaderState(NamedTuple):
    """Where a reader is."""

    parts: int
    """Parts of batches that it has given."""
    positions: tuple[ShardPosition, ...]
    """Its place in each source."""


class BatchPart(NamedTuple):
    """What one reader adds to a batch."""

    pixels: tuple[Pixels, ...]
    """[P, H, W, C] for the model, and for the teacher if there is one."""
    captions: list[str]
    state: ReaderState
    """Where the reader is after it."""
    problems: list[InvalidEntry]


@dataclass(frozen=True, kw_only=True)
class ShardReader:
    """Reads its streams, decodes and augments: the work of one process."""

    streams: tuple[ShardStream, ...]
    """One per source."""
    weights: tuple[float, ...]
    """Probability of each source."""
    size: int
    """Pairs per part."""
    specs: tuple[ImageSpec, ...]
    augment: Augmentation
    seed: int
    tag_share: float

    def iterate_parts(self, state: ReaderState) -> Iterator[BatchPart]:
        """Yield the parts that follow a state, without end.

        Raises:
            SourceError: If hardly any sample can be used.
        """
        positions, parts = list(state.positions), state.parts
        samples = [stream.iterate_samples(place) for stream, place in zip(self.streams, positions, strict=True)]
        while True:
            rng = np.random.default_rng((self.seed, _SOURCES, self.streams[0].reader, parts))
            chosen = rng.choice(len(samples), self.size, p=self.weights)
            pairs, captions, problems = list[tuple[Pixels, ...]](), list[str](), list[InvalidEntry]()
            for source in chosen.tolist():
                pixels, caption, positions[source] = self._draw_pair(samples[source], problems)
                pairs.append(pixels)
                captions.append(caption)
            parts += 1
            stacked = tuple(np.stack(column) for column in zip(*pairs, strict=True))
            yield BatchPart(stacked, captions, ReaderState(parts, tuple(positions)), problems)

    def _draw_pair(
        self, samples: Iterator[ShardSample | InvalidEntry], problems: list[InvalidEntry]
    ) -> tuple[tuple[Pixels, ...], str, ShardPosition]:
        for _ in range(_MAX_UNUSABLE):
            each = next(samples)
            if isinstance(each, InvalidEntry):
                problems.append(each)
                continue
            try:
                return *self._read_pair(each.entry, each.position.epoch), each.position
            except (ReadError, DecodeError) as error:
                problems.append(InvalidEntry(each.entry.name, error.message))
        raise SourceError(
            f"{_MAX_UNUSABLE:,} samples in a row can't be used, the last one: {problems[-1]}",
            "Fix the shards: training resumes from the last saved state. To leave them out, start over with --restart.",
            code="pair-unreadable",
        )

    def _read_pair(self, entry: CaptionEntry, epoch: int) -> tuple[tuple[Pixels, ...], str]:
        assert entry.locator is not None, "a sample of a tar has its bytes"
        data, item = read_image_bytes(entry.locator), compute_hash(entry.name)
        pixels = tuple(augment_image(data, spec, self.augment, make_image_rng(self.seed, item, epoch)) for spec in self.specs)
        return pixels, sample_caption(entry, make_caption_rng(self.seed, item, epoch), self.tag_share)


class _ReaderProcesses(IterableDataset[Any]):  # type: ignore[misc]  # mypy skips torch
    """Runs each reader in a process of a DataLoader. An error is an item: exceptions lose their code on the way."""

    def __init__(self, readers: Sequence[ShardReader], states: Sequence[ReaderState]) -> None:
        super().__init__()
        self._readers, self._states = readers, states

    def __iter__(self) -> Iterator[BatchPart | StairError]:
        number = get_worker_info().id
        disable_decoder_logs()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            yield from self._readers[number].iterate_parts(self._states[number])
        except StairError as error:
            yield error
        except Exception as error:  # noqa: BLE001  PyTorch would raise it again as another class, or as a traceback
            yield SourceError(f"a process that reads shards failed: {type(error).__name__}: {error}", code="reader-failed")


@dataclass(kw_only=True)
class ShardBatches:
    """Batches from shards. Each reader process of the worker adds a part to every batch, so a batch mixes many shards."""

    readers: Sequence[ShardReader]
    texts: TextLoader
    workers: WorkerGroup
    problems: ProblemCounter
    teacher: DistillationTeacher | None = None
    _states: list[ReaderState] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the first epoch."""
        self._begin_epoch(0)

    def iterate_batches(self, begin: int) -> Iterator[DeviceBatch]:
        """Yield the batches that follow the last one that was taken.

        Raises:
            SourceError: If hardly any sample can be used.
            RuntimeError: If a reader process ended; see `translate_reader_errors`.
        """
        loader = iter(
            DataLoader(
                _ReaderProcesses(self.readers, list(self._states)),
                batch_size=None,
                num_workers=len(self.readers),
                prefetch_factor=_PREFETCH,
                collate_fn=_keep_item,
            )
        )
        for parts, batch in _prefetch(self._load_batch(loader) for _ in iter(int, 1)):
            self._states = [part.state for part in parts]
            for problem in (problem for part in parts for problem in part.problems):
                self.problems.add_entry(problem)
            yield batch

    def get_state(self) -> WorkerState:
        """Return the place after the last batch that was taken, and the problems until then."""
        readers = [{"parts": state.parts, "positions": [list(each) for each in state.positions]} for state in self._states]
        return {"readers": readers, "problems": self.problems.to_json()}

    def restore_state(self, states: Sequence[WorkerState | None]) -> bool:
        """Continue from the saved states of all workers. With another number of workers, begin a new epoch, and return False."""
        known = [state for state in states if state is not None]
        own = states[self.workers.rank] if len(states) == self.workers.count else None
        if own is None or len(own["readers"]) != len(self.readers):
            places = [place for state in known for reader in state["readers"] for place in reader["positions"]]
            self._begin_epoch(1 + max((place[0] for place in places), default=-1))
            for state in known if self.workers.rank == 0 else ():
                self.problems.merge_json(state["problems"])
            return not known
        self._states = [
            ReaderState(each["parts"], tuple(ShardPosition(*place) for place in each["positions"])) for each in own["readers"]
        ]
        self.problems.merge_json(own["problems"])
        return True

    def _begin_epoch(self, epoch: int) -> None:
        self._states = [ReaderState(0, (ShardPosition(epoch),) * len(reader.streams)) for reader in self.readers]

    def _load_batch(self, loader: Iterator[BatchPart | StairError]) -> tuple[list[BatchPart], DeviceBatch]:
        parts = [self._take_part(loader) for _ in self.readers]
        captions = [caption for part in parts for caption in part.captions]
        images, *teacher_images = (np.concatenate(column) for column in zip(*(part.pixels for part in parts), strict=True))
        return parts, DeviceBatch(
            images=torch.from_numpy(images),
            texts=self.texts.load_batch(captions),
            teacher=self.teacher.encode(teacher_images[0], captions) if self.teacher else None,
            caption_hashes_B=_hash_captions(captions),
        )

    @staticmethod
    def _take_part(loader: Iterator[BatchPart | StairError]) -> BatchPart:
        part = next(loader)
        if isinstance(part, StairError):
            raise part
        return part


def _end_with_parent() -> None:
    """End this process once the training is gone, killed or not. PyTorch watches the fork server instead, if there is one."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


@contextmanager
def translate_reader_errors() -> Iterator[None]:
    """Translate the error of a reader process that ended. PyTorch raises it in the main thread, wherever that is.

    Raises:
        SourceError: If a process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise SourceError(
            f"a process that reads shards failed: {str(error).strip().splitlines()[-1]}",
            "Training resumes from the last saved state. If memory ran out, lower data.readers or data.shuffle, with --restart.",
            code="reader-failed",
        ) from error


def build_shard_batches(
    config: TrainConfig,
    sources: Sequence[ShardSource],
    texts: TextLoader,
    teacher: DistillationTeacher | None,
    workers: WorkerGroup,
    problems: ProblemCounter,
) -> ShardBatches:
    """Build the batches of this worker from its share of the shards.

    Args:
        config: Training configuration.
        sources: Its shards.
        texts: Loader of the texts.
        teacher: Dense model for the loss `distil`.
        workers: Workers that share each batch.
        problems: Counter for samples that can't be used.

    Raises:
        ConfigError: If there are fewer shards than workers.
    """
    data, share = config.data, config.batch.size // workers.count
    count = count_readers(sources, data.readers, workers.count, share)
    total = sum(source.weight for source in sources)
    readers = [
        ShardReader(
            streams=tuple(
                ShardStream(
                    source=source,
                    seed=config.seed,
                    reader=workers.rank * count + number,
                    readers=workers.count * count,
                    window=max(1, data.shuffle // (count * len(sources))),
                )
                for source in sources
            ),
            weights=tuple(source.weight / total for source in sources),
            size=(share + number) // count,
            specs=(config.model.image.image_spec, *((teacher.image_spec,) if teacher else ())),
            augment=get_augmentation(data.augment),
            seed=config.seed,
            tag_share=data.tag_share,
        )
        for number in range(count)
    ]
    return ShardBatches(readers=readers, texts=texts, workers=workers, problems=problems, teacher=teacher)


def _keep_item(item: _T) -> _T:
    return item


def _prefetch(batches: Iterator[_T]) -> Iterator[_T]:
    """Yield the items of an endless iterator, which a thread prepares ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        futures = deque(pool.submit(next, batches) for _ in range(_PREFETCH))
        while True:
            batch = futures.popleft().result()
            futures.append(pool.submit(next, batches))
            yield batch


def _hash_captions(captions: Sequence[str]) -> Tensor:
    return torch.tensor([compute_hash(caption) for caption in captions], dtype=torch.int64)
