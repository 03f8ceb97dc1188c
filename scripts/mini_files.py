"""Serialize the artifacts of stair-mini. `stair_es.model.stair_mini.artifacts` reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from safetensors.numpy import save

from stair_es.model.stair.configuration import CONFIG_FILE, WEIGHTS_FILE
from stair_es.model.stair_mini.artifacts import (
    MINI_FORMAT,
    MINI_VERSION,
    SCALES_SUFFIX,
    TRANSLATIONS_FILE,
    ArraysByName,
    MiniArtifacts,
)
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE
from stair_es.types import Floats


def serialize_mini_artifacts(mini: MiniArtifacts) -> dict[str, bytes]:
    """Serialize the artifacts, by file name."""
    config = {
        "format": MINI_FORMAT,
        "version": MINI_VERSION,
        "blend": asdict(mini.blend),
        "same_things": mini.same_things,
        "never_added": sorted(mini.never_added),
        "heads": json.loads(mini.config.to_json()),
    }
    arrays: ArraysByName = quantize_arrays(mini.arrays)
    for name, class_tokens in (("classes", mini.classes), ("objects", mini.objects), ("scenes", mini.scenes)):
        arrays |= {
            f"{name}.words": class_tokens.word_ids_KE,
            f"{name}.weights": class_tokens.weights_KE,
            f"{name}.general": class_tokens.is_general_KE,
        }
    arrays |= {
        "table.tokens": mini.table.token_ids_T,
        "table.words": mini.table.word_ids_TN,
        "table.weights": mini.table.weights_TN,
    }
    return {
        CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(),
        WHOLE_WORDS_FILE: mini.vocabulary.to_json().encode(),
        TRANSLATIONS_FILE: (json.dumps(mini.translations, indent=0) + "\n").encode(),
        WEIGHTS_FILE: save(dict(sorted(arrays.items()))),
    }


def quantize_arrays(arrays: Mapping[str, Floats]) -> ArraysByName:
    """Quantize arrays: matrices as int8 with one scale per row, others in half precision."""
    quantized: ArraysByName = {}
    for name, array in arrays.items():
        if array.ndim < 2:
            quantized[name] = array.astype(np.float16)
            continue
        scales = (np.abs(array).max(axis=1) / 127).astype(np.float32)
        quantized[name] = np.rint(array / np.maximum(scales, np.finfo(np.float32).tiny)[:, None]).astype(np.int8)
        quantized[name + SCALES_SUFFIX] = scales
    return quantized
