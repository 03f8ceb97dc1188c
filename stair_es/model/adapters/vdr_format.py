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
from stair_es.model.adapters.wordpiece_vocabulary import is_special_token, read_vocabulary
from stair_es.model.base import Encoder, EncoderPlugin, ModelSpec
from stair_es.model.checkpoint import (
    CheckpointPlugin,
    build_checkpoint_card,
    get_config_section,
    get_positive_int,
    read_checkpoint_config,
    read_license,
)
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary
from stair_es.types import ImageSpec, ResizeMode

_BERT = "bert-base-uncased"


@dataclass(frozen=True, kw_only=True)
class VdrConfig:
    """The configuration of a VDR, with the defaults of the published checkpoint."""

    image_px: int
    image_heads: int
    image_top_k: int
    """Tokens kept per image, those with the largest weights."""
    text_heads: int
    text_top_k: int
    max_text_tokens: int
    """Length that texts are padded to; the padding takes part in the maximum."""
    vocabulary: WordPieceVocabulary
    valid_ids: tuple[int, ...]
    """Ids of the tokens that have a dimension, ascending."""


class VdrFormat:
    """The checkpoint format of VDR."""

    name = "VDR (cross-modal)"
    allows_pickle = True

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration has the two encoders of VDR."""
        return "encoder_q" in config and "encoder_p" in config

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a VDR checkpoint."""
        shape = read_vdr_config(folder)
        card = build_checkpoint_card(
            name,
            [folder],
            ImageSpec(size_px=shape.image_px, fit="crop"),  # like its own code: Resize(bicubic), then CenterCrop
            fit,
            description=f"VDR checkpoint: {len(shape.valid_ids):,} words",
            licenses=read_license(folder),
        )

        def build_encoder(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.vdr_encoder import VdrEncoder

            return VdrEncoder(folder, shape, card, spec)

        return CheckpointPlugin(card, build_encoder)


VDR_FORMAT = VdrFormat()


def read_vdr_config(folder: Path) -> VdrConfig:
    """Return the configuration of a checkpoint.

    Args:
        folder: Checkpoint folder.

    Raises:
        ModelError: If it has no image tower, or its configuration is invalid.
    """
    config = read_checkpoint_config(folder)
    text, image = get_config_section(config, "encoder_q", folder), get_config_section(config, "encoder_p", folder)
    if "image" not in str(image.get("type", "image")):
        raise ModelError(
            f"{folder} is a text-only VDR ({image['type']}): it can't encode images", "Use the cross-modal checkpoint."
        )
    words = read_vocabulary(folder, str(image.get("tokenizer_id", _BERT)))
    return VdrConfig(
        image_px=get_positive_int(image, "resolution", 224, folder),
        image_heads=get_positive_int(image, "heads", 12, folder),
        image_top_k=get_positive_int(image, "topk", 768, folder),
        text_heads=get_positive_int(text, "num_attention_heads", 12, folder),
        text_top_k=get_positive_int(text, "topk", 768, folder),
        max_text_tokens=get_positive_int(text, "max_len", 128, folder),
        vocabulary=words,
        valid_ids=list_valid_ids(words),
    )


def list_valid_ids(words: WordPieceVocabulary) -> tuple[int, ...]:
    """List the tokens that have a dimension: ASCII only, and neither special nor unused.

    The published code lists 2,899 ids of the uncased BERT vocabulary that have none; this rule gives exactly those.
    """
    return tuple(token for token, word in enumerate(words.tokens) if word.isascii() and not is_special_token(word))
