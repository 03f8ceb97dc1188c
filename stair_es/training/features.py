"""Images of a training: decoded and augmented when they are wanted, or as states of a frozen backbone, computed once and kept.

Shape suffixes: N items, L positions, D states, T tokens of all texts together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stair_es.errors import DecodeError, ReadError
from stair_es.model.image_network import load_network
from stair_es.model.stair import Stair, TextBatch
from stair_es.training.augment import NONE, Augmentation, augmented
from stair_es.training.examples import image_rng
from stair_es.training.pairs import Problems, TrainingSet, bytes_of
from stair_es.types import ImageSpec, Pixels

Progress = Callable[[str, int, int], None]
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads a set's images as pixels; one that can't be read is told of in `problems`, once."""

    pairs: TrainingSet
    spec: ImageSpec
    augment: Augmentation
    seed: int
    problems: Problems
    _bad: set[int] = field(default_factory=set, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def pixels(self, item: int, view: int) -> Pixels | None:
        """The augmented image; None (and a problem noted) if it can't be read."""
        pair = self.pairs[item]
        try:
            return augmented(bytes_of(pair.place), self.spec, self.augment, image_rng(self.seed, item, view))
        except (DecodeError, ReadError) as error:
            with self._lock:
                if item not in self._bad:
                    self.problems.add(pair.name, error.message)
                self._bad.add(item)
            return None


class LiveImages:
    """Pixels, read and augmented on some threads when a batch wants them."""

    def __init__(self, reader: Reader, threads: int) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="images")

    def batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Pixels [B, H, W, C], and the places of those that couldn't be read, which are black."""
        found = list(self._pool.map(self._reader.pixels, items, views))
        size = self._reader.spec.size_px
        pixels = [np.zeros((size, size, 3), np.uint8) if each is None else each for each in found]
        return torch.from_numpy(np.stack(pixels)), [place for place, each in enumerate(found) if each is None]


class CachedImages:
    """States of a frozen backbone, in `views` forms an image; those of an image that couldn't be read aren't numbers."""

    def __init__(self, states_NVLD: NDArray[np.float16]) -> None:
        self._states_NVLD = states_NVLD

    def batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """States [B, L, D], and the places of those that couldn't be read."""
        of = np.asarray(views) % self._states_NVLD.shape[1]
        states_BLD = self._states_NVLD[np.asarray(items), of].astype(np.float32)
        return torch.from_numpy(states_BLD), np.flatnonzero(np.isnan(states_BLD[:, 0, 0])).tolist()


def cached_images(model: Stair, reader: Reader, views: int, folder: Path, progress: Progress, threads: int) -> CachedImages:
    """The states of all images of a set, from `folder` if they are there; they stay on disk, and are mapped into memory.

    Args:
        model: With a frozen image backbone.
        reader: Of the set; the first view is never augmented.
        views: Forms of each image.
        folder: Where they are kept, by a hash of all that they depend on.
        progress: Is told how far it is.
        threads: For decoding and the backbone.

    Raises:
        OSError: They can't be written.
    """
    path = folder / f"images-{_key(model, reader, views)}.npy"
    if not path.is_file():
        _compute(path, model, reader, views, progress, threads)
    kept = np.load(path, mmap_mode="r")
    for item in np.flatnonzero(np.isnan(kept[:, 0, 0, 0])).tolist():
        reader.pixels(item, 0)  # notes the problem, where the states come from an earlier training
    return CachedImages(kept)


def _compute(path: Path, model: Stair, reader: Reader, views: int, progress: Progress, threads: int) -> None:
    plain = replace(reader, augment=NONE)
    states = _states_of(model)
    size = reader.spec.size_px
    length, width = states(np.zeros((1, size, size, 3), np.uint8)).shape[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    kept_NVLD = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(reader.pairs), views, length, width))

    def one(number: int) -> None:
        item, view = divmod(number, views)
        pixels = (reader if view else plain).pixels(item, view)
        kept_NVLD[item, view] = np.nan if pixels is None else states(pixels[None])[0].half().numpy()

    try:
        total = len(reader.pairs) * views
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(one, range(total)), 1):
                if done % _AT_ONCE == 0 or done == total:
                    progress("states of images", done, total)
        kept_NVLD.flush()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class CachedTexts:
    """States of a frozen text backbone for all texts that may come."""

    def __init__(self, model: Stair, texts: Sequence[str], progress: Progress) -> None:
        """Compute them; they stay in memory, in half precision.

        Args:
            model: With a frozen text backbone.
            texts: All that may come.
            progress: Is told how far it is.
        """
        self._ids: list[Tensor] = []
        self._states: list[Tensor] = []
        device = model.log_scale.device
        ordered = sorted(set(texts), key=lambda text: (len(text), text))  # texts of like lengths together: little is padded
        self._places: dict[str, int] = {}
        for begin in range(0, len(ordered), _AT_ONCE):
            part = ordered[begin : begin + _AT_ONCE]
            found = model.tokens.encode(part)
            ids, mask = torch.from_numpy(found.ids_BL), torch.from_numpy(found.mask_BL)
            with torch.inference_mode():
                states = model.text.backbone(ids.to(device), mask.to(device)).cpu()
            for place, text in enumerate(part):
                self._places[text] = len(self._ids)
                self._ids.append(ids[place][mask[place]])
                self._states.append(states[place][mask[place]].half().clone())
            progress("states of texts", min(begin + _AT_ONCE, len(ordered)), len(ordered))

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """See `examples.Texts`."""
        rows = [self._places[text] for text in texts]
        pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        ids_BL = pad([self._ids[row] for row in rows])
        states_BLD = pad([self._states[row] for row in rows]).float()
        lengths = torch.tensor([len(self._ids[row]) for row in rows])
        return TextBatch(ids_BL, torch.arange(ids_BL.shape[1]) < lengths[:, None], states_BLD)


def _states_of(model: Stair) -> Callable[[Pixels], Tensor]:
    """Pixels -> states as the head wants them: their mean, if it pools them so, from the quicker network where there is one."""
    tower = model.config.image
    if tower.backbone.kind == "package" and tower.pool == "mean":
        network = load_network("onnx", 1)
        return lambda pixels_BHWC: torch.from_numpy(network.see(pixels_BHWC).features_BD)[:, None]

    def run(pixels_BHWC: Pixels) -> Tensor:
        with torch.inference_mode():
            states_BLD = model.image.states(torch.from_numpy(np.ascontiguousarray(pixels_BHWC)).to(model.log_scale.device))
            return (states_BLD.mean(dim=1, keepdim=True) if tower.pool == "mean" else states_BLD).cpu()

    return run


def _key(model: Stair, reader: Reader, views: int) -> str:
    tower = model.config.image
    digest = hashlib.sha256(json.dumps([repr(tower.backbone), tower.size_px, tower.mean, tower.std, tower.pool]).encode())
    digest.update(repr((reader.augment, reader.seed, views)).encode())
    for name, tensor in model.image.backbone.state_dict().items():
        if tower.backbone.kind != "package":
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for pair in reader.pairs:
        try:
            digest.update(hashlib.sha256(bytes_of(pair.place)).digest())
        except ReadError:
            digest.update(b"unread")
    return digest.hexdigest()[:16]
