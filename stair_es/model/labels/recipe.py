"""Recipes: dense models with a short name, whose words are read on first use, the same way everywhere.

A recipe is one commit of a dense model, the words of stair-es, their captions, and sample photographs of the package. The model
id is computed from these, not from the result: two machines may differ in the last digits, and still have the same model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from stair_es.config.settings import resolve_settings
from stair_es.errors import CheckpointError, ModelError
from stair_es.model.base import Encoder, EncoderPlugin, ModelSpec, check_model_spec
from stair_es.model.checkpoint import hash_file
from stair_es.model.labels.distilled import (
    MATCH_THRESHOLDS,
    DistilledConfig,
    DistilledEncoder,
    ScoredWords,
    build_scored_words,
    read_scored_words,
)
from stair_es.model.labels.word_list import PROMPTS, build_word_vocabulary, load_seen_words
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats

SAMPLES = MODEL_DATA / "samples"
_RECIPE_VERSION = 1
"""Part of the model id; raised if the formulas of `labels.scoring` give other vectors for the same inputs."""
_MAX_TOKENS = 64
_TEXTS_AT_ONCE = 1024

logger = logging.getLogger(__name__)


class LabelRecipe(EncoderPlugin):
    """A model that stair-es makes itself of a dense model, when it is first used."""

    def __init__(self, name: str, dense: EncoderPlugin) -> None:
        """Compute the model id. Nothing is encoded yet.

        Args:
            name: Short name.
            dense: The dense model.
        """
        self._dense = dense
        self._config = DistilledConfig(
            name=name, dense_model=dense.card.model_id, image_tokens=_MAX_TOKENS, text_tokens=_MAX_TOKENS, prompts=PROMPTS
        )
        self._vocabulary = build_word_vocabulary(load_seen_words())
        samples = [hash_file(path) for path in list_samples()]
        inputs = [_RECIPE_VERSION, self._config.to_json(), dict(load_seen_words()), self._vocabulary.to_json(), samples]
        digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        self.card = replace(
            dense.card,
            name=name,
            model_id=f"{name}-{digest[:12]}",
            description=f"{dense.card.name}, its vectors as weights of {len(load_seen_words()):,} words",
            match_thresholds=MATCH_THRESHOLDS,
            has_tokens=True,
        )

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the dense model would run on a GPU of this machine."""
        return self._dense.can_use_gpu(spec)

    @property
    def dense_name(self) -> str:
        """Return the hub id of the dense model."""
        return self._dense.card.name

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder. The vectors of the words are built when the first one is needed."""
        check_model_spec(spec)
        folder = resolve_settings(spec.settings).home.models / self.card.model_id
        dense = self._dense.load(spec)
        is_exact = spec.precision == "fp32" or (spec.precision == "auto" and not self.can_use_gpu(spec))
        reader = dense if is_exact else self._dense.load(replace(spec, precision="fp32"))  # words are kept for all precisions
        load_words = partial(self._provide_words, reader, folder)
        return DistilledEncoder(self._config, lambda: self._vocabulary, load_words, dense, self.card)

    def _provide_words(self, dense: Encoder, folder: Path) -> ScoredWords:
        """Read the scored words, or build and keep them: one process at a time.

        Raises:
            ModelError: If the dense model is broken, or the folder can't be written.
        """
        try:
            return read_scored_words(folder)
        except CheckpointError:
            logger.debug("the words of %s aren't in %s yet, or not as a whole", self.card.name, folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _hold_lock(Path(f"{folder}.lock")):
                with suppress(CheckpointError):
                    return read_scored_words(folder)
                scored = self._build_words(dense)
                temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
                try:
                    temporary.chmod(0o755)
                    scored.write(temporary)
                    shutil.rmtree(folder, ignore_errors=True)
                    temporary.replace(folder)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
                return scored
        except OSError as error:
            raise ModelError(
                f"the words of {self.card.name} can't be kept in {folder}: {error.strerror or error}",
                "Free some space there, or set STAIR_ES_HOME to a writable folder.",
                code="model-not-kept",
            ) from error

    def _build_words(self, dense: Encoder) -> ScoredWords:
        """Build the scored words with an encoder in full precision."""
        words = load_seen_words()
        logger.warning(
            "%s reads its %s words; needed once, and takes minutes on a CPU (docs/models.md)", self.card.name, f"{len(words):,}"
        )
        pixels = [decode_image(path.read_bytes(), dense.image_spec, DecodeLimits()).pixels_HWC for path in list_samples()]
        images_ND = np.concatenate([dense.encode_images_dense(each[None]) for each in pixels])
        return build_scored_words(partial(_encode_texts, dense), words, PROMPTS, images_ND)


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    """Hold a file lock; say so if another process has it, which may take minutes."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process reads the words; waiting for it (%s)", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def list_samples() -> list[Path]:
    """Return the sample photographs of the package."""
    return sorted(SAMPLES.glob("*.jpg"))


def _encode_texts(dense: Encoder, texts: Sequence[str]) -> Floats:
    parts = []
    for begin in range(0, len(texts), _TEXTS_AT_ONCE):
        parts.append(dense.encode_texts_dense(texts[begin : begin + _TEXTS_AT_ONCE]))
        logger.warning("%d of %d texts", min(begin + _TEXTS_AT_ONCE, len(texts)), len(texts))
    return np.concatenate(parts)
