"""A STAIR model as a folder: `config.json`, `model.safetensors`, `tokenizer.json`, a card, `words.json` for whole words.

Nothing in it can run code.
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

from stair_es.errors import ModelError
from stair_es.model.checkpoint_kind import hash_file
from stair_es.model.stair_config import CARD_FILE, CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE, StairConfig, read_config
from stair_es.model.stair_tokens import Ids, Tokens, load_tokenizer
from stair_es.model.whole_words import WORDS_FILE, WholeWords
from stair_es.types import Floats

FEATURE_IDS = "feature_ids"
_AGAIN = "Get the checkpoint again, or train it again."
_SHOWN = 3


def model_id(folder: Path, config: StairConfig) -> str:
    """`<name>-<12 hex>`: the hash is over all files that vectors depend on, so the same id means the same vectors.

    Raises:
        ModelError: A file can't be read.
    """
    digest = hashlib.sha256()
    whole = (WORDS_FILE,) if config.vocabulary == "words" else ()
    for file in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, *whole):
        try:
            digest.update(bytes.fromhex(hash_file(folder / file)))
        except OSError as error:
            raise ModelError(f"can't read {folder / file}: {error.strerror}", _AGAIN) from error
    safe = re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-") or "stair"
    return f"{safe}-{digest.hexdigest()[:12]}"


def save(
    folder: Path,
    config: StairConfig,
    tokenizer: Tokenizer,
    tensors: Mapping[str, Any],
    card: str,
    whole: WholeWords | None = None,
) -> None:
    """Write a checkpoint; a folder that is there already is replaced file by file, the configuration last.

    Args:
        folder: Made if it isn't there.
        config: Of the model.
        tokenizer: Of its texts.
        tensors: By name, with `feature_ids` if these are the features; PyTorch's or numpy's.
        card: The model card, Markdown.
        whole: The words, if these are the features.

    Raises:
        OSError: It can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain = tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    write(folder / WEIGHTS_FILE, _serialised(tensors))
    write(folder / TOKENIZER_FILE, plain.to_str().encode())
    write(folder / CARD_FILE, card.encode())
    if whole is None:
        (folder / WORDS_FILE).unlink(missing_ok=True)
    else:
        write(folder / WORDS_FILE, whole.to_json().encode())
    write(folder / CONFIG_FILE, config.to_json().encode())


def _serialised(tensors: Mapping[str, Any]) -> bytes:
    if all(isinstance(tensor, np.ndarray) for tensor in tensors.values()):
        from safetensors.numpy import save as to_bytes
    else:
        from safetensors.torch import save as to_bytes
    data: bytes = to_bytes(dict(tensors), metadata={"format": "pt"})
    return data


def write(path: Path, data: bytes) -> None:
    """A file of a checkpoint, whole or not at all."""
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


def read_tokens(folder: Path, config: StairConfig) -> Tokens:
    """The tokenizer and the features of a checkpoint.

    Raises:
        ModelError: A file is missing or broken.
    """
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    return Tokens(tokenizer, features(folder, config), config.text.max_tokens)


def features(folder: Path, config: StairConfig) -> Ids | WholeWords:
    """Return the tokens that are features, ascending, or the whole words.

    Raises:
        ModelError: They aren't there, or aren't what they must be.
    """
    if config.vocabulary == "tokens":
        return feature_ids(folder)
    whole = WholeWords.read(folder / WORDS_FILE)
    with _opened(folder, "numpy") as file:
        rows = {file.get_slice(name).get_shape()[0] for name in file.keys() if name.endswith(".head.bias_F")}  # noqa: SIM118
    if rows - {len(whole)}:
        raise ModelError(f"{folder / WORDS_FILE} has {len(whole)} words, {WEIGHTS_FILE} weights for {max(rows)}", _AGAIN)
    return whole


def feature_ids(folder: Path) -> Ids:
    """The tokens that are features, ascending.

    Raises:
        ModelError: They aren't there, or aren't what they must be.
    """
    with _opened(folder, "numpy") as file:
        if FEATURE_IDS not in file.keys():  # noqa: SIM118  not a mapping
            raise ModelError(f"{folder / WEIGHTS_FILE} has no tensor {FEATURE_IDS!r}", _AGAIN)
        ids_F: Ids = file.get_tensor(FEATURE_IDS).astype(np.int64)
    if ids_F.ndim != 1 or not len(ids_F) or (np.diff(ids_F) <= 0).any():
        raise ModelError(f"{FEATURE_IDS} in {folder / WEIGHTS_FILE} must be one ascending row", _AGAIN)
    return ids_F


def read_arrays(folder: Path) -> dict[str, Floats]:
    """All tensors but `feature_ids`, as float32.

    Raises:
        ModelError: The file is missing or broken.
    """
    with _opened(folder, "numpy") as file:
        return {name: file.get_tensor(name).astype(np.float32) for name in file.keys() if name != FEATURE_IDS}  # noqa: SIM118


def stored(name: str, config: StairConfig) -> bool:
    """Whether a tensor of the module belongs into a checkpoint: not those that a package brings."""
    side = name.split(".")[0]
    if not name.startswith((f"{side}.backbone.",)) or side not in ("image", "text"):
        return True
    tower = config.image if side == "image" else config.text
    return tower.backbone.kind != "package"


def load(folder: Path) -> Any:  # noqa: ANN401  a Stair: importing it here would import torch for all
    """The model in a folder, in fp32, ready to encode.

    Raises:
        ModelError: A file is missing or broken, or the tensors aren't those of the configuration; names them.
        MissingExtra: A library that its backbones need isn't installed.
    """
    from stair_es.model.stair import Stair

    config = read_config(folder)
    model = Stair(config, read_tokens(folder, config))
    load_into(model, folder)
    return model.eval()


def load_into(model: Any, folder: Path) -> None:  # noqa: ANN401  a Stair
    """Give a model the tensors of a checkpoint.

    Raises:
        ModelError: They aren't those that it needs; names the first of them.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if stored(name, model.config)}
    with _opened(folder, "pt") as file:
        there = {name: file.get_slice(name).get_shape() for name in file.keys() if name != FEATURE_IDS}  # noqa: SIM118
        _same("lacks", set(own) - set(there), folder)
        _same("has, beyond its configuration,", set(there) - set(own), folder)
        wrong = [f"{name} {there[name]}, not {list(own[name].shape)}" for name in own if there[name] != list(own[name].shape)]
        _same("has tensors of other shapes:", set(wrong), folder)
        for name, tensor in own.items():
            tensor.copy_(file.get_tensor(name))


def _same(what: str, names: set[str], folder: Path) -> None:
    if names:
        shown = sorted(names)
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise ModelError(f"{folder / WEIGHTS_FILE} {what} {', '.join(shown[:_SHOWN])}{more}", _AGAIN)


def _opened(folder: Path, framework: str) -> Any:  # noqa: ANN401  safetensors has no types
    path = folder / WEIGHTS_FILE
    try:
        return safe_open(path, framework=framework)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"can't read {path}: {error}", _AGAIN) from error
