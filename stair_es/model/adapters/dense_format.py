"""Checkpoint formats of CLIP, SigLIP, ALIGN and BLIP as `transformers` saves them: dense vectors only, for comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.model.adapters.preprocessing import read_checkpoint_image_spec
from stair_es.model.base import Encoder, EncoderPlugin, ModelCard, ModelSpec
from stair_es.model.checkpoint import SENTENCEPIECE_FILE, CheckpointPlugin, build_checkpoint_card, read_license
from stair_es.optional import import_optional
from stair_es.types import ResizeMode

if TYPE_CHECKING:
    from stair_es.model.adapters.dense_encoder import DenseNetwork

_CAPTION_PUNCTUATION = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
_MAX_CAPTION_WORDS = 50


@dataclass(frozen=True, kw_only=True)
class DenseCheckpointFormat:
    """The checkpoint format of one architecture of `transformers`."""

    name: str
    model_type: str
    architecture: str
    """Class in `transformers`."""
    text_length: str
    """Length that texts are padded to: `longest` of the batch, or `max_length` if the model was trained on padding."""
    max_tokens: int | None = None
    """Maximum text length, if it isn't the number of positions of the text tower."""
    masks_padding: bool = True
    """Whether the text tower gets an attention mask: not if it was trained without one."""
    prepare_text: Callable[[str], str] | None = None
    """Normalization of texts in training that the tokenizer doesn't do itself."""
    allows_pickle: bool = True

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether model type and architecture are those of this format."""
        built = config.get("architectures")
        built = built if isinstance(built, list) and built else [self.architecture]
        return config.get("model_type") == self.model_type and self.architecture in built

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a dense checkpoint."""
        card = build_checkpoint_card(
            name,
            [folder],
            read_checkpoint_image_spec(folder),
            fit,
            description=f"{self.name} checkpoint: dense vectors only, for stair-es evaluate",
            licenses=read_license(folder),
        )

        def build_encoder(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.dense_encoder import DenseOnlyEncoder

            return DenseOnlyEncoder(self.build_network(folder, spec, card), card)

        return CheckpointPlugin(card, build_encoder, dense_only=True)

    def build_network(self, folder: Path, spec: ModelSpec, card: ModelCard) -> DenseNetwork:
        """Create the networks of a checkpoint without loading them.

        Args:
            folder: Checkpoint folder.
            spec: Precision and threads.
            card: Model card.

        Raises:
            MissingExtra: If its tokenizer needs sentencepiece, which isn't installed.
        """
        if (folder / SENTENCEPIECE_FILE).is_file():
            import_optional("sentencepiece", "models")  # or transformers fails later, or uses another tokenizer
        from stair_es.model.adapters.dense_encoder import DenseNetwork

        return DenseNetwork(self, folder, spec, card)


def clean_caption(text: str) -> str:
    """Normalize a caption as in BLIP's and LAVIS's training: lower case, some punctuation as spaces, at most 50 words."""
    return " ".join(text.lower().translate(_CAPTION_PUNCTUATION).split()[:_MAX_CAPTION_WORDS])


CLIP = DenseCheckpointFormat(name="CLIP", model_type="clip", architecture="CLIPModel", text_length="longest")
SIGLIP = DenseCheckpointFormat(
    name="SigLIP",
    model_type="siglip",
    architecture="SiglipModel",
    text_length="max_length",
    masks_padding=False,
    prepare_text=str.lower,  # the tokenizer of SigLIP 2 keeps capitals, which it never saw in training
)
ALIGN = DenseCheckpointFormat(
    name="ALIGN", model_type="align", architecture="AlignModel", text_length="max_length", max_tokens=64
)
BLIP = DenseCheckpointFormat(
    name="BLIP (retrieval)",
    model_type="blip",
    architecture="BlipForImageTextRetrieval",
    text_length="longest",
    max_tokens=35,
    prepare_text=clean_caption,
)
DENSE_FORMATS = (CLIP, SIGLIP, ALIGN, BLIP)
