"""Encoder for a `SparseEncoder` of sentence-transformers: texts are its queries, images its documents. Tokens as in `readable`.

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image
from sentence_transformers import SparseEncoder

from stair_es.errors import ModelError
from stair_es.model.base import CardMixin, ModelCard, ModelSpec, check_encoder_pixels
from stair_es.model.torch_device import LockedProperty, TorchDevice, build_sparse_vectors
from stair_es.model.vocabularies.readable import detect_tokenizer_style, make_readable_tokens
from stair_es.types import Pixels, SparseVector

_UNNAMED_TOKEN = "[id {}]"
"""Token of a dimension that the tokenizer doesn't have: vocabularies are padded to a round size."""


class SentenceTransformersEncoder(CardMixin):
    """An encoder for a `SparseEncoder`. The model is loaded when it is first used."""

    def __init__(self, folder: Path, *, trusts_code: bool, card: ModelCard, spec: ModelSpec) -> None:
        """Create the encoder without loading the model.

        Args:
            folder: Checkpoint folder.
            trusts_code: Whether the user allows the checkpoint's own code.
            card: Model card.
            spec: Precision and threads.
        """
        self._folder, self._trusts_code, self._card, self._spec = folder, trusts_code, card, spec
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Encode images as documents.

        Raises:
            ModelError: If the pixels don't match `image_spec`, the model can't encode images, or it is broken.
        """
        check_encoder_pixels(pixels_BHWC, self._card)
        if not self._model.supports("image"):
            raise ModelError(f"the model {self._card.name!r} encodes texts only", "Use a model for images.")
        return self._encode_chunks(self._model.encode_document, [Image.fromarray(pixels_HWC) for pixels_HWC in pixels_BHWC])

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Encode texts as queries.

        Raises:
            ModelError: If the model is broken.
        """
        vectors = self._encode_chunks(self._model.encode_query, [text or " " for text in texts])
        return [vector if text.strip() else SparseVector((), ()) for vector, text in zip(vectors, texts, strict=True)]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces without special tokens."""
        if word in self._token_indices:
            return (word,)
        tokens, special_ids = self.tokens, set(self._tokenizer.all_special_ids)
        # With a space before it, the word begins as it does within a text; tokenizers without spaces ignore it.
        ids = self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        return tuple(dict.fromkeys(tokens[token] for token in ids if token < len(tokens) and token not in special_ids))

    def _encode_chunks(self, encode: Callable[..., Any], inputs: Sequence[Any]) -> list[SparseVector]:
        tokens, device = self.tokens, self._device
        vectors: list[SparseVector] = []
        for begin in range(0, len(inputs), device.batch_size):
            chunk = list(inputs[begin : begin + device.batch_size])
            with device.enter_inference():
                rows_BV = encode(chunk, batch_size=len(chunk), show_progress_bar=False, convert_to_sparse_tensor=False)
            if rows_BV.shape[1] != len(tokens):
                raise ModelError(
                    f"the model {self._card.name!r} produces {rows_BV.shape[1]:,} weights, but {len(tokens):,} for a query",
                    "Its routes for queries and documents don't belong together: fetch the checkpoint again.",
                )
            vectors += build_sparse_vectors(rows_BV, tokens)
        return vectors

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
            row_BV = self._model.encode_query([" "], show_progress_bar=False, convert_to_sparse_tensor=False)
        return int(row_BV.shape[1])

    @cached_property
    def _token_indices(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @property
    def _tokenizer(self) -> Any:  # noqa: ANN401  of transformers
        processor = self._model.tokenizer
        return getattr(processor, "tokenizer", processor)  # a processor contains it

    @cached_property
    def _device(self) -> TorchDevice:
        return TorchDevice(self._spec)

    @LockedProperty
    def _model(self) -> Any:  # noqa: ANN401
        try:
            model = SparseEncoder(
                str(self._folder), device=self._device.name, trust_remote_code=self._trusts_code, local_files_only=True
            )
        except Exception as error:  # the library and the model's own code raise any type
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
            raise ModelError(
                f"the SparseEncoder in {self._folder} can't be loaded: {reason}", "Fetch the checkpoint again."
            ) from error
        return model.float().eval()
