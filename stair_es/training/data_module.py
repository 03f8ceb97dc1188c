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
    config: TrainConfig, model: StairModel, train_set: TrainingSet, callbacks: Callbacks, threads: int, settings: Settings
) -> DataModule:
    """Build the data module of a configuration.

    Args:
        config: Training configuration.
        model: Model that computes the states of frozen backbones, where they are cached.
        train_set: Training set.
        callbacks: Callbacks for progress.
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
        pairs=train_set, spec=spec, augment=preset, seed=_get_view_seed(config), problems=train_set.problems
    )
    validation_sets = [dataset.read_pairs([resolve_pair_file(config, each)]) for each in data.validation]
    readers = [
        replace(reader, pairs=each, problems=each.problems, augment=transforms.NO_AUGMENTATION) for each in validation_sets
    ]
    first_captions = [tuple(pair.captions[0] for pair in each) for each in validation_sets]
    caption_sampler = CaptionSampler(captions=train_set, seed=config.seed, texts_per_image=data.texts_per_image)
    text_loader: TextLoader = OnlineTexts(model.tokens)
    if data.cache:
        all_texts = [*caption_sampler.collect_captions(), *(text for captions in first_captions for text in captions)]
        text_loader = feature_cache.CachedTextFeatures(model, all_texts, _get_cache_folder(settings.home), callbacks.on_progress)
    make_image_loader = _choose_image_loader(config, model, callbacks, threads, settings.home)
    names = _make_unique_names([Path(each.captions).stem for each in data.validation])
    validations = [
        ValidationSet(
            name=name, captions=captions, images=make_image_loader(each, 1), texts=text_loader, mask=config.stages[-1].text_mask
        )
        for name, captions, each in zip(names, first_captions, readers, strict=True)
    ]
    return DataModule(
        collator=Collator(images=make_image_loader(reader, data.views), texts=text_loader, caption_sampler=caption_sampler),
        validations=tuple(validations),
        teacher=_build_teacher(config, reader, threads, settings),
    )


def _choose_image_loader(
    config: TrainConfig, model: StairModel, callbacks: Callbacks, threads: int, home: DataDir
) -> Callable[[feature_cache.PixelReader, int], ImageLoader]:
    """Return a function that makes an image loader from a reader and the number of views."""
    if not config.data.cache:
        return lambda reader, views: feature_cache.OnlineImages(reader, threads)
    return lambda reader, views: feature_cache.cache_image_features(
        model, reader, views, _get_cache_folder(home), callbacks.on_progress, threads
    )


def _get_cache_folder(home: DataDir) -> Path:
    """Return the folder of the feature cache."""
    return home.path / "training"


def _get_view_seed(config: TrainConfig) -> int:
    """Return the seed for augmented views; a constant with a cache, so that cached states serve runs of any seed."""
    return 0 if config.data.cache else config.seed


def _make_unique_names(stems: Sequence[str]) -> list[str]:
    """Return unique names of sets."""
    return [f"{stem}-{number}" if stems.count(stem) > 1 else stem for number, stem in enumerate(stems, 1)]


def _build_teacher(config: TrainConfig, reader: feature_cache.PixelReader, threads: int, settings: Settings) -> Teacher | None:
    """Return a function from a batch to the teacher's dense vectors; None if no stage needs it."""
    if not any(stage.losses.get("distil") for stage in config.stages):
        return None
    teacher = str(config.model.teacher)
    folder = config.folder / Path(teacher).expanduser()
    name = str(folder) if folder.is_dir() else teacher
    encoder = registry.load_encoder(ModelSpec(name=name, settings=settings))
    dense = get_dense_encoder(encoder)
    if dense is None:
        raise UsageError(
            f"the teacher {teacher!r} has no dense vectors", "Use a model with dense vectors: a dense checkpoint, CLIP, SigLIP."
        )
    image_loader = feature_cache.OnlineImages(replace(reader, spec=encoder.image_spec), threads)

    def encode_batch(samples: Sequence[SampleIndex], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        pixels, _ = image_loader.load_batch([sample.item for sample in samples], [sample.epoch for sample in samples])
        return torch.from_numpy(dense.encode_images_dense(pixels.numpy())), torch.from_numpy(dense.encode_texts_dense(texts))

    return encode_batch
