"""STAIR checkpoint folders: `config.json`, `model.safetensors`, `tokenizer.json`, a model card, `words.json` for whole words.

Heads on the vectors of a dense model have that model in the subfolder `dense`. Two more files are for sentence-transformers. None
of the files can contain code.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.errors import CheckpointError
from stair_es.model.checkpoint import DENSE_FOLDER, hash_file, list_hashed_files, write_library_files
from stair_es.model.stair.configuration import (
    CARD_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    StairConfig,
    read_stair_config,
)
from stair_es.model.stair.tokenizer import IdArray, StairTokenizer, load_tokenizer
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.types import Floats

FEATURE_IDS_TENSOR = "feature_ids"
_REFETCH_HINT = "Get the checkpoint again, or train it again."
_SHOWN = 3


def compute_stair_id(folder: Path, config: StairConfig) -> str:
    """Compute `<name>-<12 hex>`: the hash covers all files that vectors depend on, so the same id means the same vectors."""
    digest = hashlib.sha256()
    word_files = (WHOLE_WORDS_FILE,) if config.vocabulary == "words" else ()
    paths = [folder / file for file in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, *word_files)]
    try:
        paths += list_hashed_files(folder / DENSE_FOLDER) if config.has_dense_backbones else []
        for path in paths:
            digest.update(bytes.fromhex(hash_file(path)))
    except OSError as error:
        raise CheckpointError(f"can't read {error.filename}: {error.strerror}", _REFETCH_HINT) from error
    slug = re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-") or "stair"
    return f"{slug}-{digest.hexdigest()[:12]}"


def save_checkpoint(
    folder: Path,
    config: StairConfig,
    tokenizer: Tokenizer,
    tensors: Mapping[str, Any],
    card: str,
    word_vocabulary: WholeWordVocabulary | None = None,
) -> None:
    """Save a checkpoint. Files of an existing folder are replaced one by one, the configuration last.

    Args:
        folder: Checkpoint folder; created if it doesn't exist.
        config: Configuration of the model.
        tokenizer: Tokenizer of its texts.
        tensors: PyTorch or numpy tensors by name, with `feature_ids` if features are tokens.
        card: Model card in Markdown.
        word_vocabulary: The vocabulary, if features are whole words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean_tokenizer = tokenizer.from_str(tokenizer.to_str())
    clean_tokenizer.no_truncation()
    clean_tokenizer.no_padding()
    write_checkpoint_file(folder / WEIGHTS_FILE, _serialize_tensors(tensors))
    write_checkpoint_file(folder / TOKENIZER_FILE, clean_tokenizer.to_str().encode())
    write_checkpoint_file(folder / CARD_FILE, card.encode())
    if word_vocabulary is None:
        (folder / WHOLE_WORDS_FILE).unlink(missing_ok=True)
    else:
        write_checkpoint_file(folder / WHOLE_WORDS_FILE, word_vocabulary.to_json().encode())
    write_library_files(folder)
    write_checkpoint_file(folder / CONFIG_FILE, config.to_json().encode())


def _serialize_tensors(tensors: Mapping[str, Any]) -> bytes:
    if all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.numpy import save as to_bytes
    else:
        from safetensors.torch import save as to_bytes
    data: bytes = to_bytes(dict(tensors), metadata={"format": "pt"})
    return data


def write_checkpoint_file(path: Path, data: bytes) -> None:
    """Write a file of a checkpoint atomically."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_tokenizer(folder: Path, config: StairConfig) -> StairTokenizer:
    """Read tokenizer and features of a checkpoint."""
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    return StairTokenizer(tokenizer, read_features(folder, config), config.text.max_tokens)


def read_features(folder: Path, config: StairConfig) -> IdArray | WholeWordVocabulary:
    """Read the features: ascending token ids, or whole words."""
    if config.vocabulary == "tokens":
        return read_feature_ids(folder)
    vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
    with _open_weights(folder, "numpy") as file:
        rows = {file.get_slice(name).get_shape()[0] for name in file.keys() if name.endswith(".head.bias_F")}  # noqa: SIM118
    if rows - {len(vocabulary)}:
        raise CheckpointError(
            f"{folder / WHOLE_WORDS_FILE} has {len(vocabulary)} words, {WEIGHTS_FILE} weights for {max(rows)}", _REFETCH_HINT
        )
    return vocabulary


def read_feature_ids(folder: Path) -> IdArray:
    """Read the ids of the tokens that are features, ascending."""
    with _open_weights(folder, "numpy") as file:
        if FEATURE_IDS_TENSOR not in file.keys():  # noqa: SIM118  not a mapping
            raise CheckpointError(f"{folder / WEIGHTS_FILE} has no tensor {FEATURE_IDS_TENSOR!r}", _REFETCH_HINT)
        ids_F: IdArray = file.get_tensor(FEATURE_IDS_TENSOR).astype(np.int64)
    if ids_F.ndim != 1 or not len(ids_F) or (np.diff(ids_F) <= 0).any():
        raise CheckpointError(f"{FEATURE_IDS_TENSOR} in {folder / WEIGHTS_FILE} must be one ascending row", _REFETCH_HINT)
    return ids_F


def read_arrays(folder: Path) -> dict[str, Floats]:
    """Read all tensors but `feature_ids`, as float32."""
    with _open_weights(folder, "numpy") as file:
        return {name: file.get_tensor(name).astype(np.float32) for name in file.keys() if name != FEATURE_IDS_TENSOR}  # noqa: SIM118


def is_stored_tensor(name: str, config: StairConfig) -> bool:
    """Return whether a tensor of the module is part of checkpoints: weights that a Python package provides aren't."""
    backbones = {"image.backbone.": config.image.backbone, "text.backbone.": config.text.backbone}
    return not any(name.startswith(prefix) and backbone.kind == "package" for prefix, backbone in backbones.items())


def load_stair_model(folder: Path, home: DataDir | None = None) -> Any:  # noqa: ANN401  without importing torch for all
    """Load the model in a folder, in fp32 and evaluation mode.

    Args:
        folder: Checkpoint folder.
        home: Data folder, for the weights of a packaged text backbone; None for that of the environment.

    Raises:
        ModelError: If a file is missing or broken, or the tensors don't match the configuration; names them.
        MissingExtra: If a library of its backbones isn't installed.
    """
    from stair_es.model.stair.modeling import StairModel

    config = read_stair_config(folder)
    model = StairModel(config, read_tokenizer(folder, config), home=home)
    load_tensors_into(model, folder)
    return model.eval()


def load_tensors_into(model: Any, folder: Path) -> None:  # noqa: ANN401  a StairModel
    """Load the tensors of a checkpoint into a model."""
    expected = {name: tensor for name, tensor in model.state_dict().items() if is_stored_tensor(name, model.config)}
    with _open_weights(folder, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys() if name != FEATURE_IDS_TENSOR}  # noqa: SIM118
        _check_no_names("lacks", set(expected) - set(shapes), folder)
        _check_no_names("has tensors that its configuration lacks:", set(shapes) - set(expected), folder)
        shape_pairs = ((name, shapes[name], list(tensor.shape)) for name, tensor in expected.items())
        mismatched = [f"{name} {shape}, not {other}" for name, shape, other in shape_pairs if shape != other]
        _check_no_names("has tensors with the wrong shape:", set(mismatched), folder)
        for name, tensor in expected.items():
            tensor.copy_(file.get_tensor(name))


def _check_no_names(what: str, names: set[str], folder: Path) -> None:
    if names:
        shown = sorted(names)
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise CheckpointError(f"{folder / WEIGHTS_FILE} {what} {', '.join(shown[:_SHOWN])}{more}", _REFETCH_HINT)


def _open_weights(folder: Path, framework: str) -> Any:  # noqa: ANN401  safetensors has no types
    path = folder / WEIGHTS_FILE
    try:
        return safe_open(path, framework=framework)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"can't read {path}: {error}", _REFETCH_HINT) from error
