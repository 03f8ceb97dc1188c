"""Build what a training configuration names: the training set, and the model with its initial parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings
from stair_es.errors import ModelError, UsageError
from stair_es.model.networks import minilm_download
from stair_es.model.stair import checkpoint
from stair_es.model.stair import tokenizer as stair_tokens
from stair_es.model.stair.backbones import fill_backbone_config
from stair_es.model.stair.configuration import TOKENIZER_FILE, BackboneConfig, read_stair_config
from stair_es.model.stair.modeling import StairModel
from stair_es.model.stair.tokenizer import IdArray, StairTokenizer
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.optional import import_optional
from stair_es.training.callbacks import Callbacks
from stair_es.training.config.schema import DatasetConfig
from stair_es.training.config.train_config import TrainConfig, build_stair_config
from stair_es.training.data import dataset, dedup, dense_features
from stair_es.training.data.dataset import PairFile, TrainingSet
from stair_es.training.data.dense_features import DenseFeatures

_MAX_HELD_OUT = 2000
_FEW_IMAGES = 1000
"""Below this number of images, words that occur once are tokens, too."""


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
    """Pairs to train on, with those that are held out of them for validation."""
    train_rows: Sequence[int]
    """Rows of `pairs` to train on."""
    held_out_rows: Sequence[int]
    """Rows of `pairs` for validation."""
    validation: Mapping[str, TrainingSet]
    """Further validation sets by name."""
    dense: DenseFeatures | None = None
    """The dense model below the heads, if there is one."""

    @cached_property
    def train(self) -> TrainingSet:
        """Return the pairs to train on."""
        return self.pairs.select_pairs(self.train_rows)

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
    pairs = build_training_set(config, callbacks, threads) if loaded is None else loaded.pairs
    names = _make_unique_names([Path(each.captions).stem for each in data.validation])
    validation = {
        name: dataset.read_pairs([resolve_pair_file(config, each)]) for name, each in zip(names, data.validation, strict=True)
    }
    train_rows, held_out_rows = split_rows([pair.name for pair in pairs], data.validation_share)
    dense = None if loaded is None else loaded.dense
    if dense is None and config.model.has_dense_backbones:
        name = _resolve_local_backbone(config, config.model.image.backbone).name
        dense = dense_features.load_dense_features(name, settings)
    return TrainingSets(pairs=pairs, train_rows=train_rows, held_out_rows=held_out_rows, validation=validation, dense=dense)


def split_rows(names: Sequence[str], held_out_share: float) -> tuple[list[int], list[int]]:
    """Return the rows to train on, and those that are held out, by a hash of their names.

    Args:
        names: Name of each image.
        held_out_share: Fraction that is held out; of many images at most 2,000.

    Raises:
        UsageError: If there are too few images.
    """
    count = min(round(held_out_share * len(names)), _MAX_HELD_OUT)
    if held_out_share and not count:
        raise UsageError(f"{len(names)} images are too few to hold out {held_out_share:.0%} for validation", "Give more images.")
    order = sorted(range(len(names)), key=lambda row: hashlib.sha256(names[row].encode()).digest())
    return sorted(order[count:]), sorted(order[:count])


def _make_unique_names(stems: Sequence[str]) -> list[str]:
    """Return unique names of sets."""
    return [f"{stem}-{number}" if stems.count(stem) > 1 else stem for number, stem in enumerate(stems, 1)]


def build_training_set(config: TrainConfig, callbacks: Callbacks, threads: int) -> TrainingSet:
    """Return the training pairs, without the images of the held-out sets.

    Raises:
        UsageError: If a set is missing or not a caption set, or no pair is left.
        MissingExtra: If a required library isn't installed.
    """
    data = config.data
    train_set = dataset.read_pairs([resolve_pair_file(config, each) for each in data.train])
    held_out = {Path(each.captions).stem: dataset.read_pairs([resolve_pair_file(config, each)]) for each in data.held_out}
    if held_out:
        train_set = dedup.remove_duplicates(train_set, held_out, progress=callbacks.on_progress, workers=threads).kept
    if not len(train_set):
        raise UsageError("no pair is left to train on", "Every image is among those of data.held_out, or can't be read.")
    train_set.tag_share = data.tag_share
    for line in train_set.problems.format_lines():
        callbacks.on_message(line)
    return train_set


def resolve_pair_file(config: TrainConfig, dataset_config: DatasetConfig) -> PairFile:
    """Resolve the paths of a caption set relative to the configuration file."""
    images = None if dataset_config.images is None else config.folder / Path(dataset_config.images).expanduser()
    return PairFile(path=config.folder / Path(dataset_config.captions).expanduser(), images=images, split=dataset_config.split)


def build_model(config: TrainConfig, sets: TrainingSets, callbacks: Callbacks, home: DataDir) -> StairModel:
    """Build the model with its initial parameters: from a checkpoint, from pretrained backbones, or random.

    Args:
        config: Training configuration.
        sets: Sets, whose texts determine the vocabulary for `vocabulary = "captions"`, and the dense model if there is one.
        callbacks: Callbacks for messages.
        home: Data folder, for the package text network.

    Raises:
        ModelError: If a backbone, a tokenizer or the checkpoint can't be loaded, or doesn't fit.
        MissingExtra: If a required library isn't installed.
    """
    model_config, train_set, dense = config.model, sets.train, sets.dense
    start = None if model_config.start is None else config.folder / Path(model_config.start).expanduser()
    image, text = (
        _resolve_local_backbone(config, model_config.image.backbone),
        _resolve_local_backbone(config, model_config.text.backbone),
    )
    tokenizer = _load_backbone_tokenizer(text, home) if start is None else stair_tokens.load_tokenizer(start / TOKENIZER_FILE)
    features = _choose_features(config, tokenizer, train_set) if start is None else _load_features(config, start)
    if dense is not None:
        image, text = (replace(each, config={"dimensions": dense.dimensions}) for each in (image, text))
    stair_config = build_stair_config(config, fill_backbone_config(image, model_config.image.size_px), fill_backbone_config(text))
    stair_config = replace(stair_config, vocabulary="words" if isinstance(features, WholeWordVocabulary) else "tokens")
    model = StairModel(
        stair_config,
        StairTokenizer(tokenizer, features, model_config.text.max_tokens),
        pretrained=model_config.pretrained and start is None,
        home=home,
    )
    if start is not None:
        checkpoint.load_tensors_into(model, start)
    else:
        model.set_bias(model_config.start_bias)
        if model_config.start_embeddings and "tokens" in model_config.heads:
            model.initialize_from_text_embeddings()
    callbacks.on_message(
        f"model: {len(features):,} tokens, {sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters"
    )
    model.eval()  # cached states are computed before training, without dropout
    return model


def _resolve_local_backbone(config: TrainConfig, backbone: BackboneConfig) -> BackboneConfig:
    """Return the backbone with an absolute path if it is a folder next to the configuration file."""
    folder = config.folder / Path(backbone.name).expanduser()
    is_local = backbone.kind in ("transformers", "dense") and bool(backbone.name) and folder.is_dir()
    return replace(backbone, name=str(folder)) if is_local else backbone


def _choose_features(config: TrainConfig, tokenizer: Tokenizer, train_set: TrainingSet) -> IdArray | WholeWordVocabulary:
    if config.model.has_whole_words:
        return WholeWordVocabulary.from_file(config.folder / Path(config.model.vocabulary).expanduser())
    if config.model.vocabulary == "all":
        return stair_tokens.list_candidate_tokens(tokenizer)
    if config.model.has_dense_backbones:
        min_images = 1 if len(train_set) < _FEW_IMAGES else 2
        return stair_tokens.collect_whole_words(((*pair.captions, *pair.tags) for pair in train_set), min_images)
    return stair_tokens.list_tokens_in_texts(tokenizer, (text for pair in train_set for text in (*pair.captions, *pair.tags)))


def _load_features(config: TrainConfig, start: Path) -> IdArray | WholeWordVocabulary:
    """Return the tokens of the checkpoint that training starts from, with the spellings of the configured word list."""
    features = checkpoint.read_features(start, read_stair_config(start))
    if not config.model.has_whole_words:
        return features
    vocabulary = WholeWordVocabulary.from_file(config.folder / Path(config.model.vocabulary).expanduser())
    if not isinstance(features, WholeWordVocabulary) or features.words != vocabulary.words:
        raise ModelError(
            f"the checkpoint {start} has other tokens than the words of {config.model.vocabulary}",
            "Leave model.vocabulary out to keep the checkpoint's, or model.start to train from scratch.",
        )
    return vocabulary


def _load_backbone_tokenizer(text: BackboneConfig, home: DataDir) -> Tokenizer:
    if text.kind == "dense":
        return stair_tokens.build_word_tokenizer()
    if text.kind == "package" or not text.name:  # from scratch: BERT's vocabulary
        return stair_tokens.load_tokenizer(minilm_download.ensure_minilm(home.models) / TOKENIZER_FILE)
    local = Path(text.name) / TOKENIZER_FILE
    if Path(text.name).is_dir():
        return stair_tokens.load_tokenizer(local)
    hub = import_optional("huggingface_hub", "hf")
    try:
        return stair_tokens.load_tokenizer(Path(hub.hf_hub_download(text.name, TOKENIZER_FILE)))
    except (OSError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise ModelError(
            f"no tokenizer.json for {text.name!r}: {error}", "Specify a text backbone that has a fast tokenizer."
        ) from error
