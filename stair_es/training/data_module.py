"""The data of a training: its sets, images and texts (live or cached), and the teacher's targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings
from stair_es.errors import ConfigError, DatasetError
from stair_es.eval.datasets.image_folder import LabeledDataset, read_image_folder
from stair_es.eval.models import get_dense_encoder
from stair_es.eval.zero_shot import DEFAULT_PROMPTS, fill_prompts
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair.modeling import StairModel
from stair_es.training.callbacks import Callbacks
from stair_es.training.config.schema import DatasetConfig, ValidationSetConfig
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data import dataset, dedup, dense_features, feature_cache, transforms
from stair_es.training.data.batches import BatchSource, DistillationTeacher, PairBatches, build_shard_batches
from stair_es.training.data.captioner import Captioner
from stair_es.training.data.collate import CaptionSampler, Collator, ImageLoader, OnlineTexts, TextLoader
from stair_es.training.data.dataset import PairFile, TrainingPair, TrainingSet
from stair_es.training.data.dense_features import CachedDenseTexts, DenseFeatures
from stair_es.training.data.sampler import BatchSampler
from stair_es.training.data.shards import ShardSource, build_shard_sources, compute_hash
from stair_es.training.validation import CaptionValidation, ClassValidation, ValidationSet
from stair_es.training.workers import WorkerGroup
from stair_es.types import Pixels

_HELD_OUT = "held-out"
_MAX_HELD_OUT = 2000


@dataclass(frozen=True, kw_only=True)
class LoadedInputs:
    """Parts named by the configuration that the caller has already loaded."""

    pairs: TrainingSet
    """Pairs to use instead of those of `data.train`."""
    dense: DenseFeatures | None = None
    """The dense model below the heads; None if it is still to be loaded."""


@dataclass(frozen=True, kw_only=True)
class TrainingSets:
    """The data of a training."""

    pairs: TrainingSet
    """Pairs to train on, with those that are held out of them for validation; none if they are in shards."""
    train_rows: Sequence[int]
    """Rows of `pairs` to train on."""
    held_out_rows: Sequence[int]
    """Rows of `pairs` for validation."""
    validation: Mapping[str, TrainingSet]
    """Further validation sets with captions by name."""
    labeled: Mapping[str, LabeledDataset] = field(default_factory=dict)
    """Validation sets with classes by name."""
    dense: DenseFeatures | None = None
    """The dense model below the heads, if there is one."""
    shards: tuple[ShardSource, ...] = ()
    """Shards to train on; none if the pairs are listed."""

    @cached_property
    def train(self) -> TrainingSet:
        """Return the pairs to train on."""
        return self.pairs.select_pairs(self.train_rows)

    @property
    def all_validation(self) -> Mapping[str, TrainingSet]:
        """Return all validation sets with captions by name, first the pairs that are held out."""
        return {**({_HELD_OUT: self.held_out} if self.held_out_rows else {}), **self.validation}

    @cached_property
    def held_out(self) -> TrainingSet:
        """Return the pairs that are held out."""
        return self.pairs.select_pairs(self.held_out_rows)


def build_training_sets(
    config: TrainConfig, callbacks: Callbacks, threads: int, settings: Settings, loaded: LoadedInputs | None = None
) -> TrainingSets:
    """Return training and validation sets, and the dense model that the configuration names.

    Raises:
        UsageError: If a set is missing or not a caption set, or no pair is left.
        ModelError: If the dense model can't be loaded.
        MissingExtra: If a required library isn't installed.
    """
    data = config.data
    pairs = build_training_set(config, callbacks, threads, settings) if loaded is None else loaded.pairs
    named_sets = dict(zip(_make_unique_names([each.name for each in data.validation]), data.validation, strict=True))
    validation = {
        name: dataset.read_pairs([resolve_pair_file(config, each)]) for name, each in named_sets.items() if each.captions
    }
    labeled = {name: _read_labeled_set(config, each) for name, each in named_sets.items() if each.classes}
    train_rows, held_out_rows = split_rows(pairs, data.validation_share)
    dense = None if loaded is None else loaded.dense
    if dense is None and config.model.has_dense_backbones:
        name = config.resolve_backbone(config.model.image.backbone).name
        dense = dense_features.load_dense_features(name, settings)
    return TrainingSets(
        pairs=pairs,
        train_rows=train_rows,
        held_out_rows=held_out_rows,
        validation=validation,
        labeled=labeled,
        dense=dense,
        shards=build_shard_sources(config),
    )


def _read_labeled_set(config: TrainConfig, each: ValidationSetConfig) -> LabeledDataset:
    names = None if each.class_names is None else config.resolve_path(each.class_names)
    return read_image_folder(config.resolve_path(each.classes or ""), classes=names)


def split_rows(pairs: TrainingSet, held_out_share: float) -> tuple[Sequence[int], list[int]]:
    """Return the rows to train on, and those that are held out, by a hash of their names.

    Args:
        pairs: The images.
        held_out_share: Fraction that is held out; of many images at most 2,000.

    Raises:
        UsageError: If there are too few images.
    """
    if not held_out_share:
        return range(len(pairs)), []
    count = min(round(held_out_share * len(pairs)), _MAX_HELD_OUT)
    if not count:
        raise DatasetError(
            f"{len(pairs)} images are too few to hold out {held_out_share:.0%} for validation", "Give more images."
        )
    digests = [hashlib.sha256(pair.name.encode()).digest() for pair in pairs]
    order = sorted(range(len(pairs)), key=digests.__getitem__)
    return sorted(order[count:]), sorted(order[:count])


def _make_unique_names(stems: Sequence[str]) -> list[str]:
    """Return unique names of sets."""
    return [f"{stem}-{number}" if stems.count(stem) > 1 else stem for number, stem in enumerate(stems, 1)]


def build_training_set(config: TrainConfig, callbacks: Callbacks, threads: int, settings: Settings) -> TrainingSet:
    """Return the training pairs, without the images of the held-out sets; none if they are in shards.

    Raises:
        UsageError: If a set is missing or not a caption set, or no pair is left.
        MissingExtra: If a required library isn't installed.
        SourceError: If the endpoint of captions fails.
    """
    data = config.data
    if data.has_shards:
        return TrainingSet.from_pairs([])
    add_captions = None
    if data.captions_from is not None:
        folder = feature_cache.get_training_cache(settings.home)
        captioner = Captioner(data.captions_from, data.captions_model, data.captions_prompt, folder)
        add_captions = partial(captioner.add_captions, progress=lambda done: callbacks.on_message(f"captions: {done:,} images"))
    train_set = dataset.read_pairs([resolve_pair_file(config, each) for each in data.train], add_captions)
    held_out = {Path(each.captions or "").stem: dataset.read_pairs([resolve_pair_file(config, each)]) for each in data.held_out}
    if held_out:
        train_set = dedup.remove_duplicates(train_set, held_out, progress=callbacks.on_progress, workers=threads)
    if not len(train_set):
        raise DatasetError("no pair is left to train on", "Every image is among those of data.held_out, or can't be read.")
    train_set.tag_share = data.tag_share
    for line in train_set.problems.format_lines():
        callbacks.on_message(line)
    return train_set


def resolve_pair_file(config: TrainConfig, dataset_config: DatasetConfig | ValidationSetConfig) -> PairFile:
    """Resolve the paths of a caption set relative to the configuration file."""
    images = None if dataset_config.images is None else config.resolve_path(dataset_config.images)
    return PairFile(path=config.resolve_path(dataset_config.captions or ""), images=images, split=dataset_config.split)


@dataclass(frozen=True)
class SelectedImages:
    """Some images of a loader."""

    images: ImageLoader
    rows: Sequence[int]
    """Number of each image in that loader."""

    def load_batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return what the loader returns, and the positions of unreadable images."""
        return self.images.load_batch([self.rows[item] for item in items], views)


