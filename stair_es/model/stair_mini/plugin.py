"""The plugin of stair-mini: its card, without loading the model."""

from __future__ import annotations

from stair_es.model.base import Encoder, EncoderPlugin, ModelSpec
from stair_es.model.cuda import can_use_cuda
from stair_es.model.networks.image_networks import TORCH_PACKAGES
from stair_es.model.stair_mini.artifacts import MINI_CARD, read_mini_artifacts
from stair_es.model.vocabularies.token_table import TokenTable


class StairMiniPlugin(EncoderPlugin):
    """The plugin of stair-mini."""

    card = MINI_CARD

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether the networks would run on a GPU of this machine."""
        return can_use_cuda(spec, *TORCH_PACKAGES)

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder."""
        from stair_es.model.stair_mini.encoder import StairMiniEncoder  # imports tokenizers: not for resolving a name

        return StairMiniEncoder(spec)

    def build_text_table(self) -> TokenTable:
        """Build the table of `--text-tower table`."""
        from stair_es.model.stair_mini.text_table import build_mini_table

        return build_mini_table(read_mini_artifacts())


KIND = StairMiniPlugin()
