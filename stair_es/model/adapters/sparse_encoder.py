"""Models of sentence-transformers' `SparseEncoder`: V-SPLADE for page images, SPLADE for texts.

Texts are its queries, images its documents. Tokens as in `readable`. Older SPLADE checkpoints have no `modules.json`: only a
masked language model, with the default pooling of the library.

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from stair_es.errors import CheckpointError, ModelError
from stair_es.model.adapters.preprocessing import is_square_preprocessing, read_checkpoint_image_spec, read_preprocessor_config
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_encoder_pixels
from stair_es.model.checkpoint import (
    CONFIG_JSON,
    LIBRARY_CONFIG_JSON,
    MODULES_JSON,
    Checkpoint,
    build_checkpoint_card,
    check_token_ids,
    check_torch_spec,
    names_stair_module,
    read_checkpoint_config,
    read_json_object,
    read_license,
)
from stair_es.model.cuda import LockedProperty, open_device
from stair_es.model.sparse_rows import SparseRowBuilder, select_top_weights
from stair_es.model.vocabularies.readable import detect_tokenizer_style, make_readable_tokens
from stair_es.optional import import_optional
from stair_es.system.user_files import read_json_file
from stair_es.types import ImageSpec, Pixels, ResizeMode, SparseVector

if TYPE_CHECKING:
    from torch import Tensor


_DEFAULT_PX, _MAX_PX = 384, 2048
_UNNAMED_TOKEN = "[id {}]"
"""Token of a dimension that the tokenizer doesn't have: vocabularies are padded to a round size."""


