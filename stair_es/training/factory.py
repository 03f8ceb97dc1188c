"""Build the model of a training configuration with its initial parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.errors import ModelError
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
from stair_es.training.config.train_config import TrainConfig, build_stair_config
from stair_es.training.data.dataset import TrainingSet
from stair_es.training.data_module import TrainingSets

_FEW_IMAGES = 1000
"""Below this number of images, words that occur once are tokens, too."""


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
    start = None if model_config.start is None else config.resolve_path(model_config.start)
    image, text = (config.resolve_backbone(tower.backbone) for tower in (model_config.image, model_config.text))
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


def _choose_features(config: TrainConfig, tokenizer: Tokenizer, train_set: TrainingSet) -> IdArray | WholeWordVocabulary:
    if config.model.has_whole_words:
        return WholeWordVocabulary.from_file(config.resolve_path(config.model.vocabulary))
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
    vocabulary = WholeWordVocabulary.from_file(config.resolve_path(config.model.vocabulary))
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
