"""Build what a training configuration names: the training set, and the model with its initial parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
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
from stair_es.training.data import dataset, dedup
from stair_es.training.data.dataset import PairFile, TrainingSet


def build_training_set(config: TrainConfig, ears: Callbacks, threads: int) -> TrainingSet:
    """Return the training pairs, without the images of the held-out sets.

    Args:
        config: Training configuration.
        ears: Callbacks for progress and problems.
        threads: Threads that read and decode images.

    Raises:
        UsageError: If a set is missing or not a caption set, or no pair is left.
        MissingExtra: If a required library isn't installed.
    """
    data = config.data
    found = dataset.read_pairs([resolve_pair_file(config, each) for each in data.train])
    held_out = {Path(each.captions).stem: dataset.read_pairs([resolve_pair_file(config, each)]) for each in data.held_out}
    if held_out:
        found = dedup.remove_duplicates(found, held_out, told=ears.on_progress, workers=threads).kept
    if not len(found):
        raise UsageError("no pair is left to train on", "Every image is among those of data.held_out, or can't be read.")
    found.tag_share = data.tag_share
    for line in found.problems.format_lines():
        ears.on_message(line)
    return found


def resolve_pair_file(config: TrainConfig, given: DatasetConfig) -> PairFile:
    """Resolve the paths of a caption set relative to the configuration file."""
    images = None if given.images is None else config.folder / Path(given.images).expanduser()
    return PairFile(path=config.folder / Path(given.captions).expanduser(), images=images, split=given.split)


def build_model(config: TrainConfig, learned: TrainingSet, ears: Callbacks, home: DataDir) -> StairModel:
    """Build the model with its initial parameters: from a checkpoint, from pretrained backbones, or random.

    Args:
        config: Training configuration.
        learned: Training set, whose texts determine the vocabulary for `vocabulary = "captions"`.
        ears: Callbacks for messages.
        home: Data folder, for the package text network.

    Raises:
        ModelError: If a backbone, a tokenizer or the checkpoint can't be loaded, or doesn't fit.
        MissingExtra: If a required library isn't installed.
    """
    plan = config.model
    start = None if plan.start is None else config.folder / Path(plan.start).expanduser()
    image, text = _resolve_local_backbone(config, plan.image.backbone), _resolve_local_backbone(config, plan.text.backbone)
    tokenizer = _load_backbone_tokenizer(text, home) if start is None else stair_tokens.load_tokenizer(start / TOKENIZER_FILE)
    features = _choose_features(config, tokenizer, learned) if start is None else _load_features(config, start)
    made = build_stair_config(config, fill_backbone_config(image, plan.image.size_px), fill_backbone_config(text))
    made = replace(made, vocabulary="words" if isinstance(features, WholeWordVocabulary) else "tokens")
    found = StairModel(
        made,
        StairTokenizer(tokenizer, features, plan.text.max_tokens),
        pretrained=plan.pretrained and start is None,
        home=home,
    )
    if start is not None:
        checkpoint.load_tensors_into(found, start)
    else:
        found.set_bias(plan.start_bias)
        if plan.start_embeddings and "tokens" in plan.heads:
            found.initialize_from_text_embeddings()
    ears.on_message(f"model: {len(features):,} tokens, {sum(each.numel() for each in found.parameters()) / 1e6:.1f} M parameters")
    found.eval()  # cached states are computed before training, without dropout
    return found


def _resolve_local_backbone(config: TrainConfig, backbone: BackboneConfig) -> BackboneConfig:
    """Return the backbone with an absolute path if it is a folder next to the configuration file."""
    folder = config.folder / Path(backbone.name).expanduser()
    there = backbone.kind == "transformers" and bool(backbone.name) and folder.is_dir()
    return replace(backbone, name=str(folder)) if there else backbone


def _choose_features(config: TrainConfig, tokenizer: Tokenizer, learned: TrainingSet) -> IdArray | WholeWordVocabulary:
    if config.model.has_whole_words:
        return WholeWordVocabulary.from_file(config.folder / Path(config.model.vocabulary).expanduser())
    if config.model.vocabulary == "all":
        return stair_tokens.list_candidate_tokens(tokenizer)
    return stair_tokens.list_tokens_in_texts(tokenizer, (text for pair in learned for text in (*pair.captions, *pair.tags)))


def _load_features(config: TrainConfig, start: Path) -> IdArray | WholeWordVocabulary:
    """Return the tokens of the checkpoint that training starts from, with the spellings of the configured word list."""
    there = checkpoint.read_features(start, read_stair_config(start))
    if not config.model.has_whole_words:
        return there
    asked = WholeWordVocabulary.from_file(config.folder / Path(config.model.vocabulary).expanduser())
    if not isinstance(there, WholeWordVocabulary) or there.words != asked.words:
        raise ModelError(
            f"the checkpoint {start} has other tokens than the words of {config.model.vocabulary}",
            "Leave model.vocabulary out to keep the checkpoint's, or model.start to train from scratch.",
        )
    return asked


def _load_backbone_tokenizer(text: BackboneConfig, home: DataDir) -> Tokenizer:
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
