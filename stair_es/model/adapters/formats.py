"""The checkpoint formats, ours and those of others: detect the format of a folder and open its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model import stair_checkpoint, stair_config
from stair_es.model.adapters import d2s, dense_baselines, sentence_transformers, vdr
from stair_es.model.checkpoint_kind import Format, read_config
from stair_es.model.encoder import Encoder, EncoderKind, ModelCard, ModelSpec, check_own_fit
from stair_es.model.stair_config import FORMAT, StairConfig
from stair_es.types import Fit


class Ours:
    """The format that `stair-es train` writes."""

    name = "stair-es"
    pickled = False

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration names our format."""
        return config.get("format") == FORMAT

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """Return the plugin of a STAIR checkpoint."""
        found = StairKind(folder, stair_config.read_config(folder), name)
        check_own_fit(found.card, fit)  # it was trained with its own fit
        return found


class StairKind:
    """An `EncoderPlugin` of a STAIR checkpoint."""

    def __init__(self, folder: Path, config: StairConfig, name: str) -> None:
        self._folder, self._config = folder, config
        self.card = ModelCard(
            name=name,
            model_id=stair_checkpoint.model_id(folder, config),
            image_spec=config.image.image_spec,
            description=f"STAIR checkpoint {config.name}: {config.image.backbone.name} and {config.text.backbone.name}",
        )

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the towers would run on a GPU of this machine."""
        from stair_es.model.stair_encoder import uses_gpu

        return uses_gpu(self._config, spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder of the checkpoint."""
        from stair_es.model.stair_encoder import load_encoder

        return load_encoder(self._folder, self._config, self.card, spec)


FORMATS: tuple[Format, ...] = (
    Ours(),
    vdr.FORMAT,
    d2s.FORMAT,
    sentence_transformers.FORMAT,
    sentence_transformers.BARE_FORMAT,
    *dense_baselines.FORMATS,
)
"""In the order in which they are tried."""


def format_of(folder: Path) -> Format:
    """Return the format of a checkpoint.

    Args:
        folder: Checkpoint folder.

    Raises:
        ModelError: If the folder isn't a checkpoint or has an unknown format.
    """
    config = read_config(folder)
    for known in FORMATS:
        if known.claims(config, folder):
            return known
    said = {key: config[key] for key in ("format", "model_type", "architectures") if key in config}
    raise ModelError(
        f"{folder} contains a checkpoint of an unknown format: its config.json says {said or 'nothing about it'}",
        f"Known formats: {', '.join(known.name for known in FORMATS)}.",
    )


def kind(folder: Path, name: str, fit: Fit | None = None) -> EncoderKind:
    """Return the plugin of the model in a folder.

    Args:
        folder: Checkpoint folder.
        name: Name that the model was requested by.
        fit: How images become squares, instead of the model's own way.

    Raises:
        ModelError: If the folder isn't a checkpoint, has an unknown format or is incomplete.
    """
    return format_of(folder).kind(folder, name, fit)
