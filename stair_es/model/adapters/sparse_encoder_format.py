"""Checkpoint formats of sentence-transformers' `SparseEncoder`: V-SPLADE for page images, SPLADE for texts.

Older SPLADE checkpoints have no `modules.json`: only a masked language model, with the default pooling of the library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.errors import ModelError
from stair_es.model.adapters.preprocessing import is_square_preprocessing, read_checkpoint_image_spec, read_preprocessor_config
from stair_es.model.base import Encoder, EncoderPlugin, ModelSpec
from stair_es.model.checkpoint import (
    CONFIG_JSON,
    MODULES_JSON,
    CheckpointPlugin,
    build_checkpoint_card,
    read_checkpoint_config,
    read_json_object,
    read_license,
)
from stair_es.optional import import_optional
from stair_es.system.user_files import read_json_file
from stair_es.types import ImageSpec, ResizeMode

_LIBRARY_CONFIG = "config_sentence_transformers.json"
_DEFAULT_PX, _MAX_PX = 384, 2048


class SparseEncoderFormat:
    """The checkpoint format of a `SparseEncoder`."""

    name = "sentence-transformers SparseEncoder"
    allows_pickle = False

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the modules are those of a `SparseEncoder`."""
        return (folder / MODULES_JSON).is_file() and (folder / _LIBRARY_CONFIG).is_file() and _is_sparse_encoder(folder)

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a `SparseEncoder`."""
        _check_remote_code(folder, name, modules := _read_modules(folder), trusts_code=trusts_code)
        return _open_sparse_encoder(folder, name, fit, modules, description="sentence-transformers SparseEncoder")


class SpladeFormat:
    """The checkpoint format of a masked language model without `modules.json`."""

    name = "SPLADE (masked language model)"
    allows_pickle = True

    def is_format_of(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the architecture is a masked language model without `modules.json`."""
        architectures = config.get("architectures")
        masked = isinstance(architectures, list) and any(str(name).endswith("ForMaskedLM") for name in architectures)
        return masked and not (folder / MODULES_JSON).is_file()

    def open_checkpoint(self, folder: Path, name: str, fit: ResizeMode | None, *, trusts_code: bool) -> EncoderPlugin:
        """Return the plugin of a SPLADE checkpoint."""
        _check_remote_code(folder, name, [], trusts_code=trusts_code)
        return _open_sparse_encoder(
            folder, name, fit, [], description="SPLADE checkpoint: masked language model, largest weight of each token"
        )


SPARSE_ENCODER_FORMAT, SPLADE_FORMAT = SparseEncoderFormat(), SpladeFormat()


def _check_remote_code(folder: Path, name: str, modules: list[dict[str, Any]], *, trusts_code: bool) -> None:
    """Raise ModelError if the model contains Python code, and the user doesn't trust it."""
    code = find_remote_code(folder, modules)
    if code and not trusts_code:
        raise ModelError(
            f"the model {name!r} contains its own Python code ({', '.join(code)}), which would run on this machine",
            f"If you have read it and trust it, set {ENV_TRUST_REMOTE_CODE}={name}",
        )


def _open_sparse_encoder(
    folder: Path, name: str, fit: ResizeMode | None, modules: list[dict[str, Any]], *, description: str
) -> EncoderPlugin:
    card = build_checkpoint_card(
        name,
        [folder, *_list_subfolders(folder)],
        _choose_image_spec(folder),
        fit,
        description=description,
        licenses=read_license(folder),
    )

    def build_encoder(spec: ModelSpec) -> Encoder:
        import_optional("sentence_transformers", "models")
        from stair_es.model.adapters.sparse_encoder import SentenceTransformersEncoder

        has_code = bool(find_remote_code(folder, modules))
        return SentenceTransformersEncoder(folder, trusts_code=has_code, card=card, spec=spec)

    return CheckpointPlugin(card, build_encoder)


def _list_subfolders(folder: Path) -> list[Path]:
    """Return all subfolders of a checkpoint: modules have their own, and a router has one per route, which no file lists."""
    folders = (path for path in folder.rglob("*") if path.is_dir())
    return sorted(path for path in folders if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def find_remote_code(folder: Path, modules: list[dict[str, Any]]) -> list[str]:
    """Find the Python code that a model contains: custom module classes, and networks that name custom classes."""
    code = [str(module.get("type")) for module in modules if not str(module.get("type")).startswith("sentence_transformers.")]
    for path in sorted(folder.rglob("*.json")):
        try:
            config = read_json_file(path)
        except (UnicodeDecodeError, json.JSONDecodeError, FileNotFoundError):
            continue  # nothing reads it
        except (OSError, ValueError) as error:
            code.append(f"{path.name}, which can't be looked into: {error}")
            continue
        code += [str(reference) for reference in _list_named_code(config)]
    return list(dict.fromkeys(code))


def _list_named_code(config: Any) -> list[Any]:  # noqa: ANN401  JSON
    """Return the values of `auto_map`, with which transformers names code, and the custom types that a router names."""
    if not isinstance(config, dict):
        return []
    auto_map, types = config.get("auto_map"), config.get("types")
    references = list(auto_map.values()) if isinstance(auto_map, dict) else []
    if isinstance(types, dict):
        references += [kind for kind in types.values() if not str(kind).startswith("sentence_transformers.")]
    return references


def _is_sparse_encoder(folder: Path) -> bool:
    config = read_json_object(folder / _LIBRARY_CONFIG)
    return config.get("model_type") == "SparseEncoder" or any(
        "sparse_encoder" in str(module.get("type")) for module in _read_modules(folder)
    )


def _read_modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / MODULES_JSON
    try:
        modules = read_json_file(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}", "Fetch the checkpoint again.") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path} lists no modules", "Fetch the checkpoint again.")
    if any(not (folder / str(module.get("path", ""))).resolve().is_relative_to(folder.resolve()) for module in modules):
        raise ModelError(f"{path} names a module outside the folder", "Don't use this checkpoint.")
    return modules


def _choose_image_spec(folder: Path) -> ImageSpec:
    """Return the square to pass on: that of the preprocessing if it is a plain one, which then has nothing left to resize.

    Others keep the shape of an image, or cut it into tiles. They get the whole image on a padded square.
    """
    config = read_preprocessor_config(folder) or {}
    if is_square_preprocessing(config):
        native_spec = read_checkpoint_image_spec(folder)
        # The preprocessing crops the center itself.
        return replace(native_spec, size_px=native_spec.resized_px or native_spec.size_px, resized_px=None)
    return ImageSpec(size_px=_get_largest_px(config) or _read_image_size(folder) or _DEFAULT_PX)


def _get_largest_px(config: Mapping[str, Any]) -> int | None:
    """Return the longest side that the preprocessing keeps, capped."""
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    values = size.values() if isinstance(size, Mapping) else [size]
    return max((min(value, _MAX_PX) for value in values if isinstance(value, int) and value > 0), default=None)


def _read_image_size(folder: Path) -> int | None:
    """Return the image size that `config.json` states for the vision network."""
    vision = read_checkpoint_config(folder).get("vision_config") if (folder / CONFIG_JSON).is_file() else None
    size = vision.get("image_size") if isinstance(vision, dict) else None
    return size if isinstance(size, int) and 0 < size <= _MAX_PX else None
