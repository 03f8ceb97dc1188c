"""stair-mini as the catalogue sees it: what is known of it without loading it."""

from __future__ import annotations

from stair_es.model.encoder import Encoder, ModelCard, ModelFacts, ModelSpec
from stair_es.model.starter_kind import KIND as STARTER
from stair_es.types import ImageSpec


class Kind:
    """See `EncoderKind`."""

    card = ModelCard(
        name="stair-mini",
        model_id="stair-mini-1",
        image_spec=ImageSpec(size_px=260),
        description="the starter's words, and those that heads over the same networks learned from emoji and clip art",
        licences=(
            *STARTER.card.licences,
            "trained heads: shipped; learned from emoji of Google (Noto, Apache-2.0), Microsoft (Fluent, MIT), Mozilla (FxEmoji, "
            "Apache-2.0) and EmojiOne 2.x (CC-BY-4.0), named by emojibase (MIT) and Unicode CLDR (Unicode-3.0), and from clip "
            "art of openclipart.org (public domain)",
        ),
        facts=ModelFacts(
            size="5.4 MB shipped; 84 MB for the text network, fetched by pip on first use",
            languages="English",
            vocabulary="BERT WordPieces, uncased",
            tokens=9_014,
            recall="328 photographs of Tux Paint, text to image: R@1 35.8, R@5 57.0, R@10 66.8",
            source="measured by this project: docs/stair-mini.md",
            verified="all of it: it is what the tests run on",
            unverified="CUDA; photographs of people, flowers, tools and monuments, of which it knows hardly any",
        ),
    )

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        return STARTER.uses_gpu(spec)

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        from stair_es.model.stair_mini import StairMini  # imports onnx and tokenizers: not for resolving a name

        return StairMini(spec)


KIND = Kind()
