"""Images of a training: decoded and augmented when they are wanted, or as states of a frozen backbone, computed once and kept.

Shape suffixes: N items, L positions, D states, T tokens of all texts together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stair_es.errors import DecodeError, ReadError
from stair_es.model.image_network import load_network
from stair_es.model.stair import Stair, TextBatch
from stair_es.model.stair_config import ImageTower, TextTower
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

    def pixels(self, item: int, view: int, *, plain: bool = False) -> Pixels | None:
        """The image, augmented unless it shall be plain; None (and a problem noted) if it can't be read."""
        pair = self.pairs[item]
        try:
            how = NONE if plain else self.augment
            return augmented(bytes_of(pair.place), self.spec, how, image_rng(self.seed, item, view))
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
    states = _states_of(model)
    size = reader.spec.size_px
    length, width = states(np.zeros((1, size, size, 3), np.uint8)).shape[1:]
    with _kept(path, (len(reader.pairs), views, length, width)) as kept_NVLD:

        def one(number: int) -> None:
            item, view = divmod(number, views)
            pixels = reader.pixels(item, view, plain=not view)
            kept_NVLD[item, view] = np.nan if pixels is None else states(pixels[None])[0].half().numpy()

        total = len(reader.pairs) * views
        with ThreadPoolExecutor(threads) as pool:
            for done, _ in enumerate(pool.map(one, range(total)), 1):
                if done % _AT_ONCE == 0 or done == total:
                    progress("states of images", done, total)


@contextmanager
def _kept(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.float16]]:
    """An array that is at `path` once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.npy")
    try:
        array: NDArray[np.float16] = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        yield array
        array.flush()  # type: ignore[attr-defined]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class CachedTexts:
    """States of a frozen text backbone for all texts that may come, end to end; on disk, and mapped into memory."""

    def __init__(self, model: Stair, texts: Iterable[str], folder: Path, progress: Progress) -> None:
        """The states, from `folder` if they are there.

        Args:
            model: With a frozen text backbone.
            texts: All that may come.
            folder: Where they are kept, by a hash of all that they depend on.
            progress: Is told how far it is.

        Raises:
            OSError: They can't be written.
        """
        ordered = sorted(set(texts), key=lambda text: (len(text), text))  # texts of like lengths together: little is padded
        self._places = {text: place for place, text in enumerate(ordered)}
        self._ids, places = list[Tensor](), list[NDArray[np.int32]]()
        for begin in range(0, len(ordered), _AT_ONCE):
            found = model.tokens.encode(ordered[begin : begin + _AT_ONCE])
            self._ids += [torch.from_numpy(ids[mask]) for ids, mask in zip(found.ids_BL, found.mask_BL, strict=True)]
            places.append(found.places_BL[found.mask_BL].astype(np.int32))
        self._places_T = torch.from_numpy(np.concatenate(places))
        self._ends = np.cumsum([len(ids) for ids in self._ids])
        path = folder / f"texts-{_text_key(model, ordered)}.npy"
        if not path.is_file():
            self._compute(path, model, progress)
        self._states_TD = np.load(path, mmap_mode="r")

    def _compute(self, path: Path, model: Stair, progress: Progress) -> None:
        device, total = model.log_scale.device, len(self._ids)
        with _kept(path, (int(self._ends[-1]), model.text.backbone.width)) as kept_TD:
            for begin in range(0, total, _AT_ONCE):
                ids_BL, mask_BL = _padded(self._ids[begin : begin + _AT_ONCE])
                with torch.inference_mode():
                    states_BLD = model.text.backbone(ids_BL.to(device), mask_BL.to(device)).cpu()
                end = min(begin + _AT_ONCE, total)
                first = int(self._ends[begin - 1]) if begin else 0
                kept_TD[first : int(self._ends[end - 1])] = states_BLD[mask_BL].half().numpy()
                progress("states of texts", end, total)

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """See `examples.Texts`."""
        rows = [self._places[text] for text in texts]
        ids_BL, mask_BL = _padded([self._ids[row] for row in rows])
        kept = [slice(int(self._ends[row]) - len(self._ids[row]), int(self._ends[row])) for row in rows]
        states = [torch.from_numpy(self._states_TD[each].astype(np.float32)) for each in kept]
        places = [self._places_T[each].long() for each in kept]
        return TextBatch(
            ids_BL,
            mask_BL,
            torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1),
            torch.nn.utils.rnn.pad_sequence(states, batch_first=True),
        )


def _padded(ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """[B, L] of tokens, and which of them count."""
    ids_BL = torch.nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    return ids_BL, torch.arange(ids_BL.shape[1]) < torch.tensor([len(each) for each in ids])[:, None]


def _states_of(model: Stair) -> Callable[[Pixels], Tensor]:
    """Pixels -> states as the head wants them: their mean, if it pools them so, from the quicker network where there is one."""
    tower = model.config.image
    if tower.backbone.kind == "package" and tower.pool == "mean":
        network = load_network("onnx", 1)
        return lambda pixels_BHWC: torch.from_numpy(network.see(pixels_BHWC).features_BD)[:, None]

    def run(pixels_BHWC: Pixels) -> Tensor:
        with torch.inference_mode():
            states_BLD = model.image.states(torch.from_numpy(pixels_BHWC.copy()).to(model.log_scale.device))
            return (states_BLD.mean(dim=1, keepdim=True) if tower.pool == "mean" else states_BLD).cpu()

    return run


def _key(model: Stair, reader: Reader, views: int) -> str:
    tower = model.config.image
    digest = _backbone_digest(tower, model.image.backbone)
    digest.update(repr((reader.augment, reader.seed, views)).encode())
    for pair in reader.pairs:
        try:
            digest.update(hashlib.sha256(bytes_of(pair.place)).digest())
        except ReadError:
            digest.update(b"unread")
    return str(digest.hexdigest()[:16])


def _text_key(model: Stair, texts: Sequence[str]) -> str:
    digest = _backbone_digest(model.config.text, model.text.backbone)
    digest.update(json.dumps(texts).encode())
    return str(digest.hexdigest()[:16])


def _backbone_digest(tower: ImageTower | TextTower, backbone: torch.nn.Module) -> Any:  # noqa: ANN401  a hash
    """Of all that the states depend on but what goes in: the network and how the tower feeds it, not the head above."""
    head = ("transform_dim", "dropout", "top_k", "tie", "own_words", "always_masked")
    told = {name: repr(value) for name, value in vars(tower).items() if name not in head}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    if tower.backbone.kind != "package":
        for name, tensor in backbone.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest
