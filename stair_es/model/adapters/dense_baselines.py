"""CLIP, SigLIP, ALIGN and BLIP as `transformers` saves them: dense vectors only, to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.errors import ModelError
from stair_es.model.checkpoint_kind import CheckpointKind, licence_of, model_id, read_json
from stair_es.model.encoder import Encoder, EncoderKind, ModelCard, ModelSpec
from stair_es.types import ImageSpec

if TYPE_CHECKING:
    from stair_es.model.adapters.dense_network import DenseNetwork

PREPROCESSING, PROCESSING = "preprocessor_config.json", "processor_config.json"
"""The second, with the first as its `image_processor`, is what processors are saved as since transformers 5."""


@dataclass(frozen=True, kw_only=True)
class DenseFormat:
    """See `Format`: one architecture of `transformers`."""

    name: str
    model_type: str
    architecture: str
    """The class in `transformers`."""
    text_length: str
    """What texts are padded to: the `longest` one, or `max_length`, where the model was trained to see the padding."""
    max_tokens: int | None = None
    """Where it isn't the number of the text tower's positions."""
    masks_padding: bool = True
    """Whether the text tower is told which tokens are padding: not where it was trained without that."""
    pickled: bool = True

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """See `Format.claims`."""
        built = config.get("architectures")
        built = built if isinstance(built, list) and built else [self.architecture]
        return config.get("model_type") == self.model_type and self.architecture in built

    def kind(self, folder: Path, name: str) -> EncoderKind:
        """See `Format.kind`."""
        card = ModelCard(
            name=name,
            model_id=model_id(name, [folder]),
            image_spec=image_spec(folder),
            description=f"{self.name} checkpoint: dense vectors only, for stair-es evaluate",
            licences=licence_of(folder),
        )

        def build(spec: ModelSpec) -> Encoder:
            from stair_es.model.adapters.dense_network import DenseOnly

            return DenseOnly(self.network(folder, spec, card), card)

        return CheckpointKind(card, build, dense_only=True)

    def network(self, folder: Path, spec: ModelSpec, card: ModelCard) -> DenseNetwork:
        """The networks of a folder; nothing is loaded yet."""
        from stair_es.model.adapters.dense_network import DenseNetwork

        return DenseNetwork(self, folder, spec, card)


CLIP = DenseFormat(name="CLIP", model_type="clip", architecture="CLIPModel", text_length="longest")
SIGLIP = DenseFormat(
    name="SigLIP", model_type="siglip", architecture="SiglipModel", text_length="max_length", masks_padding=False
)
ALIGN = DenseFormat(name="ALIGN", model_type="align", architecture="AlignModel", text_length="max_length", max_tokens=64)
BLIP = DenseFormat(
    name="BLIP (retrieval)", model_type="blip", architecture="BlipForImageTextRetrieval", text_length="longest", max_tokens=35
)
FORMATS = (CLIP, SIGLIP, ALIGN, BLIP)


def image_size(folder: Path) -> int:
    """The side of the square that the image tower sees.

    Raises:
        ModelError: The preprocessing isn't described, or isn't square.
    """
    return _size(_preprocessing(folder), folder)


def image_spec(folder: Path) -> ImageSpec:
    """The square as the model's own preprocessing makes it, for its numbers to be those that its authors would get.

    Raises:
        ModelError: See `image_size`.
    """
    said = _preprocessing(folder)
    size_px, resized = _size(said, folder), said.get("size")
    by_shorter_side = isinstance(resized, int) or (isinstance(resized, Mapping) and "shortest_edge" in resized)
    cut = bool(said.get("do_center_crop"))
    return ImageSpec(
        size_px=size_px,
        fit="crop" if cut and by_shorter_side else "stretch",
        resized_px=max(size_px, _side(resized) or 0) if cut else None,
    )


def _preprocessing(folder: Path) -> Mapping[str, Any]:
    if not (folder / PREPROCESSING).is_file() and (folder / PROCESSING).is_file():
        said = read_json(folder / PROCESSING).get("image_processor")
        if isinstance(said, Mapping):
            return said
    return read_json(folder / PREPROCESSING)


def _size(said: Mapping[str, Any], folder: Path) -> int:
    side = _side(said.get("crop_size") if said.get("do_center_crop") else said.get("size"))
    if side is None or not 1 <= side <= 4096:
        raise ModelError(
            f"the preprocessing in {folder} describes no square image: {said.get('size')}", "Fetch the checkpoint again."
        )
    return side


def _side(size: object) -> int | None:
    """Of what a configuration calls a size: a number, or a mapping with one number in it."""
    if isinstance(size, Mapping):
        sides = {value for key, value in size.items() if key in ("height", "width", "shortest_edge")}
        size = sides.pop() if len(sides) == 1 else None
    return size if isinstance(size, int) else None
