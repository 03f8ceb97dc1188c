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
from stair_es.model import hub_models
from stair_es.model.adapters import hub
from stair_es.model.adapters.dense_baselines import BLIP, DenseFormat
from stair_es.model.adapters.preprocessing import read_image_spec
from stair_es.model.adapters.wordpieces import vocabulary
from stair_es.model.checkpoint_kind import CheckpointKind, build_card, licence_of, number, read_config
from stair_es.model.encoder import Encoder, EncoderKind, ModelSpec
from stair_es.types import Fit

DENSE = "STAIR_ES_D2S_DENSE_MODEL"
"""Environment variable: the BLIP whose vectors the head transforms, a folder or a hub id.

Without it, `dense_model` of the configuration is used, then the dense model that `hub_models` lists for a public head.
"""


class D2sFormat:
    """The checkpoint format of D2S."""

    name = "D2S"
    pickled = True

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the model type is `d2s`."""
        return config.get("model_type") == "d2s"

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """Return the plugin of a D2S checkpoint."""
        config = read_config(folder)
        dense_size = number(config, "dense_size", 256, folder)
        words = vocabulary(folder, str(config.get("mlm_head", "distilbert-base-uncased")))
        dense, blip = dense_model(folder, config, name)
        card = build_card(
            name,
            [folder, dense],
            read_image_spec(dense),
            fit,
            description=f"D2S checkpoint: {len(words):,} words from the {dense_size} dimensions of a BLIP",
            licences=(*licence_of(folder), *(f"dense model, {line}" for line in licence_of(dense))),
        )

        def build(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.d2s_encoder import D2s

            return D2s(folder, words, blip.network(dense, spec, card), dense_size, card)

        return CheckpointKind(card, build)


FORMAT = D2sFormat()


def dense_model(folder: Path, config: Mapping[str, Any], name: str) -> tuple[Path, DenseFormat]:
    """Return the folder and format of the dense model that a head belongs to.

    Args:
        folder: Folder of the head.
        config: Contents of its `config.json`.
        name: Name that the head was requested by.

    Raises:
        ModelError: If no dense model is named, or it isn't a BLIP.
    """
    public = hub_models.find(name)
    named = os.environ.get(DENSE) or config.get("dense_model") or (public and public.dense_id)
    if not named or not isinstance(named, str):
        raise ModelError(
            f"{folder} is a D2S head without its dense model: it needs the vectors of the BLIP that it was trained on",
            f'Name a BLIP for image-text retrieval, as a folder or a hub id: {DENSE}=..., or "dense_model" in its config.json.',
        )
    given = Path(named).expanduser()
    found = given if given.is_absolute() else folder / given
    if not found.is_dir() and given.is_dir():
        found = given.resolve()
    if not found.is_dir():
        found = hub.fetched(named, blip_format)
    return found, blip_format(found)


def blip_format(folder: Path) -> DenseFormat:
    """Return the format of BLIP, the dense model.

    Args:
        folder: Folder of the dense model.

    Raises:
        ModelError: If it isn't a BLIP for image-text retrieval.
    """
    if not BLIP.claims(read_config(folder), folder):
        raise ModelError(f"the dense model in {folder} is not a BLIP for image-text retrieval", f"Set {DENSE} to one.")
    return BLIP
