"""The vectors of a dense model as states to train heads on: of images and texts, computed once and kept on disk.

Shape suffixes: N images, V views, M texts, L tokens, D dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stair_es.config.settings import Settings
from stair_es.errors import ModelError
from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.model.checkpoint import DENSE_FOLDER
from stair_es.model.stair.modeling import TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.training.data.feature_cache import (
    CachedImageFeatures,
    PixelReader,
    create_array,
    get_training_cache,
    hash_images,
)
from stair_es.types import Floats, PartProgressCallback, Pixels

_IMAGE_BATCH, _TEXT_BATCH = 32, 256


@dataclass(frozen=True, kw_only=True)
class DenseFeatures:
    """A dense model below the heads: its checkpoint, and its encoder."""

    folder: Path
    card: ModelCard
    encoder: Encoder
    cache: Path
    """Folder of the vectors; file names contain a hash of everything that they depend on."""
    dimensions: int

    def cache_images(self, reader: PixelReader, views: int, progress: PartProgressCallback, threads: int) -> CachedImageFeatures:
        """Return the vectors of all images of a set, computing them first if needed.

        Args:
            reader: Reader of the set; the first view is never augmented.
            views: Augmented forms per image.
            progress: Progress callback.
            threads: Threads for decoding.

        Raises:
            OSError: If the cache can't be written.
        """
        digest = hashlib.sha256(self.card.model_id.encode())
        path = self.cache / f"images-{hash_images(digest, reader, views)}.npy"
        if not path.is_file():
            self._compute_images(path, replace(reader, spec=self.card.image_spec), views, progress, threads)
        return CachedImageFeatures.from_file(path, reader)

    def _compute_images(self, path: Path, reader: PixelReader, views: int, progress: PartProgressCallback, threads: int) -> None:
        total = len(reader.pairs) * views

        def read_pixels(number: int) -> Pixels | None:
            item, view = divmod(number, views)
            return reader.read_pixels(item, view, plain=not view)

        shape = (len(reader.pairs), views, 1, self.dimensions)
        with create_array(path, shape) as states_NVLD, ThreadPoolExecutor(threads) as pool:
            flat_states = states_NVLD.reshape(total, self.dimensions)

            def submit(begin: int) -> list[Pixels | None]:
                return list(pool.map(read_pixels, range(begin, min(begin + _IMAGE_BATCH, total))))

            with ThreadPoolExecutor(1) as ahead:
                future = ahead.submit(submit, 0)
                for begin in range(0, total, _IMAGE_BATCH):
                    batch = future.result()
                    future = ahead.submit(submit, begin + _IMAGE_BATCH)
                    flat_states[begin : begin + len(batch)] = self._encode_images(batch)
                    progress("vectors of images", begin + len(batch), total)

    def _encode_images(self, batch: Sequence[Pixels | None]) -> Floats:
        """Return the vectors of images, NaN for those that can't be read."""
        vectors = np.full((len(batch), self.dimensions), np.nan, np.float32)
        readable = [place for place, pixels in enumerate(batch) if pixels is not None]
        if readable:
            vectors[readable] = self.encoder.encode_images_dense(np.stack([pixels for pixels in batch if pixels is not None]))
        return vectors

    def encode_texts(self, texts: Sequence[str], progress: PartProgressCallback) -> Floats:
        """Return the vectors of texts [M, D], from the cache if they are in it.

        Raises:
            OSError: If the cache can't be written.
        """
        digest = hashlib.sha256(self.card.model_id.encode() + json.dumps(texts).encode())
        path = self.cache / f"texts-{digest.hexdigest()[:16]}.npy"
        if not path.is_file():
            with create_array(path, (len(texts), self.dimensions)) as states_MD:
                for begin in range(0, len(texts), _TEXT_BATCH):
                    part = texts[begin : begin + _TEXT_BATCH]
                    states_MD[begin : begin + len(part)] = self.encoder.encode_texts_dense(part)
                    progress("vectors of texts", begin + len(part), len(texts))
        vectors: Floats = np.load(path).astype(np.float32)
        return vectors


class CachedDenseTexts:
    """The vectors of every text that can occur, as states, with the tokens of the texts."""

    def __init__(
        self, dense: DenseFeatures, tokens: StairTokenizer, texts: Iterable[str], progress: PartProgressCallback
    ) -> None:
        """Encode the texts, or load their vectors."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        self._tokens = tokens
        self._row_of_text = {text: row for row, text in enumerate(distinct)}
        self._vectors_MD = torch.from_numpy(dense.encode_texts(distinct, progress))

    def load_batch(self, texts: Sequence[str]) -> TextBatch:
        """Return the tokens of texts with their vectors as states."""
        rows = [self._row_of_text[text] for text in texts]
        return replace(TextBatch.from_tokenized(self._tokens.encode(texts)), states_BLD=self._vectors_MD[rows, None])


def add_noise(states_BLD: Tensor, longest: float, rng: np.random.Generator) -> Tensor:
    """Return unit vectors moved in a random direction by up to a length, and scaled to length 1 again.

    Args:
        states_BLD: Vectors of length 1, as states.
        longest: Length that the noise of a vector has at most; it is uniform from 0.
        rng: Random generator.
    """
    directions_BLD = rng.standard_normal(states_BLD.shape, dtype=np.float32) / states_BLD.shape[-1] ** 0.5
    lengths_B = rng.random((len(states_BLD), 1, 1), dtype=np.float32) * longest
    return torch.nn.functional.normalize(states_BLD + torch.from_numpy(lengths_B * directions_BLD), dim=-1)


def load_dense_features(name: str, settings: Settings) -> DenseFeatures:
    """Load a model with dense vectors.

    Raises:
        UnknownModel: If no model has this name.
        ModelError: If it isn't a checkpoint, has no dense vectors, or can't be loaded.
        MissingExtra: If a library that it needs isn't installed.
    """
    model = registry.resolve_model(ModelSpec(name=name, settings=settings))
    folder = model.folder
    if folder is None:
        raise ModelError(
            f"the model {name!r} is part of an installed package, not a checkpoint folder",
            "Specify a checkpoint.",
            code="not-a-checkpoint-folder",
        )
    dense = get_dense_encoder(model.load())
    if dense is None or (folder / DENSE_FOLDER).is_dir():
        raise ModelError(
            f"{name} {'has no dense vectors' if dense is None else 'was already made from a dense model'}",
            "Give a dense model: CLIP, SigLIP, ALIGN, BLIP, or a checkpoint trained with heads = ['dense'].",
            code="no-dense-vectors",
        )
    dimensions = int(dense.encode_texts_dense(["a photo"]).shape[1])
    cache = get_training_cache(settings.home)
    return DenseFeatures(folder=folder, card=model.card, encoder=dense, cache=cache, dimensions=dimensions)
