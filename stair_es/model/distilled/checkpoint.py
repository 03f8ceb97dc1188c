"""The files of distilled checkpoints, which `stair-es distill` writes: `config.json`, dictionary, words, and the dense model.

A folder has `model.safetensors` (the words' vectors and the two means), `words.json`, a model card, and in `dense/` a copy of the
dense model, so that it also works on another machine. None of the files can contain code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stair_es.errors import ModelError
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.types import Floats

DISTILLED_FORMAT = "stair-es-distilled"
DISTILLED_VERSION = 1
DICTIONARY_FILE = "model.safetensors"
MAX_TEXT_TOKENS = 128
"""Upper limit of tokens per text: each is a clause of the query."""
RECREATE_HINT = "Get the checkpoint again, or write it again with stair-es distill."


@dataclass(frozen=True, kw_only=True)
class DistilledConfig:
    """The contents of `config.json`."""

    name: str
    dense_model: str
    """Model id of the dense model."""
    image_tokens: int
    """Maximum number of tokens per image."""
    text_tokens: int
    """Maximum number of tokens per text."""
    l1: float
    """Penalty of the decomposition, as a share of the image's largest correlation with a word."""
    prompts: tuple[str, ...]
    """Texts with `{}`, which the dense model read for each word."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ModelError: If one is out of range.
        """
        counts = {"image_tokens": (self.image_tokens, None), "text_tokens": (self.text_tokens, MAX_TEXT_TOKENS)}
        for name, (count, limit) in counts.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1 or (limit is not None and count > limit):
                top = "" if limit is None else f" to {limit}"
                raise ModelError(f"{name} must be a whole number from 1{top or ' on'}, got {count!r}", RECREATE_HINT)
        if not isinstance(self.l1, (int, float)) or not 0 <= self.l1 < 1:
            raise ModelError(f"l1 must be from 0 to below 1, got {self.l1!r}", RECREATE_HINT)

    def to_json(self) -> str:
        """Return the contents of `config.json`."""
        return json.dumps({"format": DISTILLED_FORMAT, "version": DISTILLED_VERSION, **asdict(self)}, indent=2) + "\n"


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """The words of a distilled model, and their vectors in the space of the dense model."""

    vocabulary: WholeWordVocabulary
    words_VD: Floats
    """Vectors of the words without their mean, of length 1."""
    image_mean_D: Floats
    """Mean dense vector of images."""
    text_mean_D: Floats
    """Mean dense vector of texts."""

    def to_tensors(self) -> dict[str, Floats]:
        """Return the arrays by their names in the file."""
        return {name: np.ascontiguousarray(getattr(self, name), np.float32) for name in _TENSORS}


_TENSORS = ("words_VD", "image_mean_D", "text_mean_D")


def parse_distilled_config(values: Mapping[str, Any], folder: Path) -> DistilledConfig:
    """Parse the contents of a `config.json`.

    Raises:
        ModelError: If it has another version, or a field is missing, unknown or out of range.
    """
    if (version := values.get("version")) != DISTILLED_VERSION:
        raise ModelError(
            f"the config.json in {folder} has version {version!r} of the format {DISTILLED_FORMAT!r}, but this stair-es reads "
            f"{DISTILLED_VERSION}",
            "Update stair-es, or write the checkpoint again with stair-es distill.",
        )
    found = {name: value for name, value in values.items() if name not in ("format", "version")}
    names = {field.name for field in fields(DistilledConfig)}
    if set(found) != names or not isinstance(found["name"], str) or not isinstance(found["prompts"], list):
        wrong = sorted(set(found) ^ names) or ["name", "prompts"]
        raise ModelError(f"the config.json in {folder} has missing, unknown or invalid fields: {', '.join(wrong)}", RECREATE_HINT)
    return DistilledConfig(**{**found, "prompts": tuple(map(str, found["prompts"]))})


def read_dictionary(folder: Path) -> Dictionary:
    """Read the words of a checkpoint and their vectors.

    Raises:
        ModelError: If a file is missing or broken, or they don't fit each other.
    """
    vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
    path = folder / DICTIONARY_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"can't read {path}: {error}", RECREATE_HINT) from error
    shape = tensors["words_VD"].shape if "words_VD" in tensors else ()
    expected = {"words_VD": (len(vocabulary), *shape[1:]), "image_mean_D": shape[1:], "text_mean_D": shape[1:]}
    if len(shape) != 2 or {name: tensor.shape for name, tensor in tensors.items()} != expected:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise ModelError(f"{path} doesn't fit its {len(vocabulary):,} words: {shapes or 'it has no tensors'}", RECREATE_HINT)
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError(f"{path} has values that aren't finite", RECREATE_HINT)
    return Dictionary(vocabulary=vocabulary, **{name: tensors[name].astype(np.float32) for name in _TENSORS})
