"""A training from a configuration to a checkpoint: reads the sets, builds the model, runs the stages, writes the folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stair_es.config import Home
from stair_es.errors import ModelError, UsageError
from stair_es.model import minilm_files, stair_checkpoint, stair_tokens
from stair_es.model.stair import Stair, without_training_traits
from stair_es.model.stair_backbones import described
from stair_es.model.stair_config import TOKENIZER_FILE
from stair_es.model.stair_tokens import Tokens
from stair_es.training import augment, dedupe, features, pairs
from stair_es.training.card import card
from stair_es.training.config import SetOf, TrainConfig, stair_config
from stair_es.training.examples import Examples, LiveTexts
from stair_es.training.loop import Loop, Moment
from stair_es.training.pairs import PairFile, Problems, TrainingSet
from stair_es.training.sampler import Draw, Sampler
from stair_es.training.state import Progress
from stair_es.training.step import Alone, Workers
from stair_es.training.validate import Validation
from stair_es.types import ImageSpec

CONFIG_COPY = "train.toml"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What became of a training."""

    folder: Path
    """The checkpoint."""
    steps: int
    best: float
    """The best recall at 1, mean of both directions and all validation sets; -1 without one."""
    best_step: int
    pairs: int
    problems: Sequence[str]
    stopped_early: bool


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who is told what."""

    say: Callable[[str], None]
    """Remarks for people."""
    tell: Callable[[Moment], None]
    """How the training is going."""
    progress: Callable[[str, int, int], None]
    """How far a preparation is: what, done, of how many."""


def train(
    config: TrainConfig,
    out: Path,
    ears: Ears,
    *,
    workers: Workers | None = None,
    device: str = "auto",
    threads: int = 0,
    restart: bool = False,
) -> Trained:
    """Train, or go on with the training in `out`; the checkpoint is in `out` afterwards.

    Args:
        config: What is trained on what, and how.
        out: Folder of state, logs and checkpoint.
        ears: Who is told.
        workers: Of a training by several; this process is one of them.
        device: `auto`, `cpu`, `cuda`.
        threads: For reading images; 0 for as many as there are cores.
        restart: Whether a training that is in `out` is thrown away.

    Raises:
        StairError: Something in the configuration can't be had, or the training failed.
    """
    workers = workers or Alone()
    threads = threads or os.cpu_count() or 1
    torch.manual_seed(config.seed)
    learned = _training_set(config, ears, threads)
    model = _model(config, learned, ears).to(_device(device))
    if restart and workers.rank == 0:
        (out / "state.pt").unlink(missing_ok=True)
    key = _key(config, learned)
    loop = _loop(config, model, learned, workers, out, key, ears, threads)
    progress = loop.run()
    if workers.rank == 0:
        _write(config, model, out, progress, learned)
    return Trained(
        folder=out,
        steps=progress.done,
        best=progress.best,
        best_step=progress.best_step,
        pairs=len(learned),
        problems=learned.problems.lines(),
        stopped_early=progress.ended,
    )


def _training_set(config: TrainConfig, ears: Ears, threads: int) -> TrainingSet:
    data = config.data
    found = pairs.read_pairs([_file(config, each) for each in data.train], lambda what, done: None)
    held_out = {Path(each.captions).stem: pairs.read_pairs([_file(config, each)]) for each in data.held_out}
    if held_out:
        found = dedupe.dedupe(found, held_out, told=ears.progress, workers=threads).kept
    for line in found.problems.lines():
        ears.say(line)
    return found


def _file(config: TrainConfig, given: SetOf) -> PairFile:
    images = None if given.images is None else config.folder / Path(given.images).expanduser()
    return PairFile(path=config.folder / Path(given.captions).expanduser(), images=images, split=given.split)


def _model(config: TrainConfig, learned: TrainingSet, ears: Ears) -> Stair:
    """The model with its beginning parameters: the same for the same seed."""
    plan = config.model
    image = described(plan.image.backbone, plan.image.size_px)
    text = described(plan.text.backbone)
    tokenizer = _tokenizer(config)
    if plan.vocabulary == "captions":
        ids_F = stair_tokens.of_texts(tokenizer, (text for pair in learned for text in (*pair.captions, *pair.tags)))
    else:
        ids_F = stair_tokens.candidates(tokenizer)
    if plan.start is not None:
        ids_F = stair_checkpoint.feature_ids(config.folder / plan.start)
    made = stair_config(config, image, text)
    model = Stair(made, Tokens(tokenizer, ids_F, plan.text.max_tokens), pretrained=plan.pretrained)
    if plan.start is not None:
        stair_checkpoint.load_into(model, config.folder / plan.start)
    elif plan.start_embeddings and "words" in plan.heads:
        model.start_from_text_embeddings()
    ears.say(f"model: {len(ids_F):,} words, {sum(each.numel() for each in model.parameters()) / 1e6:.1f} M parameters")
    return model


def _tokenizer(config: TrainConfig) -> Any:  # noqa: ANN401  a Tokenizer
    plan = config.model
    if plan.start is not None:
        return stair_tokens.load_tokenizer(config.folder / plan.start / TOKENIZER_FILE)
    text = plan.text.backbone
    if text.kind == "package" or not text.name:  # from scratch: BERT's vocabulary
        return stair_tokens.load_tokenizer(minilm_files.ensure(Home.from_env().models) / TOKENIZER_FILE)
    from stair_es.extras import need

    hub = need("huggingface_hub", "hf")
    local = Path(text.name).expanduser() / TOKENIZER_FILE
    try:
        return stair_tokens.load_tokenizer(local if local.is_file() else Path(hub.hf_hub_download(text.name, TOKENIZER_FILE)))
    except (OSError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        raise ModelError(f"no tokenizer.json for {text.name!r}: {error}", "Name a text backbone that has a fast tokenizer.") from error


def _loop(
    config: TrainConfig, model: Stair, learned: TrainingSet, workers: Workers, out: Path, key: str, ears: Ears, threads: int
) -> Loop:
    data = config.data
    spec = ImageSpec(size_px=config.model.image.size_px)
    validation = [(each, pairs.read_pairs([_file(config, each)])) for each in data.validation]
    reader = features.Reader(
        pairs=learned, spec=spec, augment=augment.preset(data.augment), seed=config.seed, problems=learned.problems
    )
    plain = [replace(reader, pairs=found, augment=augment.NONE) for _, found in validation]
    captions = _Captions(learned, data.tag_share)
    examples = Examples(
        images=_Nothing(),
        texts=LiveTexts(model.tokens),
        captions=captions,
        seed=config.seed,
        size=len(learned),
        texts_per_image=data.texts_per_image,
    )
    firsts = [tuple(pair.captions[0] for pair in found) for _, found in validation]
    images: list[Any]
    texts: Any
    if data.cache:
        cache = Home.from_env().path / "training"
        kept = [(reader, data.views), *((each, 1) for each in plain)]
        images = [features.cached_images(model, each, views, cache, ears.progress, threads) for each, views in kept]
        written = {examples.variant(item, number) for item in range(len(learned)) for number in range(data.texts_per_image)}
        texts = features.CachedTexts(model, sorted(written | {text for first in firsts for text in first}), ears.progress)
    else:
        images = [features.LiveImages(each, threads) for each in (reader, *plain)]
        texts = LiveTexts(model.tokens)
    last = config.stages[-1]
    return Loop(
        config=config,
        model=model,
        examples=replace(examples, images=images[0], texts=texts),
        sampler=Sampler([pair.captions[0] for pair in learned], config.batch.size, config.seed),
        validations=[
            Validation(
                name=Path(each.captions).stem,
                captions=first,
                images=seen,
                texts=texts,
                masked=last.text_mask == "own",
            )
            for (each, _), first, seen in zip(validation, firsts, images[1:], strict=True)
        ],
        workers=workers,
        out=out,
        key=key,
        tell=ears.tell,
        teacher=_teacher(config, reader),
    )


class _Captions:
    """See `examples.Captions`."""

    def __init__(self, learned: TrainingSet, tag_share: float) -> None:
        self._learned, self._tag_share = learned, tag_share

    def caption(self, item: int, rng: Any) -> str:  # noqa: ANN401  a numpy Generator
        """See `examples.Captions`."""
        return pairs.caption(self._learned[item], rng, self._tag_share)


class _Nothing:
    """In the place of images, until they are there."""

    def batch(self, items: Sequence[int], views: Sequence[int]) -> Any:  # noqa: ANN401
        """Never called."""
        raise AssertionError("no images yet")


def _teacher(config: TrainConfig, reader: features.Reader) -> Callable[[Sequence[Draw], Sequence[str]], Any] | None:
    """Dense vectors of the teacher for a batch, where a stage learns from one."""
    if not any(stage.losses.get("distil") for stage in config.stages):
        return None
    from stair_es.eval.dense import dense_of
    from stair_es.model import catalogue
    from stair_es.model.encoder import ModelSpec

    name = str(config.model.teacher)
    encoder = catalogue.load(ModelSpec(name=name))
    dense = dense_of(encoder)
    if dense is None:
        raise UsageError(f"the teacher {name!r} has no dense vectors", "Name a model that has: a dense checkpoint, CLIP, SigLIP.")
    own = features.LiveImages(replace(reader, spec=encoder.image_spec), 1)

    def answers(draws: Sequence[Draw], texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, _ = own.batch([draw.item for draw in draws], [draw.turn for draw in draws])
        return torch.from_numpy(dense.encode_images_dense(pixels.numpy())), torch.from_numpy(dense.encode_texts_dense(texts))

    return answers


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", "Leave --device out, or give cpu.")
    return torch.device(name)


def _key(config: TrainConfig, learned: TrainingSet) -> str:
    """What a saved state must agree with: everything but how it is watched and where its files are."""
    told = replace(config, folder=Path(), text="", watch=replace(config.watch, patience=0, every=1, log_every=1))
    digest = hashlib.sha256(repr(told).encode())
    for pair in learned:
        digest.update(json.dumps([pair.name, pair.captions, pair.tags]).encode())
    return digest.hexdigest()[:16]


def _write(config: TrainConfig, model: Stair, out: Path, progress: Progress, learned: TrainingSet) -> None:
    finished = without_training_traits(model.config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if stair_checkpoint.stored(name, model.config)}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    tensors[stair_checkpoint.FEATURE_IDS] = torch.from_numpy(model.tokens.feature_ids_F)
    text = card(config, finished, progress, len(learned), len(model.tokens.feature_ids_F))
    stair_checkpoint.save(out, finished, model.tokens.tokenizer, tensors, text)
    (out / CONFIG_COPY).write_text(config.text, encoding="utf-8")


__all__ = ["Ears", "Problems", "Trained", "train"]
