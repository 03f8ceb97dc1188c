"""The format of distilled checkpoints: opens the folder and the dense model in it, without loading a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model.base import (
    Encoder,
    EncoderPlugin,
    ModelCard,
    ModelSpec,
    check_fit_unchanged,
    check_model_spec,
    get_own_dense_encoder,
)
from stair_es.model.checkpoint import (
    CONFIG_JSON,
    DENSE_FOLDER,
    CheckpointFormat,
    compute_model_id,
    read_checkpoint_config,
    read_license,
)
from stair_es.model.distilled.checkpoint import (
    DICTIONARY_FILE,
    DISTILLED_FORMAT,
    RECREATE_HINT,
    DistilledConfig,
    parse_distilled_config,
)
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE
from stair_es.types import ResizeMode


class DistilledFormat:
    """The checkpoint format of `stair-es distill --method dictionary`."""

    name = "stair-es, distilled"
    allows_pickle = False

    def __init__(self, dense_formats: Sequence[CheckpointFormat]) -> None:
        """Create the format.

        Args:
            dense_formats: Formats that the dense model inside may have.
        """
        self.dense_formats = dense_formats

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration names this format."""
        return config.get("format") == DISTILLED_FORMAT

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a distilled checkpoint."""
        config = parse_distilled_config(read_checkpoint_config(folder), folder)
        dense_folder = folder / DENSE_FOLDER
        for path in (folder / DICTIONARY_FILE, folder / WHOLE_WORDS_FILE, dense_folder / CONFIG_JSON):
            if not path.is_file():
                raise ModelError(f"{folder} is incomplete: it has no {path.relative_to(folder)}", RECREATE_HINT)
        dense_config = read_checkpoint_config(dense_folder)
        dense_format = next((form for form in self.dense_formats if form.is_format_of(dense_config, dense_folder)), None)
        if dense_format is None or not any(dense_folder.glob("*.safetensors")):
            raise ModelError(f"{dense_folder} is not a dense model with weights as safetensors", RECREATE_HINT)
        dense = dense_format.open_checkpoint(dense_folder, name, None, trusts_code=False)
        card = ModelCard(
            name=name,
            model_id=compute_model_id(config.name, (folder, dense_folder), dense.card.image_spec),
            image_spec=dense.card.image_spec,
            description=f"distilled without training from {config.dense_model}: its vectors as weights of words",
            licenses=(*read_license(folder), *(f"dense model, {line}" for line in dense.card.licenses)),
        )
        check_fit_unchanged(card, fit)  # the means are those of images with this fit
        return DistilledPlugin(folder, config, card, dense)


class DistilledPlugin:
    """An `EncoderPlugin` of a distilled checkpoint."""

    def __init__(self, folder: Path, config: DistilledConfig, card: ModelCard, dense: EncoderPlugin) -> None:
        """Create the plugin around that of the dense model."""
        self._folder, self._config, self.card, self._dense = folder, config, card, dense

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the dense model would run on a GPU of this machine."""
        return self._dense.can_use_gpu(spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder, with the dense model in the same runtime and precision.

        Raises:
            ModelError: If the dense model can't be run with these options, or has no dense vectors.
        """
        from stair_es.model.distilled.encoder import DistilledEncoder

        check_model_spec(spec)
        dense = get_own_dense_encoder(self._dense.load(replace(spec, fit=None)))
        if dense is None:
            raise ModelError(f"the model in {self._folder / DENSE_FOLDER} has no dense vectors", RECREATE_HINT)
        return DistilledEncoder(self._folder, self._config, dense, self.card)
