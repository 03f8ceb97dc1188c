"""VDR, the vocabulary-disentangled retriever: the format of its cross-modal checkpoint (`vsearch/vdr-cross-modal`).

Source: Zhou et al., "Retrieval-based Disentangled Representation Learning with Natural Language Supervision", ICLR 2024, and the
configuration of the public checkpoint. Its code is MIT-licensed; none of it is used here.
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
    """The configuration of a VDR, with the defaults of the published checkpoint."""

    image_px: int
    image_heads: int
    image_words: int
    """Tokens kept per image, those with the largest weights."""
    text_heads: int
    text_words: int
    text_tokens: int
    """Length that texts are padded to; the padding takes part in the maximum."""
    words: Vocabulary
    valid_ids: tuple[int, ...]
    """Ids of the tokens that have a dimension, ascending."""


class VdrFormat:
    """The checkpoint format of VDR."""

    name = "VDR (cross-modal)"
    pickled = True

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration has the two encoders of VDR."""
        return "encoder_q" in config and "encoder_p" in config

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """Return the plugin of a VDR checkpoint."""
        shape = read_shape(folder)
        card = build_card(
            name,
            [folder],
            ImageSpec(size_px=shape.image_px, fit="crop"),  # like its own code: Resize(bicubic), then CenterCrop
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
    """Return the configuration of a checkpoint.

    Args:
        folder: Checkpoint folder.

    Raises:
        ModelError: If it has no image tower, or its configuration is invalid.
    """
    config = read_config(folder)
    text, image = section(config, "encoder_q", folder), section(config, "encoder_p", folder)
    if "image" not in str(image.get("type", "image")):
        raise ModelError(
            f"{folder} is a text-only VDR ({image['type']}): it can't encode images", "Use the cross-modal checkpoint."
        )
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
    """List the tokens that have a dimension: ASCII only, and neither special nor unused.

    The published code lists 2,899 ids of the uncased BERT vocabulary that have none; this rule gives exactly those.
    """
    return tuple(token for token, word in enumerate(words.words) if word.isascii() and not special(word))
