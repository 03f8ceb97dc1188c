"""stair-mini as the catalogue sees it: what is known of it without loading it."""

from __future__ import annotations

from stair_es.model import image_network
from stair_es.model.encoder import Encoder, ModelSpec
from stair_es.model.stair_mini_files import CARD


class Kind:
    """See `EncoderKind`."""

    card = CARD

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        return spec.backend in ("auto", "torch") and image_network.cuda_is_there()

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        from stair_es.model.stair_mini import StairMini  # imports onnx and tokenizers: not for resolving a name

        return StairMini(spec)


KIND = Kind()
