"""The shipped part of stair-mini, as `tools/build_mini.py` wrote it: trained heads, and how they are added to the starter.

Shape suffixes: F features of the heads, T transform.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from stair_es.errors import ModelError
from stair_es.model.stair_config import CONFIG_FILE, WEIGHTS_FILE, StairConfig
from stair_es.model.starter_data import DATA
from stair_es.types import Floats

FOLDER = DATA / "stair-mini"
FORMAT, VERSION = "stair-mini", 1
IDS = "feature_ids"
_SCALES = ".scales"
_REMEDY = "Install stair-es again."

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How the heads' words and the starter's are added; all vectors of length 1 before."""

    image_power: float
    """What the heads' weights of an image are raised to: their many small ones count less."""
    image_starter: float
    """Share of the starter in an image that its classifier doesn't know."""
    image_starter_sure: float
    """What is added to that share, times the classifier's largest probability."""
    image_words: int
    """That are kept."""
    text_starter: float
    text_words: int


@dataclass(frozen=True, kw_only=True)
class Mini:
    """All that is shipped."""

    config: StairConfig
    """Of the heads, as they were trained."""
    blend: Blend
    feature_ids_F: NDArray[np.int64]
    """Tokens of BERT's vocabulary, ascending; each may be a feature of a text."""
    arrays: Mapping[str, Floats]
    """The heads' tensors by their names in a checkpoint."""


def read(folder: Path = FOLDER) -> Mini:
    """What is in a folder.

    Raises:
        ModelError: A file is missing or broken.
    """
    try:
        told = json.loads((folder / CONFIG_FILE).read_bytes())
        if (told["format"], told["version"]) != (FORMAT, VERSION):
            raise ModelError(f"{folder} is not {FORMAT} {VERSION}", _REMEDY)
        arrays = load_file(folder / WEIGHTS_FILE)
        return Mini(
            config=StairConfig.from_dict(told["heads"]),
            blend=Blend(**told["blend"]),
            feature_ids_F=arrays.pop(IDS).astype(np.int64),
            arrays=unpacked(arrays),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the packaged files in {folder} can't be read: {error}", _REMEDY) from error


def files(mini: Mini) -> dict[str, bytes]:
    """What `read` reads, by file name."""
    told = {"format": FORMAT, "version": VERSION, "blend": asdict(mini.blend), "heads": json.loads(mini.config.to_json())}
    arrays = {**packed(mini.arrays), IDS: mini.feature_ids_F.astype(np.uint16)}
    return {CONFIG_FILE: (json.dumps(told, indent=2) + "\n").encode(), WEIGHTS_FILE: save(arrays)}


def packed(arrays: Mapping[str, Floats]) -> Arrays:
    """Matrices as int8 with a scale for each row, the rest in half precision."""
    found: Arrays = {}
    for name, array in arrays.items():
        if array.ndim < 2:
            found[name] = array.astype(np.float16)
            continue
        scales = (np.abs(array).max(axis=1) / 127).astype(np.float32)
        found[name] = np.rint(array / np.maximum(scales, np.finfo(np.float32).tiny)[:, None]).astype(np.int8)
        found[name + _SCALES] = scales
    return found


def unpacked(arrays: Arrays) -> dict[str, Floats]:
    """The same as float32."""
    found: dict[str, Floats] = {}
    for name, array in arrays.items():
        if name.endswith(_SCALES):
            continue
        scales = arrays.get(name + _SCALES)
        found[name] = array.astype(np.float32) if scales is None else array * scales[:, None]
    return found