@dataclass(frozen=True, kw_only=True)
class DataModule:
    """All data of a training."""

    batches: BatchSource
    validations: tuple[ValidationSet, ...]


def build_data_module(
    config: TrainConfig,
    model: StairModel,
    sets: TrainingSets,
    callbacks: Callbacks,
    workers: WorkerGroup,
    threads: int,
    settings: Settings,
) -> DataModule:
    """Build the source of batches and the validation sets of a configuration.

    Args:
        config: Training configuration.
        model: Model that computes the states of frozen backbones, where they are cached.
        sets: Training and validation sets, and the dense model if there is one.
        callbacks: Callbacks for progress.
        workers: Workers that share each batch.
        threads: Threads that read images.
        settings: Data folder of the cache, and trusted models.

    Raises:
        StairError: If a set or the teacher can't be loaded.
    """
    data, train_set = config.data, sets.train
    reader = _build_reader(config, sets)
    class_texts = {name: fill_prompts(each.names, DEFAULT_PROMPTS) for name, each in sets.labeled.items()}
    first_captions = {name: tuple(pair.captions[0] for pair in each) for name, each in sets.all_validation.items()}
    caption_sampler = CaptionSampler(captions=train_set, seed=config.seed, texts_per_image=data.texts_per_image)
    text_loader: TextLoader = OnlineTexts(model.tokens)
    if data.cache:
        rows = [*first_captions.values(), *chain.from_iterable(class_texts.values())]
        all_texts = [*caption_sampler.collect_captions(), *chain.from_iterable(rows)]
        text_loader = _cache_texts(model, sets.dense, all_texts, callbacks, settings.home)
    make_image_loader = _choose_image_loader(config, model, sets.dense, callbacks, threads, settings.home)
    all_images = make_image_loader(reader, data.views)
    make_plain_loader = partial(_make_plain_loader, make_image_loader, reader)
    validation_images = {name: make_plain_loader(each) for name, each in sets.validation.items()}
    if sets.held_out_rows:
        plain = all_images if data.cache else make_plain_loader(sets.pairs)  # the first cached view isn't augmented
        validation_images[_HELD_OUT] = SelectedImages(plain, sets.held_out_rows)
    mask = config.stages[-1].text_mask
    validations: list[ValidationSet] = [
        CaptionValidation(name=name, captions=captions, images=validation_images[name], texts=text_loader, mask=mask)
        for name, captions in first_captions.items()
    ]
    for name, labeled in sets.labeled.items():
        labels, loader = _build_labeled_images(labeled, make_plain_loader)
        validations.append(
            ClassValidation(name=name, labels=labels, class_texts=class_texts[name], images=loader, texts=text_loader, mask=mask)
        )
    teacher = _load_teacher(config, settings)
    if sets.shards:
        batches: BatchSource = build_shard_batches(config, sets.shards, text_loader, teacher, workers, train_set.problems)
    else:
        images, problems = SelectedImages(all_images, sets.train_rows), train_set.problems
        collator = Collator(images=images, texts=text_loader, caption_sampler=caption_sampler, problems=problems)
        batches = _build_pair_batches(config, collator, replace(reader, pairs=train_set), teacher, workers, threads)
    return DataModule(batches=batches, validations=tuple(validations))


