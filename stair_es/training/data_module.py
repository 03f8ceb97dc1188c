"""The data module of a training: images and texts (live or cached), validation sets, and the teacher's targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings
from stair_es.errors import UsageError
from stair_es.eval.dense import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair.modeling import StairModel
from stair_es.training.callbacks import Callbacks
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data import dataset, feature_cache, transforms
from stair_es.training.data.collate import CaptionSampler, Collator, ImageLoader, OnlineTexts, TextLoader
from stair_es.training.data.dataset import TrainingSet
from stair_es.training.data.sampler import SampleIndex
from stair_es.training.factory import resolve_pair_file
from stair_es.training.trainer import Teacher
from stair_es.training.validation import ValidationSet


@dataclass(frozen=True, kw_only=True)
class DataModule:
    """All data of a training."""

    collator: Collator
    validations: tuple[ValidationSet, ...]
    teacher: Teacher | None


def build_data_module(
    config: TrainConfig, model: StairModel, learned: TrainingSet, ears: Callbacks, threads: int, settings: Settings
) -> DataModule:
    """Build the data module of a configuration.

    Args:
        config: Training configuration.
        model: Model that computes the states of frozen backbones, where they are cached.
        learned: Training set.
        ears: Callbacks for progress.
        threads: Threads that read images.
        settings: Data folder of the cache, and trusted models.

    Returns:
        Collator, validation sets and teacher.

    Raises:
        StairError: If a set or the teacher can't be loaded.
    """
    data = config.data
    spec = config.model.image.image_spec
    preset = transforms.get_augmentation(data.augment)
    reader = feature_cache.PixelReader(
        pairs=learned, spec=spec, augment=preset, seed=_get_view_seed(config), problems=learned.problems
    )
    sets = [dataset.read_pairs([resolve_pair_file(config, each)]) for each in data.validation]
    readers = [replace(reader, pairs=each, problems=each.problems, augment=transforms.NO_AUGMENTATION) for each in sets]
    firsts = [tuple(pair.captions[0] for pair in each) for each in sets]
    wording = CaptionSampler(captions=learned, seed=config.seed, texts_per_image=data.texts_per_image)
    texts: TextLoader = OnlineTexts(model.tokens)
    if data.cache:
        written = [*wording.collect_captions(), *(text for first in firsts for text in first)]
        texts = feature_cache.CachedTextFeatures(model, written, _get_cache_folder(settings.home), ears.on_progress)
    images = _choose_image_loader(config, model, ears, threads, settings.home)
    names = _make_unique_names([Path(each.captions).stem for each in data.validation])
    validations = [
        ValidationSet(name=name, captions=first, images=images(each, 1), texts=texts, mask=config.stages[-1].text_mask)
        for name, first, each in zip(names, firsts, readers, strict=True)
    ]
    return DataModule(
        collator=Collator(images=images(reader, data.views), texts=texts, caption_sampler=wording),
        validations=tuple(validations),
        teacher=_build_teacher(config, reader, threads, settings),
    )


def _choose_image_loader(
    config: TrainConfig, model: StairModel, ears: Callbacks, threads: int, home: DataDir
) -> Callable[[feature_cache.PixelReader, int], ImageLoader]:
    """Return a function that makes an image loader from a reader and the number of views."""
    if not config.data.cache:
        return lambda reader, views: feature_cache.OnlineImages(reader, threads)
    return lambda reader, views: feature_cache.cache_image_features(
        model, reader, views, _get_cache_folder(home), ears.on_progress, threads
    )


def _get_cache_folder(home: DataDir) -> Path:
    """Return the folder of the feature cache."""
    return home.path / "training"


def _get_view_seed(config: TrainConfig) -> int:
    """Return the seed for augmented views; a constant with a cache, so that cached states serve runs of any seed."""
    return 0 if config.data.cache else config.seed


def _make_unique_names(stems: Sequence[str]) -> list[str]:
    """Return unique names of sets."""
    return [f"{stem}-{place}" if stems.count(stem) > 1 else stem for place, stem in enumerate(stems, 1)]


def _build_teacher(config: TrainConfig, reader: feature_cache.PixelReader, threads: int, settings: Settings) -> Teacher | None:
    """Return a function from a batch to the teacher's dense vectors; None if no stage needs it."""
    if not any(stage.losses.get("distil") for stage in config.stages):
        return None
    asked = str(config.model.teacher)
    beside = config.folder / Path(asked).expanduser()
    name = str(beside) if beside.is_dir() else asked
    encoder = registry.load_encoder(ModelSpec(name=name, settings=settings))
    dense = get_dense_encoder(encoder)
    if dense is None:
        raise UsageError(
            f"the teacher {asked!r} has no dense vectors", "Use a model with dense vectors: a dense checkpoint, CLIP, SigLIP."
        )
    own = feature_cache.OnlineImages(replace(reader, spec=encoder.image_spec), threads)

    def encode_batch(draws: Sequence[SampleIndex], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        pixels, _ = own.load_batch([draw.item for draw in draws], [draw.epoch for draw in draws])
        return torch.from_numpy(dense.encode_images_dense(pixels.numpy())), torch.from_numpy(dense.encode_texts_dense(texts))

    return encode_batch
