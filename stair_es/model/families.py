"""The families of checkpoints, ours and those of others: detect the family of a folder and open its model.

A new family is a subclass of `Checkpoint` in a module of its own, and a line in `CHECKPOINT_FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from stair_es.errors import CheckpointError, ModelError
from stair_es.model.adapters.d2s import D2sCheckpoint
from stair_es.model.adapters.dense import AlignCheckpoint, BlipCheckpoint, ClipCheckpoint, SiglipCheckpoint
from stair_es.model.adapters.sparse_encoder import SparseEncoderCheckpoint, SpladeCheckpoint
from stair_es.model.adapters.vdr import VdrCheckpoint
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_fit_unchanged, check_model_spec
from stair_es.model.checkpoint import (
    CONFIG_JSON,
    DENSE_FOLDER,
    Checkpoint,
    compute_model_id,
    read_checkpoint_config,
    read_license,
)
from stair_es.model.labels.distilled import (
    DISTILLED_FORMAT,
    MATCH_THRESHOLDS,
    RECREATE_HINT,
    SCORED_WORDS_FILE,
    DistilledEncoder,
    parse_distilled_config,
    read_scored_words,
)
from stair_es.model.stair import checkpoint, configuration
from stair_es.model.stair.configuration import STAIR_FORMAT
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.types import ResizeMode


class StairCheckpoint(Checkpoint):
    """A model that `stair-es train` made, possibly of heads over a dense model."""

    family = "stair-es"

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration names our format."""
        return config.get("format") == STAIR_FORMAT

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`."""
        self._folder, self._config = folder, configuration.read_stair_config(folder)
        config = self._config
        self.card = ModelCard(
            name=name,
            model_id=checkpoint.compute_stair_id(folder, config),
            image_spec=config.image.image_spec,
            description=f"STAIR checkpoint {config.name}: {config.image.backbone.name} and {config.text.backbone.name}",
            has_tokens="tokens" in config.heads,
        )
        check_fit_unchanged(self.card, fit)  # it was trained with its own fit

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the towers would run on a GPU of this machine."""
        from stair_es.model.stair.encoder import can_towers_use_gpu

        return can_towers_use_gpu(self._config, spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder, over that of the dense model if the checkpoint has one."""
        from stair_es.model.stair.encoder import load_stair_encoder  # imports onnx: not for resolving a name

        dense = self._open_dense_model().load(replace(spec, fit=None)) if self._config.has_dense_backbones else None
        return load_stair_encoder(self._folder, self._config, self.card, spec, dense)

    def _open_dense_model(self) -> Checkpoint:
        folder = self._folder / DENSE_FOLDER
        dense = open_checkpoint(folder, str(folder))
        if dense.card.image_spec != self.card.image_spec:
            raise CheckpointError(
                f"{folder} expects other images than the heads on top of it", "Get the checkpoint again, or train it again."
            )
        return dense


class DistilledCheckpoint(Checkpoint):
    """A model that `stair-es distill --method labels` made: scored words over a dense model."""

    family = "stair-es, distilled"

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration names this format."""
        return config.get("format") == DISTILLED_FORMAT

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`."""
        config = parse_distilled_config(read_checkpoint_config(folder), folder)
        dense_folder = folder / DENSE_FOLDER
        for path in (folder / SCORED_WORDS_FILE, folder / WHOLE_WORDS_FILE, dense_folder / CONFIG_JSON):
            if not path.is_file():
                raise CheckpointError(
                    f"{folder} is incomplete: it has no {path.relative_to(folder)}", RECREATE_HINT, code="checkpoint-incomplete"
                )
        dense_config = read_checkpoint_config(dense_folder)
        family = next((each for each in DENSE_FAMILIES if each.detect(dense_config, dense_folder)), None)
        if family is None or not any(dense_folder.glob("*.safetensors")):
            raise CheckpointError(f"{dense_folder} is not a dense model with weights as safetensors", RECREATE_HINT)
        dense = family(dense_folder, name, None)
        self._folder, self._config, self._dense = folder, config, dense
        self.card = ModelCard(
            name=name,
            model_id=compute_model_id(config.name, (folder, dense_folder), dense.card.image_spec),
            image_spec=dense.card.image_spec,
            description=f"distilled without training from {config.dense_model}: its vectors as weights of words",
            licenses=(*read_license(folder), *(f"dense model, {line}" for line in dense.card.licenses)),
            match_thresholds=MATCH_THRESHOLDS,
        )
        check_fit_unchanged(self.card, fit)  # the means are those of images with this fit

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the dense model would run on a GPU of this machine."""
        return self._dense.can_use_gpu(spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder, with the dense model in the same runtime and precision."""
        check_model_spec(spec)
        dense = self._dense.load(replace(spec, fit=None))
        if not dense.has_dense:
            raise ModelError(
                f"the model in {self._folder / DENSE_FOLDER} has no dense vectors", RECREATE_HINT, code="no-dense-vectors"
            )
        load_vocabulary = partial(WholeWordVocabulary.from_file, self._folder / WHOLE_WORDS_FILE)
        return DistilledEncoder(self._config, load_vocabulary, partial(read_scored_words, self._folder), dense, self.card)


DENSE_FAMILIES: tuple[type[Checkpoint], ...] = (
    StairCheckpoint,
    ClipCheckpoint,
    SiglipCheckpoint,
    AlignCheckpoint,
    BlipCheckpoint,
)
"""Families with dense vectors that `stair-es distill` can use: a STAIR checkpoint may have a dense head."""
CHECKPOINT_FAMILIES: tuple[type[Checkpoint], ...] = (
    *DENSE_FAMILIES,
    DistilledCheckpoint,
    VdrCheckpoint,
    D2sCheckpoint,
    SparseEncoderCheckpoint,
    SpladeCheckpoint,
)
"""Families in the order in which they are tried."""


def detect_family(folder: Path) -> type[Checkpoint]:
    """Return the family of a checkpoint.

    Raises:
        ModelError: If the folder isn't a checkpoint or of an unknown family.
    """
    config = read_checkpoint_config(folder)
    for family in CHECKPOINT_FAMILIES:
        if family.detect(config, folder):
            return family
    declared = {key: config[key] for key in ("format", "model_type", "architectures") if key in config}
    raise CheckpointError(
        f"{folder} contains a checkpoint of an unknown format: its config.json says {declared or 'nothing about it'}",
        f"Known formats: {', '.join(family.family for family in CHECKPOINT_FAMILIES)}.",
    )


def open_checkpoint(folder: Path, name: str, fit: ResizeMode | None = None, *, trusts_code: bool = False) -> Checkpoint:
    """Open the model in a folder, with the arguments of `Checkpoint`.

    Args:
        folder: Checkpoint folder.
        name: Name that the model was requested by.
        fit: How images become squares, instead of the model's own way.
        trusts_code: Whether Python code in the folder may run.

    Raises:
        ModelError: If the folder isn't a checkpoint, is of an unknown family or incomplete, or the model has no other fit; or it
            contains code that may not run.
    """
    family = detect_family(folder)
    if not trusts_code and (code := family.find_code(folder)):
        raise CheckpointError(
            f"{folder} is a part of a model and contains Python code: {', '.join(code)}", "Get the model again."
        )
    return family(folder, name, fit)
