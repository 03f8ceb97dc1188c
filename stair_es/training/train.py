"""Train from a configuration to a checkpoint: read the sets, build the model, run the stages, write the folder."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
import torch
from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings, resolve_settings
from stair_es.errors import ModelError, StairError, UsageError
from stair_es.model.checkpoint import DENSE_FOLDER, copy_dense_model
from stair_es.model.networks import minilm_download
from stair_es.model.stair import checkpoint
from stair_es.model.stair import tokenizer as stair_tokens
from stair_es.model.stair.backbones import fill_backbone_config
from stair_es.model.stair.configuration import CONFIG_FILE, TOKENIZER_FILE, BackboneConfig, read_stair_config
from stair_es.model.stair.modeling import StairModel, remove_dropout
from stair_es.model.stair.tokenizer import IdArray, StairTokenizer
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.optional import import_optional
from stair_es.sources.io.remote import strip_all_credentials, strip_credentials
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks
from stair_es.training.checkpointing import (
    STATE_FILE,
    RunCopies,
    TrainingProgress,
    get_trained_tensors,
    list_old_states,
    restore_old_state,
)
from stair_es.training.config.schema import CardConfig, LogConfig
from stair_es.training.config.toml import dump_toml, parse_training_toml
from stair_es.training.config.train_config import TrainConfig, build_stair_config
from stair_es.training.data.batches import translate_reader_errors
from stair_es.training.data.dataset import ProblemCounter, TrainingSet
from stair_es.training.data.sampler import split_batch
from stair_es.training.data_module import LoadedInputs, TrainingSets, build_data_module, build_training_sets
from stair_es.training.metric_loggers import list_logger_names
from stair_es.training.model_card import render_model_card
from stair_es.training.trainer import Trainer
from stair_es.training.validation import warn_of_few_images
from stair_es.training.workers import SingleProcess, WorkerGroup, let_first_go

CONFIG_COPY = "train.toml"
_FEW_IMAGES = 1000
"""Below this number of images, words that occur once are tokens, too."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training."""

    folder: Path
    """Folder of the checkpoint."""
    steps: int
    best: float
    """Best recall at 1, mean of both directions and all validation sets; -1 without validation."""
    best_step: int
    pairs: int | None
    """Training pairs; None if they are in shards, which are never listed."""
    problems: Sequence[str]
    stopped_early: bool


def train_model(
    config: TrainConfig,
    out: Path,
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    workers: WorkerGroup | None = None,
    device: str = "auto",
    threads: int = 0,
    settings: Settings | None = None,
    loaded: LoadedInputs | None = None,
) -> TrainingResult:
    """Train, or resume the training in `out`, and write the checkpoint to `out`.

    Args:
        config: Training configuration.
        out: Folder of state, logs and checkpoint.
        callbacks: Callbacks.
        workers: Worker group of a distributed training, of which this process is a member.
        device: `auto`, `cpu`, `cuda`, or a specific device such as `cuda:1`.
        threads: Threads that read images; 0 for the number of cores.
        settings: Data folder and trusted models; None for those of the environment.
        loaded: Parts named by the configuration that are already loaded.

    Raises:
        StairError: If something in the configuration isn't available, or the training failed.
    """
    workers, settings = workers or SingleProcess(), resolve_settings(settings)
    threads = threads or os.cpu_count() or 1
    _check_early(config, workers)
    copies = RunCopies(None if workers.rank else config.log.copy_to, out, callbacks.on_message)
    torch_device = _choose_device(device)
    torch.manual_seed(config.seed if config.model.start_seed is None else config.model.start_seed)
    with let_first_go(workers, is_needed=config.data.captions_from is not None):
        sets = build_training_sets(config, callbacks, threads, settings, loaded)
    model = build_model(config, sets, callbacks, settings.home).to(torch_device)
    with let_first_go(workers, is_needed=config.data.cache):  # the others find its cache if they share a home
        data = build_data_module(config, model, sets, callbacks, workers, threads, settings)
    warn_of_few_images(data.validations, config.validation, callbacks.on_message)
    trainer = Trainer(
        config=config,
        model=model,
        batches=data.batches,
        validations=data.validations,
        workers=workers,
        out=out,
        key=_compute_key(config, sets, model.tokens.word_vocabulary),
        callbacks=callbacks,
        on_saved=copies.start,
    )
    progress = _run_trainer(trainer)
    if workers.rank == 0:
        _write_checkpoint(config, model, out, progress, sets)
    if sets.shards:
        _collect_problems(workers, sets.train.problems)
    return _build_result(out, progress, sets, copies.finish())


def _collect_problems(workers: WorkerGroup, problems: ProblemCounter) -> None:
    """Add the problems of the other workers, each of which reads other shards."""
    for rank, each in enumerate(workers.gather_objects(problems.to_json())):
        if rank != workers.rank:
            problems.merge_json(each)


def _check_early(config: TrainConfig, workers: WorkerGroup) -> None:
    """Fail before the sets are read."""
    split_batch(range(config.batch.size), workers.rank, workers.count)
    list_logger_names(config.log)


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
        model.set_scale(model_config.start_scale)
        model.set_bias(model_config.start_bias)
        if model_config.start_embeddings and "tokens" in model_config.heads:
            model.initialize_from_text_embeddings()
    model.max_scale = model_config.max_scale
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
            code="vocabulary-differs",
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
            f"no tokenizer.json for {text.name!r}: {error}",
            "Specify a text backbone that has a fast tokenizer.",
            code="no-tokenizer",
        ) from error


