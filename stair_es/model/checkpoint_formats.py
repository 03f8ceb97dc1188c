"""The checkpoint formats, ours and those of others: detect the format of a folder and open its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model.adapters import d2s_format, dense_format, sparse_encoder_format, vdr_format
from stair_es.model.base import Encoder, EncoderPlugin, ModelCard, ModelSpec, check_fit_unchanged
from stair_es.model.checkpoint import DENSE_FOLDER, CheckpointFormat, read_checkpoint_config
from stair_es.model.distilled.format import DistilledFormat
from stair_es.model.stair import checkpoint, configuration
from stair_es.model.stair.configuration import STAIR_FORMAT, StairConfig
from stair_es.types import ResizeMode


class StairFormat:
    """The format that `stair-es train` writes."""

    name = "stair-es"
    allows_pickle = False

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration names our format."""
        return config.get("format") == STAIR_FORMAT

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a STAIR checkpoint."""
        plugin = StairPlugin(folder, configuration.read_stair_config(folder), name)
        check_fit_unchanged(plugin.card, fit)  # it was trained with its own fit
        return plugin


class StairPlugin:
    """An `EncoderPlugin` of a STAIR checkpoint."""

    def __init__(self, folder: Path, config: StairConfig, name: str) -> None:
        self._folder, self._config = folder, config
        self.card = ModelCard(
            name=name,
            model_id=checkpoint.compute_stair_id(folder, config),
            image_spec=config.image.image_spec,
            description=f"STAIR checkpoint {config.name}: {config.image.backbone.name} and {config.text.backbone.name}",
        )

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the towers would run on a GPU of this machine."""
        from stair_es.model.stair.encoder import can_towers_use_gpu

        return can_towers_use_gpu(self._config, spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder of the checkpoint."""
        from stair_es.model.stair.encoder import load_stair_encoder

        dense = self._open_dense_model().load(replace(spec, fit=None)) if self._config.has_dense_backbones else None
        return load_stair_encoder(self._folder, self._config, self.card, spec, dense)

    def _open_dense_model(self) -> EncoderPlugin:
        folder = self._folder / DENSE_FOLDER
        plugin = open_checkpoint(folder, str(folder))
        if plugin.card.image_spec != self.card.image_spec:
            raise ModelError(
                f"{folder} expects other images than the heads on top of it", "Get the checkpoint again, or train it again."
            )
        return plugin


DENSE_FORMATS: tuple[CheckpointFormat, ...] = (StairFormat(), *dense_format.DENSE_FORMATS)
"""Formats of models with dense vectors that `stair-es distill` can use: a STAIR checkpoint may have a dense head."""
CHECKPOINT_FORMATS: tuple[CheckpointFormat, ...] = (
    *DENSE_FORMATS,
    DistilledFormat(DENSE_FORMATS),
    vdr_format.VDR_FORMAT,
    d2s_format.D2S_FORMAT,
    sparse_encoder_format.SPARSE_ENCODER_FORMAT,
    sparse_encoder_format.SPLADE_FORMAT,
)
"""Formats in the order in which they are tried."""


def detect_checkpoint_format(folder: Path) -> CheckpointFormat:
    """Return the format of a checkpoint.

    Raises:
        ModelError: If the folder isn't a checkpoint or has an unknown format.
    """
    config = read_checkpoint_config(folder)
    for checkpoint_format in CHECKPOINT_FORMATS:
        if checkpoint_format.is_format_of(config, folder):
            return checkpoint_format
    declared = {key: config[key] for key in ("format", "model_type", "architectures") if key in config}
    raise ModelError(
        f"{folder} contains a checkpoint of an unknown format: its config.json says {declared or 'nothing about it'}",
        f"Known formats: {', '.join(checkpoint_format.name for checkpoint_format in CHECKPOINT_FORMATS)}.",
    )


def open_checkpoint(folder: Path, name: str, fit: ResizeMode | None = None, *, trusts_code: bool = False) -> EncoderPlugin:
    """Return the plugin of the model in a folder.

    Args:
        folder: Checkpoint folder.
        name: Name that the model was requested by.
        fit: How images become squares, instead of the model's own way.
        trusts_code: Whether Python code in the folder may run.

    Raises:
        ModelError: If the folder isn't a checkpoint, has an unknown format or is incomplete.
    """
    return detect_checkpoint_format(folder).open_checkpoint(folder, name, fit, trusts_code=trusts_code)
