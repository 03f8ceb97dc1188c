"""Image and text towers of `transformers` that return one dense vector per item.

Preprocessing and tokenizer come from the checkpoint; images come as the squares that `image_spec` describes.

Shape suffixes: B batch, H height, W width, C channel, D dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers
from torch import Tensor
from torch.nn import functional

from stair_es.errors import ModelError
from stair_es.model.base import CardMixin, ModelCard, ModelSpec, check_encoder_pixels
from stair_es.model.checkpoint import SENTENCEPIECE_FILE, build_dense_only_error
from stair_es.model.torch_device import LockedProperty, TorchDevice
from stair_es.types import Floats, Pixels, SparseVector

if TYPE_CHECKING:
    from stair_es.model.adapters.dense_format import DenseCheckpointFormat

_REFETCH_HINT = "Fetch the checkpoint again: configuration, weights, tokenizer and preprocessing belong together."
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", SENTENCEPIECE_FILE)


class DenseNetwork:
    """The two towers, loaded lazily. May be used from several threads."""

    def __init__(self, checkpoint_format: DenseCheckpointFormat, folder: Path, spec: ModelSpec, card: ModelCard) -> None:
        """Create the networks without loading them."""
        self._format, self._folder, self._spec, self._card = checkpoint_format, folder, spec, card
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> Floats:
        """Encode images as unit vectors [B, D].

        Raises:
            ModelError: If the pixels don't match the card, or the checkpoint is broken.
        """
        check_encoder_pixels(pixels_BHWC, self._card)

        def encode_chunk(chunk_BHWC: Pixels) -> Tensor:
            inputs = self._processor(
                images=list(np.array(chunk_BHWC)),  # PyTorch rejects read-only arrays
                do_resize=False,
                do_center_crop=False,
                input_data_format="channels_last",
                return_tensors="pt",
            )
            return self._run_image_tower(inputs["pixel_values"].to(self._device.name))

        return self._encode_chunks(pixels_BHWC, encode_chunk)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Encode texts as unit vectors [B, D]. Long texts are truncated.

        Raises:
            ModelError: If the checkpoint is broken.
        """
        prepare = self._format.prepare_text

        def encode_chunk(chunk: Sequence[str]) -> Tensor:
            prepared = [prepare(text) for text in chunk] if prepare else list(chunk)
            max_length = self._format.max_tokens or self._model.config.text_config.max_position_embeddings
            padding = True if self._format.text_length == "longest" else "max_length"
            inputs = self._tokenizer(prepared, padding=padding, truncation=True, max_length=max_length, return_tensors="pt")
            names = ("input_ids", "attention_mask") if self._format.masks_padding else ("input_ids",)
            return self._run_text_tower({key: inputs[key].to(self._device.name) for key in names if key in inputs})

        return self._encode_chunks(texts, encode_chunk)

    def _encode_chunks(self, inputs: Any, encode_chunk: Callable[[Any], Tensor]) -> Floats:  # noqa: ANN401  pixels, or texts
        rows: list[Floats] = []
        for begin in range(0, len(inputs), self._device.batch_size):
            with self._device.enter_inference():
                vectors_BD = encode_chunk(inputs[begin : begin + self._device.batch_size])
                rows.append(functional.normalize(vectors_BD.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def _run_image_tower(self, pixels: Tensor) -> Tensor:
        if self._format.model_type == "blip":
            states = self._model.vision_model(pixel_values=pixels).last_hidden_state
            projected: Tensor = self._model.vision_proj(states[:, 0])
            return projected
        return _get_pooled_output(self._model.get_image_features(pixel_values=pixels))

    def _run_text_tower(self, inputs: dict[str, Tensor]) -> Tensor:
        if self._format.model_type == "blip":
            states = self._model.text_encoder(**inputs).last_hidden_state
            projected: Tensor = self._model.text_proj(states[:, 0])
            return projected
        return _get_pooled_output(self._model.get_text_features(**inputs))

    @cached_property
    def _device(self) -> TorchDevice:
        return TorchDevice(self._spec)

    @LockedProperty
    def _model(self) -> Any:  # noqa: ANN401  a class of transformers
        model_class = getattr(transformers, self._format.architecture)
        model, info = _load_part(
            "weights",
            lambda: model_class.from_pretrained(
                self._folder,
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            ),
            self._folder,
        )
        missing = sorted(info["missing_keys"])
        mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
        for names, what in ((missing, "lack"), (mismatched, "have the wrong shape for")):
            if names:
                raise ModelError(f"the weights in {self._folder} {what} {', '.join(names[:3])}", _REFETCH_HINT)
        return model.float().eval().to(self._device.name)

    @LockedProperty
    def _processor(self) -> Any:  # noqa: ANN401
        processor_class: Any = transformers.AutoImageProcessor
        return _load_part(
            "preprocessing", lambda: processor_class.from_pretrained(self._folder, local_files_only=True), self._folder
        )

    @LockedProperty
    def _tokenizer(self) -> Any:  # noqa: ANN401
        if not any((self._folder / name).is_file() for name in _TOKENIZERS):  # transformers would create an empty one
            raise ModelError(f"{self._folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}", _REFETCH_HINT)
        tokenizer_class: Any = transformers.AutoTokenizer
        return _load_part("tokenizer", lambda: tokenizer_class.from_pretrained(self._folder, local_files_only=True), self._folder)


class DenseOnlyEncoder(CardMixin):
    """A `DenseEncoder` without tokens, for `stair-es evaluate`."""

    dense_only = True

    def __init__(self, network: DenseNetwork, card: ModelCard) -> None:
        """Create the encoder without loading its networks."""
        self._network, self._card = network, card

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Raise ModelError: the model has no tokens.

        Raises:
            ModelError: Always.
        """
        raise build_dense_only_error(self._card.name)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Raise ModelError: the model has no tokens.

        Raises:
            ModelError: Always.
        """
        raise build_dense_only_error(self._card.name)

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Encode images as unit vectors [B, D]."""
        return self._network.encode_images(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Encode texts as unit vectors [B, D]."""
        return self._network.encode_texts(texts)


def _get_pooled_output(output: Any) -> Tensor:  # noqa: ANN401  a tensor up to transformers 4, an output object since 5
    vector: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vector


@contextmanager
def _hide_progress() -> Iterator[None]:
    """Hide the progress bars of transformers, which would be in the log of a server and in front of a command's output."""
    logging: Any = transformers.utils.logging
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _load_part(what: str, load: Callable[[], Any], folder: Path) -> Any:  # noqa: ANN401
    try:
        with _hide_progress():
            return load()
    except Exception as error:  # transformers passes on the errors of other libraries
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
        raise ModelError(f"the {what} in {folder} can't be loaded: {reason}", _REFETCH_HINT) from error
