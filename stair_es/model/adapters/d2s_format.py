"""D2S (dense to sparse): a head that turns the dense vectors of a frozen BLIP into token weights (`lsr42/d2s_...`).

`log1p(relu(vocab_projector(vocab_layer_norm(proj(x)))))` with `x` the unit vector of BLIP's retrieval projection; images and
texts use the same head. The checkpoint contains the head only: the dense model is another folder or repository.
Source: Nguyen et al., "Multimodal Learned Sparse Retrieval with Probabilistic Expansion Control", ECIR 2024.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model import hub_download, hub_models
from stair_es.model.adapters.dense_format import BLIP, DenseCheckpointFormat
from stair_es.model.adapters.preprocessing import read_checkpoint_image_spec
from stair_es.model.adapters.wordpiece_vocabulary import read_vocabulary
from stair_es.model.base import Encoder, EncoderPlugin, ModelSpec
from stair_es.model.checkpoint import (
    CheckpointPlugin,
    build_checkpoint_card,
    get_positive_int,
    read_checkpoint_config,
    read_license,
)
from stair_es.types import ResizeMode

DENSE_MODEL_ENV = "STAIR_ES_D2S_DENSE_MODEL"
"""Environment variable: the BLIP whose vectors the head transforms, a folder or a hub id.

Without it, `dense_model` of the configuration is used, then the dense model that `hub_models` lists for a public head.
"""


class D2sFormat:
    """The checkpoint format of D2S."""

    name = "D2S"
    allows_pickle = True

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the model type is `d2s`."""
        return config.get("model_type") == "d2s"

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a D2S checkpoint."""
        config = read_checkpoint_config(folder)
        dense_size = get_positive_int(config, "dense_size", 256, folder)
        words = read_vocabulary(folder, str(config.get("mlm_head", "distilbert-base-uncased")))
        dense, blip = find_dense_model(folder, config, name)
        card = build_checkpoint_card(
            name,
            [folder, dense],
            read_checkpoint_image_spec(dense),
            fit,
            description=f"D2S checkpoint: {len(words):,} words from the {dense_size} dimensions of a BLIP",
            licenses=(*read_license(folder), *(f"dense model, {line}" for line in read_license(dense))),
        )

        def build_encoder(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.d2s_encoder import D2sEncoder

            return D2sEncoder(folder, words, blip.build_network(dense, spec, card), dense_size, card)

        return CheckpointPlugin(card, build_encoder)


D2S_FORMAT = D2sFormat()


def find_dense_model(folder: Path, config: Mapping[str, Any], name: str) -> tuple[Path, DenseCheckpointFormat]:
    """Return the folder and format of the dense model that a head belongs to.

    Args:
        folder: Folder of the head.
        config: Contents of its `config.json`.
        name: Name that the head was requested by.

    Raises:
        ModelError: If no dense model is named, or it isn't a BLIP.
    """
    public = hub_models.find_hub_model(name)
    named = os.environ.get(DENSE_MODEL_ENV) or config.get("dense_model") or (public and public.dense_id)
    if not named or not isinstance(named, str):
        raise ModelError(
            f"{folder} is a D2S head without its dense model: it needs the vectors of the BLIP that it was trained on",
            f"Specify a BLIP for image-text retrieval, as a folder or a hub id: {DENSE_MODEL_ENV}=..., "
            'or "dense_model" in its config.json.',
        )
    given = Path(named).expanduser()
    found = given if given.is_absolute() else folder / given
    if not found.is_dir() and given.is_dir():
        found = given.resolve()
    if not found.is_dir():
        found = hub_download.download_snapshot(named, detect_blip_format)
    return found, detect_blip_format(found)


def detect_blip_format(folder: Path) -> DenseCheckpointFormat:
    """Return the format of BLIP, the dense model.

    Args:
        folder: Folder of the dense model.

    Raises:
        ModelError: If it isn't a BLIP for image-text retrieval.
    """
    if not BLIP.is_format_of(read_checkpoint_config(folder), folder):
        raise ModelError(f"the dense model in {folder} is not a BLIP for image-text retrieval", f"Set {DENSE_MODEL_ENV} to one.")
    return BLIP
