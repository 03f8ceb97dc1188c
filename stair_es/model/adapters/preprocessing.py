"""Read how a checkpoint of `transformers` prepares images, from its `preprocessor_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.errors import CheckpointError
from stair_es.model.checkpoint import read_json_object
from stair_es.types import ImageSpec, Resample

PREPROCESSOR_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
"""Since transformers 5, processors are saved as the second, which contains the first as its `image_processor`."""

_RESAMPLE_FILTERS: dict[object, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Value of `resample` (Pillow's number of the filter) -> filter."""
_SQUARE_PROCESSORS = (
    "BlipImageProcessor",
    "CLIPImageProcessor",
    "EfficientNetImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)
"""Image processors that turn an image into one square and don't change its shape otherwise."""


def read_checkpoint_image_spec(folder: Path) -> ImageSpec:
    """Return the square that the model's own preprocessing produces."""
    config = read_preprocessor_config(folder)
    if config is None:
        raise CheckpointError(
            f"{folder} has no {PREPROCESSOR_FILE}, so it is unknown how to prepare images", "Fetch the checkpoint again."
        )
    size_px, size = _get_size_px(config, folder), config.get("size")
    by_shorter_side = isinstance(size, int) or (isinstance(size, Mapping) and "shortest_edge" in size)
    is_cropped = bool(config.get("do_center_crop"))
    return ImageSpec(
        size_px=size_px,
        fit="crop" if is_cropped and by_shorter_side else "stretch",
        resized_px=max(size_px, _get_side_px(size) or 0) if is_cropped else None,
        resample=_get_resample(config, folder),
    )


def read_preprocessor_config(folder: Path) -> Mapping[str, Any] | None:
    """Return the preprocessing configuration of a checkpoint; None if it has none."""
    if (folder / PREPROCESSOR_FILE).is_file():
        return read_json_object(folder / PREPROCESSOR_FILE)
    config = read_json_object(folder / PROCESSOR_FILE).get("image_processor") if (folder / PROCESSOR_FILE).is_file() else None
    return config if isinstance(config, Mapping) else None


def is_square_preprocessing(config: Mapping[str, Any]) -> bool:
    """Return whether an image becomes one square, by cropping the center or stretching: no tiles, no padding."""
    kind = str(config.get("image_processor_type", "")).removesuffix("Fast").removesuffix("Pil")
    return kind in _SQUARE_PROCESSORS and bool(config.get("do_resize", True))


def _get_size_px(config: Mapping[str, Any], folder: Path) -> int:
    side = _get_side_px(config.get("crop_size") if config.get("do_center_crop") else config.get("size"))
    if side is None or not 1 <= side <= 4096:
        raise CheckpointError(
            f"the preprocessing in {folder} doesn't describe a square image: {config.get('size')}", "Fetch the checkpoint again."
        )
    return side


def _get_side_px(size: object) -> int | None:
    """Return the side in a size: a number, or a mapping with one number in it."""
    if isinstance(size, Mapping):
        sides = {value for key, value in size.items() if key in ("height", "width", "shortest_edge")}
        size = sides.pop() if len(sides) == 1 else None
    return size if isinstance(size, int) else None


def _get_resample(config: Mapping[str, Any], folder: Path) -> Resample:
    value = config.get("resample")
    if value is None:
        return "bicubic"  # the default of all four image processors of transformers
    if isinstance(value, bool) or not isinstance(value, int) or value not in _RESAMPLE_FILTERS:
        raise CheckpointError(
            f"the preprocessing in {folder} says resample = {value!r}",
            "It must be one of Pillow's filters: a number from 0 to 5.",
        )
    return _RESAMPLE_FILTERS[value]
