"""Train heads over a dense model: on images with captions, or on images alone with the dense model as teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_es.config.settings import Settings
from stair_es.distill.pseudo_captions import PSEUDO_CAPTIONS_FILE, list_image_pairs, write_pseudo_captions
from stair_es.errors import UsageError
from stair_es.model import registry
from stair_es.model.base import ModelCard
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.sources.base import Source
from stair_es.training.callbacks import Callbacks
from stair_es.training.config.toml import dump_toml
from stair_es.training.config.train_config import TrainConfig, parse_train_config
from stair_es.training.data import dataset
from stair_es.training.data.dataset import PairFile, TrainingSet
from stair_es.training.data.dense_features import DenseFeatures, load_dense_features
from stair_es.training.factory import LoadedInputs
from stair_es.training.train import TrainingResult, train_model

_MIN_CAPTIONS = 4
_BATCH_SIZE, _MIN_STEPS, _MAX_STEPS, _EPOCHS = 256, 300, 20_000, 30
_VALIDATIONS, _PATIENCE = 20, 5
_TEXTS_PER_IMAGE, _TEXTS_PER_CAPTIONLESS_IMAGE = 4, 2
_HELD_OUT_SHARE = 0.1
_NOISE = 1.0


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

    Args:
        model: Folder or hub id of the dense model.
        captions: Caption sets.
        out: Folder of state, logs and checkpoint.
        options: Options.
        callbacks: Callbacks.
        settings: Data folder and trusted models.

    Raises:
        UsageError: If a caption set can't be read, or has too few captions.
        StairError: If the dense model isn't available, or the training failed.
    """
    pairs = dataset.read_pairs([PairFile(path=path.absolute()) for path in captions])
    return _train_head(model, pairs, [path.absolute() for path in captions], out, options, callbacks, settings)


def distill_images(
    model: str,
    sources: Sequence[Source],
    vocabulary: WholeWordVocabulary,
    out: Path,
    options: HeadOptions,
    callbacks: Callbacks,
    settings: Settings,
) -> TrainingResult:
    """Train heads on images alone: their captions are the words that a decomposition of their dense vectors finds.

    Args:
        model: Folder or hub id of the dense model.
        sources: The images.
        vocabulary: Words that an image may be captioned with.
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
    pairs = write_pseudo_captions(dense, images, vocabulary, out / PSEUDO_CAPTIONS_FILE, callbacks.on_progress)
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
    name = registry.make_portable_name(model)
    config = build_head_config(name, registry.get_model_card(name, settings=settings), captions, pairs, options)
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
        raise UsageError(
            f"{different} images with different captions are too few to train heads",
            f"Give at least {_MIN_CAPTIONS}; some thousands are better. --method dictionary needs none.",
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
            "noise": _NOISE,
        },
        "recipe": {"name": "distilled", "steps": steps, "frozen_backbones": True},
        "batch": {"size": size},
        "optim": {"lr": 2e-3, "warmup_steps": min(30, steps // 10)},
        "validation": {"every": max(1, steps // _VALIDATIONS), "patience": _PATIENCE},
    }
    return parse_train_config(dump_toml(values))