def _build_result(out: Path, progress: TrainingProgress, sets: TrainingSets, copy_problem: str) -> TrainingResult:
    return TrainingResult(
        folder=out,
        steps=progress.global_step,
        best=progress.best_recall,
        best_step=progress.best_step,
        pairs=None if sets.shards else len(sets.train),
        problems=[*sets.train.problems.format_lines(), *filter(None, [copy_problem])],
        stopped_early=progress.stopped_early,
    )


def _run_trainer(trainer: Trainer) -> TrainingProgress:
    batch, optim = trainer.config.batch, trainer.config.optim
    if trainer.device.type == "cuda" and optim.precision == "bf16":
        torch.set_float32_matmul_precision("high")  # the scores of vectors in bf16, exactly as in fp32
    if optim.compile:
        trainer.model.compile_towers()
    try:
        with translate_reader_errors():
            return trainer.run()
    except torch.cuda.OutOfMemoryError as error:
        raise StairError(
            f"out of GPU memory with {batch.chunk or batch.size} pairs per forward pass",
            "Lower batch.chunk: training resumes from the last saved state. Or train in bf16, or with batch.checkpointing.",
            code="out-of-gpu-memory",
        ) from error
    except RuntimeError as error:
        if not optim.compile or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason, _, _ = str(error).partition("\n\nSet TORCH")  # advice for PyTorch's developers
        errors = [line for line in reason.splitlines() if "error: " in line]  # of the compiler, whose command is long
        reason = "\n".join(errors or [reason])
        raise StairError(
            f"torch.compile failed: {' '.join(reason.split())}",
            "Install the compiler or headers that it names, or leave out optim.compile: training resumes from the last state.",
            code="compile-failed",
        ) from error


def prepare_output_folder(out: Path, *, restart: bool, resume_from: int | None = None, copies: str | None = None) -> bool:
    """Check that a training may write to a folder; return True if it resumes an existing training.

    Args:
        out: Output folder.
        restart: Whether to discard an existing training.
        resume_from: Step to resume from instead of the last saved state.
        copies: URL of copies (`log.copy_to`), which are fetched if the folder has neither a state nor a model.

    Raises:
        UsageError: If the folder holds a model without training state, or no state of `resume_from`.
        StairError: If the copies can't be fetched.
    """
    state = out / STATE_FILE
    if restart:
        for path in (state, *list_old_states(out).values()):
            path.unlink(missing_ok=True)
        return False
    RunCopies(copies, out, lambda line: None).fetch_missing()
    if not state.is_file() and (out / CONFIG_FILE).exists():
        raise UsageError(
            f"{out} holds a model without training state, which can't be resumed",
            "Use another --out, or --restart to replace it.",
            code="model-without-state",
        )
    if resume_from is not None:
        restore_old_state(out, resume_from)
    return state.is_file()


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("no CUDA device was found", "Omit --device, or use cpu.", code="no-cuda")
    return torch.device(name)


def _compute_key(config: TrainConfig, sets: TrainingSets, vocabulary: WholeWordVocabulary | None) -> str:
    """Return a hash of all that a saved state depends on: not of validation, paths and settings that only save memory.

    Names of fields count, those of classes don't.
    """
    relevant = replace(
        config,
        folder=Path(),
        text="",
        card=CardConfig(),
        log=LogConfig(),
        validation=replace(config.validation, patience=0, every=1, log_every=1, keep_states=1),
        batch=replace(config.batch, chunk=0, checkpointing=False),
        optim=replace(config.optim, compile=False),
    )
    digest = hashlib.sha256(repr(strip_all_credentials(asdict(relevant))).encode())  # a new signature is no other training
    if vocabulary is not None:
        digest.update(vocabulary.to_json().encode())
    for pair in sets.train:
        digest.update(orjson.dumps((pair.name, pair.captions, pair.tags)))
    for source in sets.shards:
        digest.update(orjson.dumps([strip_credentials(shard).rpartition("/")[2] for shard in source.shards]))
    return digest.hexdigest()[:16]


def _write_checkpoint(config: TrainConfig, model: StairModel, out: Path, progress: TrainingProgress, sets: TrainingSets) -> None:
    if sets.dense is not None:
        shutil.rmtree(out / DENSE_FOLDER, ignore_errors=True)
        copy_dense_model(sets.dense.folder, out / DENSE_FOLDER)
    stair_config = remove_dropout(model.config)
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in get_trained_tensors(model).items()}
    if model.tokens.word_vocabulary is None:
        tensors[checkpoint.FEATURE_IDS_TENSOR] = torch.from_numpy(model.tokens.feature_ids_F)
    shards = sum(len(source.shards) for source in sets.shards)
    images = f"the pairs of {shards:,} shards" if shards else f"{len(sets.train):,} images"
    card = render_model_card(config, stair_config, progress, images, len(model.tokens.tokens))
    checkpoint.save_checkpoint(out, stair_config, model.tokens.tokenizer, tensors, card, model.tokens.word_vocabulary)
    values = parse_training_toml(config.text, CONFIG_COPY)
    public = strip_all_credentials(values)
    (out / CONFIG_COPY).write_text(config.text if public == values else dump_toml(public), encoding="utf-8")
