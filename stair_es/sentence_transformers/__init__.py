"""Models of stair-es in sentence-transformers: one module, with which a `SparseEncoder` encodes texts and images.

::

    SparseEncoder("models/mine", trust_remote_code=True)
    SparseEncoder(modules=[StairModule("stair-mini")])

The checkpoints that stair-es writes name the class in their `modules.json`, so its path is part of their format. The module has
no parameters that could be trained. Shape suffixes as in `stair_es.types`; V words of the vocabulary.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as PilImage
from PIL.Image import fromarray

from stair_es.errors import ModelError, UsageError
from stair_es.model.adapters.sparse_encoder import SparseEncoderCheckpoint
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.registry import resolve_model
from stair_es.optional import check_installed
from stair_es.sources.image.read import ImageLike, read_image

check_installed("sentence_transformers", extra="models")

import torch  # noqa: E402
from sentence_transformers.base.modality import infer_modality  # noqa: E402
from sentence_transformers.base.modules import InputModule  # noqa: E402

_NOT_SAVED = (".*", "state.pt", "*.csv", "tensorboard")
"""Files of a training next to its checkpoint."""


class DimensionWords:
    """The words of a model, in the order of the dimensions: what `SparseEncoder.decode` needs of a tokenizer."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.number_of = {word: number for number, word in enumerate(words)}

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the words of dimensions."""
        return [self.words[number] for number in ids]


class StairModule(InputModule):
    """A model of stair-es as the only module of a `SparseEncoder`.

    Queries and documents are encoded alike. An image is a path, a URL, a `data:` URI, bytes, a PIL image or an array [H, W, C],
    and is decoded as by `stair-es ingest`. `{"text": ..., "image": ...}` has the sum of both vectors.
    """

    def __init__(self, name: str) -> None:
        """Find the model. Its networks are loaded when they are first used, on the device of the `SparseEncoder`.

        Args:
            name: Value of `--model`: the name of a model, the folder of a checkpoint, or its id on the Hugging Face hub.

        Raises:
            ModelError: If there is no such model, its files are incomplete, or it has no tokens.
            MissingExtra: If a required library isn't installed.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = resolve_model(ModelSpec(name=name))
        self._model.check_indexable()
        self._loaded: tuple[str, Encoder] | None = None
        self.register_buffer("_device_mark", torch.empty(0), persistent=False)  # `SparseEncoder` moves it, and asks it

    @property
    def modalities(self) -> list[Any]:
        """Return what an input may be: a text, an image, or both."""
        return ["text", "image", ("image", "text")]

    @cached_property
    def tokenizer(self) -> DimensionWords:  # type: ignore[override]
        """Return the words of the model."""
        words = self._load_encoder().tokens
        if not words:
            raise ModelError(
                f"the model {self._model.spec.name!r} doesn't list its tokens, so its vectors have no dimensions",
                "Use a model that lists them, such as stair-mini.",
                code="no-token-ids",
            )
        return DimensionWords(words)

    def get_embedding_dimension(self) -> int:
        """Return the number of words."""
        return len(self.tokenizer.words)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Decode the images of a batch.

        Args:
            inputs: Texts, images or dicts of both, as `modalities` says; one kind per batch.
            prompt: Put before each text.
            kwargs: Ignored.

        Raises:
            DecodeError: If an image can't be read.
            UsageError: If there are several kinds.
        """
        samples = [sample if isinstance(sample, dict) else {self._infer_modality(sample): sample} for sample in inputs]
        if len({frozenset(sample) for sample in samples}) > 1:
            raise UsageError(
                "a batch has inputs of several kinds", "Encode texts and images in separate calls.", code="mixed-batch"
            )
        spec = self._model.card.image_spec
        pixels = [read_image(_convert_array(sample["image"]), spec) for sample in samples if "image" in sample]
        return {
            "texts": [(prompt or "") + sample["text"] for sample in samples if "text" in sample],
            "pixels_BHWC": np.stack(pixels) if pixels else None,
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the weights of all words, [B, V]."""
        encoder, pixels_BHWC = self._load_encoder(), features["pixels_BHWC"]
        parts = [encoder.encode_texts(features["texts"])] if features["texts"] else []
        parts += [encoder.encode_images(pixels_BHWC)] if pixels_BHWC is not None else []
        weights_BV = torch.zeros(len(parts[0]), self.get_embedding_dimension())
        for vectors in parts:
            for row, vector in enumerate(vectors):
                weights_BV[row, [self.tokenizer.number_of[word] for word in vector.tokens]] += torch.tensor(vector.weights)
        return {**features, "sentence_embedding": weights_BV.to(self._device_mark.device)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Copy the checkpoint.

        Raises:
            ModelError: If the model is part of a package, or a `SparseEncoder` itself, whose `modules.json` a copy would lose.
        """
        name, folder = self._model.spec.name, self._model.folder
        if folder is None or isinstance(self._model.plugin, SparseEncoderCheckpoint):
            raise ModelError(
                f"the model {name!r} is part of a package or of sentence-transformers: it can't be saved as a checkpoint of ours",
                f"Load it by its name instead: SparseEncoder(modules=[StairModule({name!r})])",
                code="model-not-saved",
            )
        if Path(output_path).resolve() != folder:
            shutil.copytree(folder, output_path, ignore=shutil.ignore_patterns(*_NOT_SAVED), dirs_exist_ok=True)

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> StairModule:  # noqa: ANN401
        """Load the checkpoint in a folder or in a repository on the hub; see `Module.load`."""
        places = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        folder = cls.load_dir_path(model_name_or_path, **{name: kwargs[name] for name in places if name in kwargs})
        return cls(folder or model_name_or_path)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks out: another process loads them itself."""
        return {**self.__dict__, "_loaded": None}

    def _load_encoder(self) -> Encoder:
        """Return the encoder on the device of the `SparseEncoder` if it is a GPU that the model can use, else on the CPU."""
        mark: torch.Tensor = self._device_mark
        device = str(mark.device) if mark.is_cuda and self._model.can_use_gpu else "cpu"
        if self._loaded is None or self._loaded[0] != device:
            self._loaded = (device, self._model.load(device=device))
        return self._loaded[1]

    def _infer_modality(self, sample: Any) -> str:  # noqa: ANN401
        return "image" if isinstance(sample, (bytes, Path)) else str(infer_modality(sample, self.modalities))


def _convert_array(image: Any) -> ImageLike:  # noqa: ANN401  what sentence-transformers takes for an image
    is_known = isinstance(image, (str, bytes, Path, PilImage))
    return image if is_known else fromarray(np.asarray(image))
