"""Build what a training configuration names: the training set, and the model with its initial parameters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from stair_es.config import Home
from stair_es.errors import ModelError, UsageError
from stair_es.extras import need
from stair_es.model import minilm_files, stair_checkpoint, stair_tokens
from stair_es.model.stair import Stair
from stair_es.model.stair_backbones import described
from stair_es.model.stair_config import TOKENIZER_FILE, Backbone, read_config
from stair_es.model.stair_tokens import Ids, Tokens
from stair_es.model.whole_words import WholeWords
from stair_es.training import dedupe, pairs
from stair_es.training.config import TrainConfig, stair_config
from stair_es.training.config_tables import SetOf
from stair_es.training.ears import Ears
from stair_es.training.pairs import PairFile, TrainingSet


def training_set(config: TrainConfig, ears: Ears, threads: int) -> TrainingSet:
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
    found = pairs.read_pairs([file_of(config, each) for each in data.train])
    held_out = {Path(each.captions).stem: pairs.read_pairs([file_of(config, each)]) for each in data.held_out}
    if held_out:
        found = dedupe.dedupe(found, held_out, told=ears.progress, workers=threads).kept
    if not len(found):
        raise UsageError("no pair is left to train on", "Every image is among those of data.held_out, or can't be read.")
    found.tag_share = data.tag_share
    for line in found.problems.lines():
        ears.say(line)
    return found


def file_of(config: TrainConfig, given: SetOf) -> PairFile:
    """Resolve the paths of a caption set relative to the configuration file."""
    images = None if given.images is None else config.folder / Path(given.images).expanduser()
    return PairFile(path=config.folder / Path(given.captions).expanduser(), images=images, split=given.split)


def model(config: TrainConfig, learned: TrainingSet, ears: Ears) -> Stair:
    """Build the model with its initial parameters: from a checkpoint, from pretrained backbones, or random.

    Args:
        config: Training configuration.
        learned: Training set, whose texts determine the vocabulary for `vocabulary = "captions"`.
        ears: Callbacks for messages.

    Raises:
        ModelError: If a backbone, a tokenizer or the checkpoint can't be loaded, or doesn't fit.
        MissingExtra: If a required library isn't installed.
    """
    plan = config.model
    start = None if plan.start is None else config.folder / Path(plan.start).expanduser()
    image, text = _local(config, plan.image.backbone), _local(config, plan.text.backbone)
    tokenizer = _tokenizer(text) if start is None else stair_tokens.load_tokenizer(start / TOKENIZER_FILE)
    features = _features(config, tokenizer, learned) if start is None else _features_of(config, start)
    made = stair_config(config, described(image, plan.image.size_px), described(text))
    made = replace(made, vocabulary="words" if isinstance(features, WholeWords) else "tokens")
    found = Stair(made, Tokens(tokenizer, features, plan.text.max_tokens), pretrained=plan.pretrained and start is None)
    if start is not None:
        stair_checkpoint.load_into(found, start)
    else:
        found.set_bias(plan.start_bias)
        if plan.start_embeddings and "words" in plan.heads:
            found.start_from_text_embeddings()
    ears.say(f"model: {len(features):,} tokens, {sum(each.numel() for each in found.parameters()) / 1e6:.1f} M parameters")
    found.eval()  # cached states are computed before training, without dropout
    return found


def _local(config: TrainConfig, backbone: Backbone) -> Backbone:
    """Return the backbone with an absolute path if it is a folder next to the configuration file."""
    folder = config.folder / Path(backbone.name).expanduser()
    there = backbone.kind == "transformers" and bool(backbone.name) and folder.is_dir()
    return replace(backbone, name=str(folder)) if there else backbone


def _features(config: TrainConfig, tokenizer: Tokenizer, learned: TrainingSet) -> Ids | WholeWords:
    if config.model.has_whole_words:
        return WholeWords.read(config.folder / Path(config.model.vocabulary).expanduser())
    if config.model.vocabulary == "all":
        return stair_tokens.candidates(tokenizer)
    return stair_tokens.of_texts(tokenizer, (text for pair in learned for text in (*pair.captions, *pair.tags)))


def _features_of(config: TrainConfig, start: Path) -> Ids | WholeWords:
    """Return the tokens of the checkpoint that training starts from, with the spellings of the configured word list."""
    there = stair_checkpoint.features(start, read_config(start))
    if not config.model.has_whole_words:
        return there
    asked = WholeWords.read(config.folder / Path(config.model.vocabulary).expanduser())
    if not isinstance(there, WholeWords) or there.words != asked.words:
        raise ModelError(
            f"the checkpoint {start} has other tokens than the words of {config.model.vocabulary}",
            "Leave model.vocabulary out to keep the checkpoint's, or model.start to train from scratch.",
        )
    return asked


def _tokenizer(text: Backbone) -> Tokenizer:
    if text.kind == "package" or not text.name:  # from scratch: BERT's vocabulary
        return stair_tokens.load_tokenizer(minilm_files.ensure(Home.from_env().models) / TOKENIZER_FILE)
    local = Path(text.name) / TOKENIZER_FILE
    if Path(text.name).is_dir():
        return stair_tokens.load_tokenizer(local)
    hub = need("huggingface_hub", "hf")
    try:
        return stair_tokens.load_tokenizer(Path(hub.hf_hub_download(text.name, TOKENIZER_FILE)))
    except (OSError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise ModelError(
            f"no tokenizer.json for {text.name!r}: {error}", "Name a text backbone that has a fast tokenizer."
        ) from error
