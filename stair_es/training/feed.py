"""The data module of a training: images and texts (live or cached), validation sets, and the teacher's targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from stair_es.config import Home
from stair_es.errors import UsageError
from stair_es.eval.dense import dense_of
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.model.stair import Stair
from stair_es.training import augment, features, pairs
from stair_es.training.build import file_of
from stair_es.training.config import TrainConfig
from stair_es.training.ears import Ears
from stair_es.training.examples import Examples, Images, LiveTexts, Texts, Wording
from stair_es.training.loop import Teacher
from stair_es.training.pairs import TrainingSet
from stair_es.training.sampler import Draw
from stair_es.training.validate import Validation


@dataclass(frozen=True, kw_only=True)
class Feed:
    """All data of a training."""

    examples: Examples
    validations: tuple[Validation, ...]
    teacher: Teacher | None


def feed(config: TrainConfig, model: Stair, learned: TrainingSet, ears: Ears, threads: int) -> Feed:
    """Build the data module of a configuration.

    Args:
        config: Training configuration.
        model: Model that computes the states of frozen backbones, where they are cached.
        learned: Training set.
        ears: Callbacks for progress.
        threads: Threads that read images.

    Returns:
        Collator, validation sets and teacher.

    Raises:
        StairError: If a set or the teacher can't be loaded.
    """
    data = config.data
    spec = config.model.image.image_spec
    preset = augment.preset(data.augment)
    reader = features.Reader(pairs=learned, spec=spec, augment=preset, seed=_view_seed(config), problems=learned.problems)
    sets = [pairs.read_pairs([file_of(config, each)]) for each in data.validation]
    readers = [replace(reader, pairs=each, problems=each.problems, augment=augment.NONE) for each in sets]
    firsts = [tuple(pair.captions[0] for pair in each) for each in sets]
    wording = Wording(captions=learned, seed=config.seed, texts_per_image=data.texts_per_image)
    texts: Texts = LiveTexts(model.tokens)
    if data.cache:
        written = [*wording.all(), *(text for first in firsts for text in first)]
        texts = features.CachedTexts(model, written, _kept(), ears.progress)
    images = _images(config, model, ears, threads)
    names = _names([Path(each.captions).stem for each in data.validation])
    validations = [
        Validation(name=name, captions=first, images=images(each, 1), texts=texts, mask=config.stages[-1].text_mask)
        for name, first, each in zip(names, firsts, readers, strict=True)
    ]
    return Feed(
        examples=Examples(images=images(reader, data.views), texts=texts, wording=wording),
        validations=tuple(validations),
        teacher=_teacher(config, reader, threads),
    )


def _images(config: TrainConfig, model: Stair, ears: Ears, threads: int) -> Callable[[features.Reader, int], Images]:
    """Return a function that makes an image loader from a reader and the number of views."""
    if not config.data.cache:
        return lambda reader, views: features.LiveImages(reader, threads)
    return lambda reader, views: features.cached_images(model, reader, views, _kept(), ears.progress, threads)


def _kept() -> Path:
    """Return the folder of the feature cache."""
    return Home.from_env().path / "training"


def _view_seed(config: TrainConfig) -> int:
    """Return the seed for augmented views; a constant with a cache, so that cached states serve runs of any seed."""
    return 0 if config.data.cache else config.seed


def _names(stems: Sequence[str]) -> list[str]:
    """Return unique names of sets."""
    return [f"{stem}-{place}" if stems.count(stem) > 1 else stem for place, stem in enumerate(stems, 1)]


def _teacher(config: TrainConfig, reader: features.Reader, threads: int) -> Teacher | None:
    """Return a function from a batch to the teacher's dense vectors; None if no stage needs it."""
    if not any(stage.losses.get("distil") for stage in config.stages):
        return None
    asked = str(config.model.teacher)
    beside = config.folder / Path(asked).expanduser()
    encoder = catalogue.load(ModelSpec(name=str(beside) if beside.is_dir() else asked))
    dense = dense_of(encoder)
    if dense is None:
        raise UsageError(
            f"the teacher {asked!r} has no dense vectors", "Use a model with dense vectors: a dense checkpoint, CLIP, SigLIP."
        )
    own = features.LiveImages(replace(reader, spec=encoder.image_spec), threads)

    def answers(draws: Sequence[Draw], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        pixels, _ = own.batch([draw.item for draw in draws], [draw.turn for draw in draws])
        return torch.from_numpy(dense.encode_images_dense(pixels.numpy())), torch.from_numpy(dense.encode_texts_dense(texts))

    return answers
