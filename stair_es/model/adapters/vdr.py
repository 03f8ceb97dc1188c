"""VDR, the vocabulary-disentangled retriever: the format of its cross-modal checkpoint (`vsearch/vdr-cross-modal`).

Source: Zhou et al., "Retrieval-based Disentangled Representation Learning with Natural Language Supervision", ICLR 2024, and the
public checkpoint's configuration. Its code is MIT; none of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.model.adapters.wordpieces import special, vocabulary
from stair_es.model.checkpoint_kind import CheckpointKind, build_card, licence_of, number, read_config, section
from stair_es.model.encoder import Encoder, EncoderKind, ModelSpec
from stair_es.model.wordpiece import Vocabulary
from stair_es.types import Fit, ImageSpec

_BERT = "bert-base-uncased"


@dataclass(frozen=True, kw_only=True)
class VdrShape:
    """What the configuration says, with the defaults of the published checkpoint."""

    image_px: int
    image_heads: int
    image_words: int
    """How many of the heaviest words of an image are kept."""
    text_heads: int
    text_words: int
    text_tokens: int
    """Texts are padded to this length, and the padding takes part in the maximum."""
    words: Vocabulary
    valid_ids: tuple[int, ...]
    """The tokens that have a dimension, ascending."""


class VdrFormat:
    """See `Format`."""

    name = "VDR (cross-modal)"
    pickled = True

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See `Format.claims`."""
        return "encoder_q" in config and "encoder_p" in config

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """See `Format.kind`."""
        shape = read_shape(folder)
        card = build_card(
            name,
            [folder],
            ImageSpec(size_px=shape.image_px, fit="crop"),  # as its own code: Resize(bicubic), then CenterCrop
            fit,
            description=f"VDR checkpoint: {len(shape.valid_ids):,} words",
            licences=licence_of(folder),
        )

        def build(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.vdr_encoder import Vdr

            return Vdr(folder, shape, card, spec)

        return CheckpointKind(card, build)


FORMAT = VdrFormat()


def read_shape(folder: Path) -> VdrShape:
    """What the checkpoint says of itself.

    Raises:
        ModelError: It has no image tower, or its configuration makes no sense.
    """
    config = read_config(folder)
    text, image = section(config, "encoder_q", folder), section(config, "encoder_p", folder)
    if "image" not in str(image.get("type", "image")):
        raise ModelError(f"{folder} is a VDR of texts only ({image['type']}): it sees no images", "Take the cross-modal one.")
    words = vocabulary(folder, str(image.get("tokenizer_id", _BERT)))
    return VdrShape(
        image_px=number(image, "resolution", 224, folder),
        image_heads=number(image, "heads", 12, folder),
        image_words=number(image, "topk", 768, folder),
        text_heads=number(text, "num_attention_heads", 12, folder),
        text_words=number(text, "topk", 768, folder),
        text_tokens=number(text, "max_len", 128, folder),
        words=words,
        valid_ids=valid_ids(words),
    )


def valid_ids(words: Vocabulary) -> tuple[int, ...]:
    """The tokens that VDR has a dimension for: pure ASCII, and neither special nor unused.

    The published code lists 2,899 ids of the uncased BERT vocabulary that have none; this rule gives exactly those.
    """
    return tuple(token for token, word in enumerate(words.words) if word.isascii() and not special(word))
