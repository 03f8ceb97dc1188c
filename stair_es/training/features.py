"""Images of a training: decoded and augmented when they are wanted, or as states of a frozen backbone, computed once and kept.

Shape suffixes: N items, L positions, D states, T tokens of all texts together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
    """Reads a set's images as pixels; of one that can't be read, another one's, told of in `problems`."""

    pairs: TrainingSet
    spec: ImageSpec
    augment: Augmentation
    seed: int
    problems: Problems

    def pixels(self, item: int, view: int) -> Pixels | None:
        """The augmented image; None (and a problem noted) if it can't be read."""
        pair = self.pairs[item]
        try:
            return augmented(bytes_of(pair.place), self.spec, self.augment, image_rng(self.seed, item, view))
        except (DecodeError, ReadError) as error:
            self.problems.add(pair.name, error.message)
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
    """States of a frozen backbone, in `views` forms an image."""

    def __init__(self, states_NVLD: Tensor, bad: frozenset[int]) -> None:
        self._states_NVLD, self._bad = states_NVLD, bad

    def batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """States [B, L, D], and the places of those that couldn't be read."""
        of = torch.as_tensor(views) % self._states_NVLD.shape[1]
        return self._states_NVLD[torch.as_tensor(items), of].float(), [at for at, item in enumerate(items) if item in self._bad]


def cached_images(model: Stair, reader: Reader, views: int, folder: Path, progress: Progress, threads: int) -> CachedImages:
    """The states of all images of a set, from `folder` if they are there.

    Args:
        model: With a frozen image backbone.
        reader: Of the set; the first view is never augmented.
        views: Forms of each image.
        folder: Where they are kept, by a hash of all that they depend on.
        progress: Is told how far it is.
        threads: For decoding and the backbone.
    """
    key = _key(model, reader, views)
    path = folder / f"images-{key}.pt"
    if path.is_file():
        kept = torch.load(path, weights_only=True, mmap=True)
        return CachedImages(kept["states"], frozenset(kept["bad"].tolist()))
    plain = Reader(
        pairs=reader.pairs, spec=reader.spec, augment=NONE, seed=reader.seed, problems=reader.problems
    )
    states = _states_of(model, threads)
    wanted = [(item, view) for item in range(len(reader.pairs)) for view in range(views)]
    rows: list[Tensor] = []
    bad: set[int] = set()
    with ThreadPoolExecutor(threads) as pool:
        for begin in range(0, len(wanted), _AT_ONCE):
            part = wanted[begin : begin + _AT_ONCE]
            pixels = list(pool.map(lambda each: (reader if each[1] else plain).pixels(*each), part))
            bad |= {item for (item, _), found in zip(part, pixels, strict=True) if found is None}
            size = reader.spec.size_px
            filled = np.stack([np.zeros((size, size, 3), np.uint8) if each is None else each for each in pixels])
            rows += pool.map(lambda one: states(one[None])[0].half(), filled)
            progress("states of images", min(begin + _AT_ONCE, len(wanted)), len(wanted))
    stacked = torch.stack(rows).unflatten(0, (len(reader.pairs), views))
    _keep(path, {"states": stacked, "bad": torch.tensor(sorted(bad), dtype=torch.long)})
    return CachedImages(stacked, frozenset(bad))


class CachedTexts:
    """States of a frozen text backbone for all texts that may come."""

    def __init__(self, model: Stair, texts: Sequence[str], progress: Progress) -> None:
        """Compute them; they stay in memory, in half precision."""
        self._places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        self._ids: list[Tensor] = []
        self._states: list[Tensor] = []
        ordered = sorted(self._places, key=len)  # texts of like lengths together: little is padded
        at: dict[str, int] = {}
        for begin in range(0, len(ordered), _AT_ONCE):
            part = ordered[begin : begin + _AT_ONCE]
            found = model.tokens.encode(part)
            ids, mask = torch.from_numpy(found.ids_BL), torch.from_numpy(found.mask_BL)
            with torch.inference_mode():
                states = model.text.backbone(ids, mask)
            for place, text in enumerate(part):
                at[text] = len(self._ids)
                self._ids.append(ids[place][mask[place]])
                self._states.append(states[place][mask[place]].half().clone())
            progress("states of texts", min(begin + _AT_ONCE, len(ordered)), len(ordered))
        self._places = at

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """See `examples.Texts`."""
        rows = [self._places[text] for text in texts]
        pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
        ids_BL = pad([self._ids[row] for row in rows])
        states_BLD = pad([self._states[row] for row in rows]).float()
        lengths = torch.tensor([len(self._ids[row]) for row in rows])
        return TextBatch(ids_BL, torch.arange(ids_BL.shape[1]) < lengths[:, None], states_BLD)


def _states_of(model: Stair, threads: int) -> Callable[[Pixels], Tensor]:
    """Pixels -> states as the head wants them: their mean, if it pools them so, from the quicker network where there is one."""
    tower = model.config.image
    if tower.backbone.kind == "package" and tower.pool == "mean":
        network = load_network("onnx", 1)
        return lambda pixels_BHWC: torch.from_numpy(network.see(pixels_BHWC).features_BD)[:, None]

    @torch.inference_mode()
    def run(pixels_BHWC: Pixels) -> Tensor:
        device = model.log_scale.device
        states_BLD = model.image.states(torch.from_numpy(pixels_BHWC).to(device))
        return (states_BLD.mean(dim=1, keepdim=True) if tower.pool == "mean" else states_BLD).cpu()

    return run


def _key(model: Stair, reader: Reader, views: int) -> str:
    tower = model.config.image
    digest = hashlib.sha256(json.dumps([repr(tower.backbone), tower.size_px, tower.mean, tower.std, tower.pool]).encode())
    digest.update(repr((reader.augment, reader.seed, views)).encode())
    for name, tensor in model.image.backbone.state_dict().items():
        if tower.backbone.kind != "package":
            digest.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for pair in reader.pairs:
        digest.update(hashlib.sha256(bytes_of(pair.place)).digest())
    return digest.hexdigest()[:16]


def _keep(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(values, temporary)
    temporary.replace(path)
