"""Images and texts for training: decoded and augmented on demand, or as cached states of a frozen backbone.

Shape suffixes: N items, L positions, D state size, T tokens of all texts together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stair_es.config.defaults import DataDir
from stair_es.errors import DecodeError, ReadError
from stair_es.model.base import ModelSpec
from stair_es.model.networks.image_networks import load_image_network
from stair_es.model.stair.configuration import ImageTowerConfig, TextTowerConfig
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training.data.collate import make_image_rng
from stair_es.training.data.dataset import ProblemCounter, TrainingSet, read_image_bytes
from stair_es.training.data.transforms import NO_AUGMENTATION, Augmentation, augment_image
from stair_es.types import ImageSpec, PartProgressCallback, Pixels

_BATCH_SIZE = 32


def get_training_cache(home: DataDir) -> Path:
    """Return the folder of the feature cache."""
    return home.path / "training"


@dataclass(frozen=True, kw_only=True)
class PixelReader:
    """Reads a set's images as pixels; each unreadable image is added to `problems` once."""

    pairs: TrainingSet
    spec: ImageSpec
    augment: Augmentation
    seed: int
    problems: ProblemCounter
    _unreadable: set[int] = field(default_factory=set, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def read_pixels(self, item: int, view: int, *, plain: bool = False) -> Pixels | None:
        """Return the image, augmented unless `plain`; None, and a problem added, if it can't be read."""
        pair = self.pairs[item]
        try:
            augmentation = NO_AUGMENTATION if plain else self.augment
            return augment_image(read_image_bytes(pair.locator), self.spec, augmentation, make_image_rng(self.seed, item, view))
        except (DecodeError, ReadError) as error:
            with self._lock:
                if item not in self._unreadable:
                    self.problems.add_problem(pair.name, error.message)
                self._unreadable.add(item)
            return None


class OnlineImages:
    """Pixels that are read and augmented by a thread pool on demand."""

    def __init__(self, reader: PixelReader, threads: int) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")

    def load_batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return pixels [B, H, W, C], and the positions of unreadable images, which are black."""
        images = list(self._pool.map(self._reader.read_pixels, items, views))
        size = self._reader.spec.size_px
        pixels = [np.zeros((size, size, 3), np.uint8) if image is None else image for image in images]
        return torch.from_numpy(np.stack(pixels)), [position for position, image in enumerate(images) if image is None]


class CachedImageFeatures:
    """Cached states of a frozen backbone, `views` per image; those of unreadable images are NaN."""

    def __init__(self, states_NVLD: NDArray[np.float16]) -> None:
        self._states_NVLD = states_NVLD

    @classmethod
    def from_file(cls, path: Path, reader: PixelReader) -> CachedImageFeatures:
        """Return the states in a file, memory-mapped; the reader records the unreadable images, also those of an earlier run."""
        states = np.load(path, mmap_mode="r")
        for item in np.flatnonzero(np.isnan(states[:, 0, 0, 0])).tolist():
            reader.read_pixels(item, 0)
        return cls(states)

    def load_batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return states [B, L, D], and the positions of unreadable images."""
        view_indices = np.asarray(views) % self._states_NVLD.shape[1]
        states_BLD = self._states_NVLD[np.asarray(items), view_indices].astype(np.float32)
        return torch.from_numpy(states_BLD), np.flatnonzero(np.isnan(states_BLD[:, 0, 0])).tolist()


def cache_image_features(
    model: StairModel, reader: PixelReader, views: int, folder: Path, progress: PartProgressCallback, threads: int
) -> CachedImageFeatures:
    """Return the cached states of all images of a set, computing them first if needed; they are memory-mapped from disk.

    Args:
        model: Model with a frozen image backbone.
        reader: Reader of the set; the first view is never augmented.
        views: Augmented forms per image.
        folder: Cache folder; file names contain a hash of everything that the states depend on.
        progress: Progress callback.
        threads: Threads for decoding and the backbone.

    Raises:
        OSError: If the cache can't be written.
    """
    path = folder / f"images-{_compute_image_key(model, reader, views)}.npy"
    if not path.is_file():
        _compute_features(path, model, reader, views, progress, threads)
    return CachedImageFeatures.from_file(path, reader)


def _compute_features(
    path: Path, model: StairModel, reader: PixelReader, views: int, progress: PartProgressCallback, threads: int
) -> None:
    compute_states = _build_state_function(model)
    size = reader.spec.size_px
    length, width = compute_states(np.zeros((1, size, size, 3), np.uint8)).shape[1:]
    with create_array(path, (len(reader.pairs), views, length, width)) as states_NVLD:

        def compute_one(number: int) -> None:
            item, view = divmod(number, views)
            pixels = reader.read_pixels(item, view, plain=not view)
            states_NVLD[item, view] = np.nan if pixels is None else compute_states(pixels[None])[0].half().numpy()

        total = len(reader.pairs) * views
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(compute_one, range(total)), 1):
                if done % _BATCH_SIZE == 0 or done == total:
                    progress("states of images", done, total)


@contextmanager
def create_array(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
    """Create an array on disk that is moved to `path` when it is complete.

    Raises:
        OSError: If it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    try:
        array: NDArray[np.float16] = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        yield array
        array.flush()  # type: ignore[attr-defined]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class CachedTextFeatures:
    """Cached states of a frozen text backbone for every text that can occur, concatenated; memory-mapped from disk."""

    def __init__(self, model: StairModel, texts: Iterable[str], folder: Path, progress: PartProgressCallback) -> None:
        """Load the states from `folder`, computing them first if needed.

        Args:
            model: Model with a frozen text backbone.
            texts: Every text that can occur.
            folder: Cache folder; file names contain a hash of everything that the states depend on.
            progress: Progress callback.

        Raises:
            OSError: If the cache can't be written.
        """
        # Texts of similar length together, for little padding.
        sorted_texts = sorted(set(texts), key=lambda text: (len(text), text))
        self._row_of_text = {text: row for row, text in enumerate(sorted_texts)}
        self._ids, token_features = list[Tensor](), list[NDArray[np.int32]]()
        for begin in range(0, len(sorted_texts), _BATCH_SIZE):
            tokenized = model.tokens.encode(sorted_texts[begin : begin + _BATCH_SIZE])
            self._ids += [torch.from_numpy(ids[mask]) for ids, mask in zip(tokenized.ids_BL, tokenized.mask_BL, strict=True)]
            token_features.append(tokenized.features_BL[tokenized.mask_BL].astype(np.int32))
        self._features_T = torch.from_numpy(np.concatenate(token_features))
        self._ends = np.cumsum([len(ids) for ids in self._ids])
        path = folder / f"texts-{_compute_text_key(model, sorted_texts)}.npy"
        if not path.is_file():
            self._compute_features(path, model, progress)
        self._states_TD = np.load(path, mmap_mode="r")

    def _compute_features(self, path: Path, model: StairModel, progress: PartProgressCallback) -> None:
        device, total = model.log_scale.device, len(self._ids)
        with create_array(path, (int(self._ends[-1]), model.text.backbone.width)) as states_TD:
            for begin in range(0, total, _BATCH_SIZE):
                ids_BL, mask_BL = _pad_ids(self._ids[begin : begin + _BATCH_SIZE])
                with torch.inference_mode():
                    states_BLD = model.text.backbone(ids_BL.to(device), mask_BL.to(device)).cpu()
                end = min(begin + _BATCH_SIZE, total)
                first = int(self._ends[begin - 1]) if begin else 0
                states_TD[first : int(self._ends[end - 1])] = states_BLD[mask_BL].half().numpy()
                progress("states of texts", end, total)

    def load_batch(self, texts: Sequence[str]) -> TextBatch:
        """Return the tokens of texts with their cached states."""
        rows = [self._row_of_text[text] for text in texts]
        ids_BL, mask_BL = _pad_ids([self._ids[row] for row in rows])
        slices = [slice(int(self._ends[row]) - len(self._ids[row]), int(self._ends[row])) for row in rows]
        states = [torch.from_numpy(self._states_TD[each].astype(np.float32)) for each in slices]
        token_features = [self._features_T[each].long() for each in slices]
        return TextBatch(
            ids_BL,
            mask_BL,
            torch.nn.utils.rnn.pad_sequence(token_features, batch_first=True, padding_value=-1),
            torch.nn.utils.rnn.pad_sequence(states, batch_first=True),
        )


def _pad_ids(ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return padded token ids [B, L], and the mask of real tokens."""
    ids_BL = torch.nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    return ids_BL, torch.arange(ids_BL.shape[1]) < torch.tensor([len(each) for each in ids])[:, None]


def _build_state_function(model: StairModel) -> Callable[[Pixels], Tensor]:
    """Return a function from pixels to the states that the head expects: pooled if it uses the mean, by the faster network."""
    tower = model.config.image
    if tower.backbone.kind == "package" and tower.pool == "mean":
        network = load_image_network(ModelSpec(name="stair-mini", backend="onnx", threads=1))
        return lambda pixels_BHWC: torch.from_numpy(network.run_network(pixels_BHWC).features_BD)[:, None]

    def run_backbone(pixels_BHWC: Pixels) -> Tensor:
        with torch.inference_mode():
            states_BLD = model.image.compute_states(torch.from_numpy(pixels_BHWC.copy()).to(model.log_scale.device))
            return (states_BLD.mean(dim=1, keepdim=True) if tower.pool == "mean" else states_BLD).cpu()

    return run_backbone


def _compute_image_key(model: StairModel, reader: PixelReader, views: int) -> str:
    tower = model.config.image
    return hash_images(_hash_backbone(tower, model.image.backbone), reader, views)


def hash_images(digest: Any, reader: PixelReader, views: int) -> str:  # noqa: ANN401  a hash
    """Return a key of the states of a set's images: of the digest of their network, the images and their views."""
    digest.update(repr((asdict(reader.augment), reader.seed, views)).encode())
    for pair in reader.pairs:
        try:
            digest.update(hashlib.sha256(read_image_bytes(pair.locator)).digest())
        except ReadError:
            digest.update(b"unread")
    return str(digest.hexdigest()[:16])


def _compute_text_key(model: StairModel, texts: Sequence[str]) -> str:
    digest = _hash_backbone(model.config.text, model.text.backbone)
    digest.update(json.dumps(texts).encode())
    return str(digest.hexdigest()[:16])


def _hash_backbone(tower: ImageTowerConfig | TextTowerConfig, backbone: torch.nn.Module) -> Any:  # noqa: ANN401  a hash
    """Hash everything that the states depend on except the input: the network and its settings, not the head.

    Settings of dense models are excluded, too: their vectors have separate keys.
    """
    left_out = ("transform_dim", "dropout", "top_k", "tie", "own_words", "always_masked", "resized_px", "resample")
    settings = {name: repr(value) for name, value in asdict(tower).items() if name not in left_out}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    if tower.backbone.kind != "package":
        for name, tensor in backbone.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest
