"""Train heads over a dense model: on images with captions, or on images alone with the dense model as teacher."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stair_es.config.settings import Settings
from stair_es.distill.dense_model import build_no_image_error, iterate_source_items
from stair_es.distill.labels import MAX_SAMPLE_IMAGES
from stair_es.errors import DatasetError
from stair_es.model import registry
from stair_es.model.base import ModelCard, ModelSpec
from stair_es.model.labels.distilled import build_scored_words
from stair_es.model.labels.word_list import PROMPTS, WordKind
from stair_es.sources.base import Source
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import from_file_uri
from stair_es.training.callbacks import Callbacks
from stair_es.training.config.toml import dump_toml
from stair_es.training.config.train_config import TrainConfig, build_train_config
from stair_es.training.data import dataset
from stair_es.training.data.dataset import PairFile, TrainingPair, TrainingSet
from stair_es.training.data.dense_features import DenseFeatures, load_dense_features
from stair_es.training.data.feature_cache import PixelReader
from stair_es.training.data.transforms import NO_AUGMENTATION
from stair_es.training.data_module import LoadedInputs
from stair_es.training.train import TrainingResult, train_model
from stair_es.types import Floats, PartProgressCallback

PSEUDO_CAPTIONS_FILE = "captions.jsonl"
_CAPTION_WORDS, _TAG_WORDS = 4, 4
_MIN_WEIGHT_SHARE = 0.7
"""Share of the heaviest word's weight that the other words of a caption have at least: a caption has the few that stand out."""
_SCORED_IMAGES = 256
"""Images that are scored at once."""
_DECODE_THREADS = 2
_MIN_CAPTIONS = 4
_BATCH_SIZE = 256
"""Pairs per update, if there are twice as many."""
_EPOCHS, _MIN_STEPS, _MAX_STEPS = 30, 300, 20_000
"""Passes over the pairs, within these limits of updates."""
_VALIDATIONS = 20
"""Validations per training; it ends early after `_PATIENCE` of them without a better recall."""
_PATIENCE = 5
_TEXTS_PER_IMAGE, _TEXTS_PER_CAPTIONLESS_IMAGE = 4, 2
_HELD_OUT_SHARE = 0.1
_NOISE_LENGTH = 1.0
"""Largest length of the noise that is added to dense vectors, whose own is 1."""


def list_image_pairs(sources: Sequence[Source], on_message: Callable[[str], None]) -> TrainingSet:
    """List the images of sources, as pairs with an empty caption.

    Raises:
        UsageError: If there is no image.
        SourceError: If listing can't continue.
    """
    items = iterate_source_items(sources, on_message)
    images = TrainingSet.from_pairs(TrainingPair(item.uri, item.locator, ("",)) for item in items)
    if not len(images):
        raise build_no_image_error(sources)
    return images


def write_pseudo_captions(
    dense: DenseFeatures, images: TrainingSet, words: Mapping[str, WordKind], path: Path, progress: PartProgressCallback
) -> TrainingSet:
    """Caption images with words, and write the captions as JSON Lines.

    The first caption has the four heaviest words, the others fewer of them; further words are tags.

    Returns:
        The readable images with their captions.

    Raises:
        OSError: If a file can't be written.
    """
    reader = PixelReader(pairs=images, spec=dense.card.image_spec, augment=NO_AUGMENTATION, seed=0, problems=images.problems)
    loader = dense.cache_images(reader, 1, progress, _DECODE_THREADS)
    states_BLD, unreadable = loader.load_batch(range(len(images)), [0] * len(images))
    readable = sorted(set(range(len(images))) - set(unreadable))
    vectors_ND: Floats = states_BLD[readable, 0].numpy()
    heaviest = _find_heaviest_words(dense, vectors_ND, words, progress)
    pairs = [_caption_pair(images[number], own) for number, own in zip(readable, heaviest, strict=True) if own]
    lines = ({"image": _name_image(pair), "captions": pair.captions, "tags": pair.tags} for pair in pairs)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return TrainingSet.from_pairs(pairs, images.problems)


def _find_heaviest_words(
    dense: DenseFeatures, vectors_ND: Floats, words: Mapping[str, WordKind], progress: PartProgressCallback
) -> list[list[str]]:
    """Return the words of each image that stand out, heaviest first, by label scoring."""
    chosen = np.random.default_rng(0).permutation(len(vectors_ND))[:MAX_SAMPLE_IMAGES]
    scored = build_scored_words(partial(dense.encode_texts, progress=progress), words, PROMPTS, vectors_ND[chosen])
    names, found, count = scored.vocabulary.words, [], _CAPTION_WORDS + _TAG_WORDS
    for begin in range(0, len(vectors_ND), _SCORED_IMAGES):
        for weights_V in scored.weigh_images(vectors_ND[begin : begin + _SCORED_IMAGES], count):
            order = np.argsort(-weights_V, kind="stable")[:count]
            found.append([names[index] for index in order if weights_V[index] > _MIN_WEIGHT_SHARE * weights_V[order[0]]])
        progress("words of images", len(found), len(vectors_ND))
    return found


def _caption_pair(image: TrainingPair, words: Sequence[str]) -> TrainingPair:
    main, tags = words[:_CAPTION_WORDS], words[_CAPTION_WORDS:]
    captions = dict.fromkeys((", ".join(main), main[0], ", ".join(main[:2]), ", ".join(main[1:])) if len(main) > 1 else main)
    return image._replace(captions=tuple(captions), tags=tuple(tags))


def _name_image(pair: TrainingPair) -> str:
    """Return the path of a local file, with which the captions are a caption set; else the URI."""
    return str(from_file_uri(pair.locator.uri)) if isinstance(pair.locator, FileLocator) else pair.name


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of a training of heads."""

    image_tokens: int = 64
    """Maximum number of tokens per image."""
    text_tokens: int = 64
    """Maximum number of tokens per text."""
    steps: int | None = None
    """Number of updates; None for one that suits the number of images."""
    seed: int = 0
    device: str = "auto"


def distill_captions(
    model: str, captions: Sequence[Path], out: Path, options: HeadOptions, callbacks: Callbacks, settings: Settings
) -> TrainingResult:
    """Train heads on images with captions, or resume the training in `out`.

    Raises:
        UsageError: If a caption set can't be read, or has too few captions.
        StairError: If the dense model isn't available, or the training failed.
    """
    pairs = dataset.read_pairs([PairFile(path=path.absolute()) for path in captions])
    return _train_head(model, pairs, [path.absolute() for path in captions], out, options, callbacks, settings)


def distill_images(
    model: str,
    sources: Sequence[Source],
    words: Mapping[str, WordKind],
    out: Path,
    options: HeadOptions,
    callbacks: Callbacks,
    settings: Settings,
) -> TrainingResult:
    """Train heads on images alone: their captions are the words that label scoring finds for them.

    Args:
        model: Folder or hub id of the dense model.
        sources: The images.
        words: Words that an image may be captioned with, and their kinds.
        out: Folder of state, logs and checkpoint; `captions.jsonl` in it has the words of each image.
        options: Options.
        callbacks: Callbacks.
        settings: Data folder and trusted models.

    Raises:
        UsageError: If there are too few images.
        StairError: If the dense model isn't available, or the training failed.
    """
    dense = load_dense_features(model, settings)
    images = list_image_pairs(sources, callbacks.on_message)
    out.mkdir(parents=True, exist_ok=True)
    pairs = write_pseudo_captions(dense, images, words, out / PSEUDO_CAPTIONS_FILE, callbacks.on_progress)
    return _train_head(model, pairs, [(out / PSEUDO_CAPTIONS_FILE).absolute()], out, options, callbacks, settings, dense)


def _train_head(
    model: str,
    pairs: TrainingSet,
    captions: Sequence[Path],
    out: Path,
    options: HeadOptions,
    callbacks: Callbacks,
    settings: Settings,
    dense: DenseFeatures | None = None,
) -> TrainingResult:
    resolved = registry.resolve_model(ModelSpec(name=model, settings=settings))
    config = build_head_config(resolved.portable_name, resolved.card, captions, pairs, options)
    for line in pairs.problems.format_lines():
        callbacks.on_message(line)
    loaded = LoadedInputs(pairs=pairs, dense=dense)
    return train_model(config, out, callbacks, device=options.device, settings=settings, loaded=loaded)


def build_head_config(
    model: str, card: ModelCard, captions: Sequence[Path], pairs: TrainingSet, options: HeadOptions
) -> TrainConfig:
    """Build the configuration of a training of heads.

    Args:
        model: Absolute folder or hub id of the dense model.
        card: Its card.
        captions: Caption files that the pairs are from.
        pairs: All pairs; a part of them is held out for validation.
        options: Options.

    Raises:
        UsageError: If there are too few captions.
    """
    different = len({pair.captions[0] for pair in pairs})
    if different < _MIN_CAPTIONS:
        raise DatasetError(
            f"{different} images with different captions are too few to train heads",
            f"Give at least {_MIN_CAPTIONS}; some thousands are better. --method labels needs none.",
        )
    is_captionless = [path.name for path in captions] == [PSEUDO_CAPTIONS_FILE]
    size = min(_BATCH_SIZE, max(2, different // 2))
    steps = options.steps or min(max(_MIN_STEPS, _EPOCHS * len(pairs) // size), _MAX_STEPS)
    spec = card.image_spec
    head = {"backbone": {"kind": "dense", "name": model}, "pool": "mean", "transform_dim": 256, "dropout": 0.1}
    pixels: dict[str, Any] = {"size_px": spec.size_px, "fit": spec.fit, "resample": spec.resample}
    if spec.resized_px is not None:
        pixels["resized_px"] = spec.resized_px
    values: dict[str, Any] = {
        "name": f"{card.model_id.rpartition('-')[0] or 'dense'}-head",
        "seed": options.seed,
        "model": {
            "vocabulary": "captions",
            "start_embeddings": False,
            "image": {**head, **pixels, "mean": [0.0] * 3, "std": [1.0] * 3, "top_k": options.image_tokens},
            "text": {**head, "top_k": options.text_tokens, "own_words": True},
        },
        "data": {
            "train": [{"captions": str(path)} for path in captions],
            "validation_share": _HELD_OUT_SHARE,
            "texts_per_image": _TEXTS_PER_CAPTIONLESS_IMAGE if is_captionless else _TEXTS_PER_IMAGE,
            "cache": True,
            "views": 1,
            "noise": _NOISE_LENGTH,
        },
        "recipe": {"name": "distilled", "steps": steps, "frozen_backbones": True},
        "batch": {"size": size},
        "optim": {"lr": 2e-3, "warmup_steps": min(30, steps // 10)},
        "validation": {"every": max(1, steps // _VALIDATIONS), "patience": _PATIENCE},
    }
    return build_train_config(values, Path.cwd(), dump_toml(values))
