"""A STAIR checkpoint as the catalogue sees it: what is known of it without loading its networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.model import stair_checkpoint
from stair_es.model.encoder import Encoder, ModelCard, ModelSpec
from stair_es.model.stair_config import FORMAT, StairConfig, read_config


def claims(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a checkpoint of ours."""
    return config.get("format") == FORMAT


def kind(folder: Path, name: str) -> StairKind:
    """The model in a folder.

    Args:
        folder: Of the checkpoint.
        name: As the user gave it.

    Raises:
        ModelError: A file is missing or broken.
    """
    config = read_config(folder)
    return StairKind(folder, config, name)


class StairKind:
    """See `EncoderKind`."""

    def __init__(self, folder: Path, config: StairConfig, name: str) -> None:
        self._folder, self._config = folder, config
        self.card = ModelCard(
            name=name,
            model_id=stair_checkpoint.model_id(folder, config),
            image_spec=config.image.image_spec,
            description=f"STAIR checkpoint {config.name}: {config.image.backbone.name} and {config.text.backbone.name}",
        )

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        from stair_es.model.stair_encoder import uses_gpu

        return uses_gpu(self._config, spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        from stair_es.model.stair_encoder import load_encoder

        return load_encoder(self._folder, self._config, self.card, spec)