def _build_reader(config: TrainConfig, sets: TrainingSets) -> feature_cache.PixelReader:
    return feature_cache.PixelReader(
        pairs=sets.pairs,
        spec=config.model.image.image_spec,
        augment=transforms.get_augmentation(config.data.augment),
        seed=_get_view_seed(config),
        problems=sets.train.problems,
    )


def _make_plain_loader(
    make_image_loader: Callable[[feature_cache.PixelReader, int], ImageLoader],
    reader: feature_cache.PixelReader,
    pairs: TrainingSet,
) -> ImageLoader:
    """Return a loader of a set's images that doesn't augment them."""
    plain = replace(reader, pairs=pairs, problems=pairs.problems, augment=transforms.NO_AUGMENTATION)
    return make_image_loader(plain, 1)


def _build_pair_batches(
    config: TrainConfig,
    collator: Collator,
    reader: feature_cache.PixelReader,
    teacher: DistillationTeacher | None,
    workers: WorkerGroup,
    threads: int,
) -> PairBatches:
    teacher_reader = None if teacher is None else replace(reader, spec=teacher.image_spec)
    return PairBatches(
        collator=collator,
        sampler=BatchSampler([compute_hash(pair.captions[0]) for pair in reader.pairs], config.batch.size, config.seed),
        workers=workers,
        seed=config.seed,
        noise=config.data.noise,
        is_taught_by_backbone=config.is_taught_by_backbone,
        teacher=teacher,
        teacher_images=None if teacher_reader is None else feature_cache.OnlineImages(teacher_reader, threads),
    )