class SparseEncoderCheckpoint(Checkpoint):
    """A `SparseEncoder`."""

    family = "sentence-transformers SparseEncoder"
    description: ClassVar[str] = family

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the modules are those of a `SparseEncoder`, and not the one that stair-es itself writes."""
        has_files = (folder / MODULES_JSON).is_file() and (folder / LIBRARY_CONFIG_JSON).is_file()
        return has_files and not names_stair_module(folder) and _is_sparse_encoder(folder)

    @classmethod
    def find_code(cls, folder: Path) -> tuple[str, ...]:
        """Return the classes of modules and networks that aren't those of the libraries."""
        return find_remote_code(folder, _read_modules(folder))

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`. Code in the folder may run: `open_checkpoint` has checked that."""
        self._folder, self._runs_code = folder, bool(self.find_code(folder))
        self.card = build_checkpoint_card(
            name,
            [folder, *_list_subfolders(folder)],
            _choose_image_spec(folder),
            fit,
            description=self.description,
            licenses=read_license(folder),
        )

    def load(self, spec: ModelSpec) -> Encoder:
        """Create the encoder without loading the model."""
        check_torch_spec(spec)
        import_optional("sentence_transformers", "models")
        return SentenceTransformersEncoder(self._folder, runs_code=self._runs_code, card=self.card, spec=spec)


class SpladeCheckpoint(SparseEncoderCheckpoint):
    """A masked language model without `modules.json`."""

    family = "SPLADE (masked language model)"
    description = "SPLADE checkpoint: masked language model, largest weight of each token"
    allows_pickle = True

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the architecture is a masked language model without `modules.json`."""
        architectures = config.get("architectures")
        masked = isinstance(architectures, list) and any(str(name).endswith("ForMaskedLM") for name in architectures)
        return masked and not (folder / MODULES_JSON).is_file()


def _list_subfolders(folder: Path) -> list[Path]:
    """Return all subfolders of a checkpoint: modules have their own, and a router has one per route, which no file lists."""
    folders = (path for path in folder.rglob("*") if path.is_dir())
    return sorted(path for path in folders if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def find_remote_code(folder: Path, modules: list[dict[str, Any]]) -> tuple[str, ...]:
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
    return tuple(dict.fromkeys(code))


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
    config = read_json_object(folder / LIBRARY_CONFIG_JSON)
    return config.get("model_type") == "SparseEncoder" or any(
        "sparse_encoder" in str(module.get("type")) for module in _read_modules(folder)
    )


def _read_modules(folder: Path) -> list[dict[str, Any]]:
    """Return the modules in `modules.json`; none for a masked language model, which has no such file."""
    path = folder / MODULES_JSON
    if not path.exists():
        return []
    try:
        modules = read_json_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}", "Fetch the checkpoint again.") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path} lists no modules", "Fetch the checkpoint again.")
    if any(not (folder / str(module.get("path", ""))).resolve().is_relative_to(folder.resolve()) for module in modules):
        raise CheckpointError(f"{path} names a module outside the folder", "Don't use this checkpoint.")
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


class SentenceTransformersEncoder(Encoder):
    """An encoder for a `SparseEncoder`. The model is loaded when it is first used."""

    def __init__(self, folder: Path, *, runs_code: bool, card: ModelCard, spec: ModelSpec) -> None:
        """Create the encoder without loading the model."""
        self._folder, self._runs_code, self.card, self._spec = folder, runs_code, card, spec
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Encode images as documents."""
        check_encoder_pixels(pixels_BHWC, self.card)
        if not self._model.supports("image"):
            raise ModelError(
                f"the model {self.card.name!r} encodes texts only", "Use a model for images.", code="model-of-texts-only"
            )
        return self._encode_chunks(
            self._model.encode_document, pixels_BHWC, stage=lambda chunk: [Image.fromarray(pixels_HWC) for pixels_HWC in chunk]
        )

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Encode texts as queries."""
        vectors = self._encode_chunks(self._model.encode_query, [text or " " for text in texts], stage=list, kind="texts")
        return [vector if text.strip() else SparseVector((), ()) for vector, text in zip(vectors, texts, strict=True)]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces without special tokens."""
        if word in self._token_indices:
            return (word,)
        tokens, special_ids = self.tokens, set(self._tokenizer.all_special_ids)
        # With a space before it, the word begins as it does within a text; tokenizers without spaces ignore it.
        ids = self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        return tuple(dict.fromkeys(tokens[token] for token in ids if token < len(tokens) and token not in special_ids))

    def _encode_chunks(self, encode: Callable[..., Any], inputs: Any, **options: Any) -> list[SparseVector]:  # noqa: ANN401
        """Encode inputs with the library, which prepares them itself; `options` are those of `TorchDevice.run_chunks`."""
        tokens = self.tokens

        def compute(chunk: list[Any]) -> Sequence[Tensor]:
            weights_BV = self._run_library(encode, chunk)
            if weights_BV.shape[1] != len(tokens):
                raise CheckpointError(
                    f"the model {self.card.name!r} produces {weights_BV.shape[1]:,} weights, but {len(tokens):,} for a query",
                    "Its routes for queries and documents don't belong together: fetch the checkpoint again.",
                )
            return select_top_weights(weights_BV)

        chunks = self._device.run_chunks(inputs, compute, **options)
        return self._rows.build_chunks(chunks)

    def _run_library(self, encode: Callable[..., Any], chunk: list[Any]) -> Tensor:
        """Return the weights [B, V] of a chunk. Autocast, because the library and the model's own code create fp32 tensors."""
        with self._device.enter_autocast():
            rows_BV: Tensor = encode(chunk, batch_size=len(chunk), show_progress_bar=False, convert_to_sparse_tensor=False)
        return rows_BV

    @LockedProperty
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self.tokens)

    @LockedProperty
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens, in the order of the dimensions."""
        vocabulary = self._tokenizer.get_vocab()
        token_of = {token: word for word, token in vocabulary.items()}
        size = self._dimension_count
        tokens = [token_of.get(index, _UNNAMED_TOKEN.format(index)) for index in range(size)]
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        style = detect_tokenizer_style(backend.to_str()) if backend is not None else "plain"
        special = frozenset(self._tokenizer.all_special_tokens) | {token for token in tokens if token not in vocabulary}
        return make_readable_tokens(tokens, style, special)

    @cached_property
    def _dimension_count(self) -> int:
        """Return the vector size of a first query: before its first encode, a saved model may report its hidden size instead."""
        with self._device.enter_inference():
            return int(self._run_library(self._model.encode_query, [" "]).shape[1])

    @cached_property
    def _token_indices(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @property
    def _tokenizer(self) -> Any:  # noqa: ANN401  of transformers
        processor = self._model.tokenizer
        return getattr(processor, "tokenizer", processor)  # a processor contains it

    _device = LockedProperty(open_device)

    @LockedProperty
    def _model(self) -> Any:  # noqa: ANN401
        from sentence_transformers import SparseEncoder

        try:
            model = SparseEncoder(
                str(self._folder), device=self._device.name, trust_remote_code=self._runs_code, local_files_only=True
            )
        except Exception as error:  # the library and the model's own code raise any type
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            raise CheckpointError(
                f"the SparseEncoder in {self._folder} can't be loaded: {reason}", "Fetch the checkpoint again."
            ) from error
        self._check_tokenizer(model)
        return self._device.place_network(model)

    def _check_tokenizer(self, model: Any) -> None:  # noqa: ANN401
        """Check that the largest table of token embeddings has a row for every token. Networks of images have none."""
        from torch import nn
        from transformers import PreTrainedModel

        networks = [each for each in model.modules() if isinstance(each, PreTrainedModel)]
        tables = [table for each in networks if isinstance(table := _get_embeddings(each), nn.Embedding)]
        processor = model.tokenizer
        tokenizer = getattr(processor, "tokenizer", processor)
        if tables and hasattr(tokenizer, "get_vocab"):
            check_token_ids(tokenizer.get_vocab(), max(table.num_embeddings for table in tables), str(self._folder))


def _get_embeddings(network: Any) -> Any:  # noqa: ANN401
    try:
        return network.get_input_embeddings()
    except NotImplementedError:  # of images
        return None
