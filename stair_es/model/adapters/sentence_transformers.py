"""Checkpoint formats of sentence-transformers' `SparseEncoder`: V-SPLADE for page images, SPLADE for texts.

Older SPLADE checkpoints have no `modules.json`: only a masked language model, with the default pooling of the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError
from stair_es.extras import need
from stair_es.model.adapters import hub
from stair_es.model.adapters.preprocessing import find_preprocessing, is_plain, read_image_spec
from stair_es.model.checkpoint_kind import CONFIG, MODULES, CheckpointKind, build_card, licence_of, read_config, read_json
from stair_es.model.encoder import Encoder, EncoderKind, ModelSpec
from stair_es.types import Fit, ImageSpec

_ABOUT = "config_sentence_transformers.json"
_DEFAULT_PX, _LARGEST_PX = 384, 2048


class SparseEncoderFormat:
    """The checkpoint format of a `SparseEncoder`."""

    name = "sentence-transformers SparseEncoder"
    pickled = False

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the modules are those of a `SparseEncoder`."""
        return (folder / MODULES).is_file() and (folder / _ABOUT).is_file() and _sparse(folder)

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """Return the plugin of a `SparseEncoder`."""
        return _kind(folder, name, fit, _modules(folder), description="sentence-transformers SparseEncoder")


class BareSpladeFormat:
    """The checkpoint format of a masked language model without `modules.json`."""

    name = "SPLADE (masked language model)"
    pickled = True

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the architecture is a masked language model without `modules.json`."""
        built = config.get("architectures")
        masked = isinstance(built, list) and any(str(architecture).endswith("ForMaskedLM") for architecture in built)
        return masked and not (folder / MODULES).is_file()

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """Return the plugin of a SPLADE checkpoint."""
        return _kind(folder, name, fit, [], description="SPLADE checkpoint: masked language model, largest weight of each token")


FORMAT, BARE_FORMAT = SparseEncoderFormat(), BareSpladeFormat()


def _kind(folder: Path, name: str, fit: Fit | None, modules: list[dict[str, Any]], *, description: str) -> EncoderKind:
    foreign = own_code(folder, modules)
    if foreign and not hub.trusted(name):
        raise ModelError(
            f"the model {name!r} contains its own Python code ({', '.join(foreign)}), which would run on this machine",
            f"If you have read it and trust it, set {hub.TRUST}={name}",
        )
    card = build_card(
        name,
        [folder, *_below(folder)],
        _image_spec(folder),
        fit,
        description=description,
        licences=licence_of(folder),
    )

    def build(spec: ModelSpec) -> Encoder:
        need("sentence_transformers", "models")
        from stair_es.model.adapters.sentence_transformers_encoder import Sparse

        return Sparse(folder, trust=bool(foreign), card=card, spec=spec)

    return CheckpointKind(card, build)


def _below(folder: Path) -> list[Path]:
    """Return all subfolders of a checkpoint: modules have their own, and a router has one per route, which no file lists."""
    below = (path for path in folder.rglob("*") if path.is_dir())
    return sorted(path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def own_code(folder: Path, modules: list[dict[str, Any]]) -> list[str]:
    """Find the Python code that a model brings: custom module classes, and networks that name custom classes.

    Args:
        folder: Checkpoint folder.
        modules: Contents of `modules.json`.
    """
    foreign = [str(module.get("type")) for module in modules if not str(module.get("type")).startswith("sentence_transformers.")]
    for path in sorted(folder.rglob("*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < 1 << 20 else {}
        except (OSError, ValueError):
            continue
        foreign += [str(found) for found in _named_code(said)]
    return list(dict.fromkeys(foreign))


def _named_code(said: Any) -> list[Any]:  # noqa: ANN401  JSON
    """Return the values of `auto_map`, with which transformers names code, and the custom types that a router names."""
    if not isinstance(said, dict):
        return []
    mapped, types = said.get("auto_map"), said.get("types")
    found = list(mapped.values()) if isinstance(mapped, dict) else []
    if isinstance(types, dict):
        found += [kind for kind in types.values() if not str(kind).startswith("sentence_transformers.")]
    return found


def _sparse(folder: Path) -> bool:
    about = read_json(folder / _ABOUT)
    return about.get("model_type") == "SparseEncoder" or any(
        "sparse_encoder" in str(module.get("type")) for module in _modules(folder)
    )


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / MODULES
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}", "Fetch the checkpoint again.") from error
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise ModelError(f"{path} lists no modules", "Fetch the checkpoint again.")
    if any(not (folder / str(module.get("path", ""))).resolve().is_relative_to(folder.resolve()) for module in found):
        raise ModelError(f"{path} names a module outside the folder", "Don't use this checkpoint.")
    return found


def _image_spec(folder: Path) -> ImageSpec:
    """Return the square to pass on: that of the preprocessing if it is a plain one, which then has nothing left to resize.

    Others keep the shape of an image, or cut it into tiles. They get the whole image on a padded square.
    """
    said = find_preprocessing(folder) or {}
    if is_plain(said):
        own = read_image_spec(folder)
        return replace(own, size_px=own.resized_px or own.size_px, resized_px=None)  # it crops the center itself
    return ImageSpec(size_px=_largest(said) or _stated_size(folder) or _DEFAULT_PX)


def _largest(said: Mapping[str, Any]) -> int | None:
    """Return the longest side that the preprocessing keeps, capped."""
    size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    values = size.values() if isinstance(size, Mapping) else [size]
    return max((min(value, _LARGEST_PX) for value in values if isinstance(value, int) and value > 0), default=None)


def _stated_size(folder: Path) -> int | None:
    """Return the image size that `config.json` states for the vision network."""
    vision = read_config(folder).get("vision_config") if (folder / CONFIG).is_file() else None
    stated = vision.get("image_size") if isinstance(vision, dict) else None
    return stated if isinstance(stated, int) and 0 < stated <= _LARGEST_PX else None