def _cache_texts(
    model: StairModel, dense: DenseFeatures | None, texts: Sequence[str], callbacks: Callbacks, home: DataDir
) -> TextLoader:
    if dense is not None:
        return CachedDenseTexts(dense, model.tokens, texts, callbacks.on_progress)
    return feature_cache.CachedTextFeatures(model, texts, feature_cache.get_training_cache(home), callbacks.on_progress)


def _build_labeled_images(
    labeled: LabeledDataset, make_loader: Callable[[TrainingSet], ImageLoader]
) -> tuple[tuple[int, ...], ImageLoader]:
    """Return the classes and a loader of the images of a set with classes."""
    rows = zip(labeled.files, labeled.locators, labeled.labels, strict=True)
    pairs = TrainingSet.from_pairs(TrainingPair(str(path), locator, (str(label),)) for path, locator, label in rows)
    return tuple(int(pair.captions[0]) for pair in pairs), make_loader(pairs)


def _choose_image_loader(
    config: TrainConfig, model: StairModel, dense: DenseFeatures | None, callbacks: Callbacks, threads: int, home: DataDir
) -> Callable[[feature_cache.PixelReader, int], ImageLoader]:
    """Return a function that makes an image loader from a reader and the number of views."""
    if not config.data.cache:
        return lambda reader, views: feature_cache.OnlineImages(reader, threads)
    if dense is not None:
        return lambda reader, views: dense.cache_images(reader, views, callbacks.on_progress, threads)
    return lambda reader, views: feature_cache.cache_image_features(
        model, reader, views, feature_cache.get_training_cache(home), callbacks.on_progress, threads
    )


def _get_view_seed(config: TrainConfig) -> int:
    """Return the seed for augmented views; a constant with a cache, so that cached states serve runs of any seed."""
    return 0 if config.data.cache else config.seed


def _load_teacher(config: TrainConfig, settings: Settings) -> DistillationTeacher | None:
    """Return the teacher; None if no stage needs it, or the cached states are its vectors."""
    if config.is_taught_by_backbone or not any(stage.losses.get("distil") for stage in config.stages):
        return None
    teacher = str(config.model.teacher)
    folder = config.resolve_path(teacher)
    name = str(folder) if folder.is_dir() else teacher
    encoder = registry.load_encoder(ModelSpec(name=name, settings=settings))
    dense = get_dense_encoder(encoder)
    if dense is None:
        raise ConfigError(
            f"the teacher {teacher!r} has no dense vectors", "Use a model with dense vectors: a dense checkpoint, CLIP, SigLIP."
        )

    def encode_batch(pixels_BHWC: Pixels, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(dense.encode_images_dense(pixels_BHWC)), torch.from_numpy(dense.encode_texts_dense(texts))

    return DistillationTeacher(image_spec=encoder.image_spec, encode=encode_batch)
