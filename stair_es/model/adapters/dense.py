"""CLIP, SigLIP, ALIGN and BLIP as `transformers` saves them: one dense vector per item, for comparisons and for distillation.

Preprocessing and tokenizer come from the checkpoint; images come as the squares that `image_spec` describes.

Shape suffixes: B batch, D dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stair_es.errors import CheckpointError
from stair_es.model.adapters.preprocessing import read_checkpoint_image_spec
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_encoder_pixels
from stair_es.model.checkpoint import (
    SENTENCEPIECE_FILE,
    Checkpoint,
    build_checkpoint_card,
    build_dense_only_error,
    check_token_ids,
    check_torch_spec,
    read_license,
)
from stair_es.model.cuda import LockedProperty, open_device
from stair_es.optional import import_optional
from stair_es.types import Floats, Pixels, ResizeMode, SparseVector

if TYPE_CHECKING:
    from torch import Tensor

    from stair_es.model.adapters.normalization import PixelNormalizer

_CAPTION_PUNCTUATION = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
_MAX_CAPTION_WORDS = 50
_REFETCH_HINT = "Fetch the checkpoint again: configuration, weights, tokenizer and preprocessing belong together."
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", SENTENCEPIECE_FILE)


def clean_caption(text: str) -> str:
    """Normalize a caption as in BLIP's and LAVIS's training: lower case, some punctuation as spaces, at most 50 words."""
    return " ".join(text.lower().translate(_CAPTION_PUNCTUATION).split()[:_MAX_CAPTION_WORDS])


class DenseCheckpoint(Checkpoint):
    """A model of one architecture of `transformers`. Subclasses say how its texts were prepared in training."""

    allows_pickle = True
    model_type: ClassVar[str]
    architecture: ClassVar[str]
    """Class in `transformers`."""
    pads_to_longest: ClassVar[bool] = False
    """Whether texts are padded to the longest of the batch, not to `max_tokens`: not if the model was trained on padding."""
    max_tokens: ClassVar[int | None] = None
    """Maximum text length, if it isn't the number of positions of the text tower."""
    masks_padding: ClassVar[bool] = True
    """Whether the text tower gets an attention mask: not if it was trained without one."""

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether model type and architecture are those of this family."""
        architectures = config.get("architectures")
        architectures = architectures if isinstance(architectures, list) and architectures else [cls.architecture]
        return config.get("model_type") == cls.model_type and cls.architecture in architectures

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`."""
        self.folder = folder
        self.card = build_checkpoint_card(
            name,
            [folder],
            read_checkpoint_image_spec(folder),
            fit,
            description=f"{self.family} checkpoint: dense vectors only, for stair-es evaluate",
            licenses=read_license(folder),
            has_tokens=False,
        )

    def load(self, spec: ModelSpec) -> DenseEncoder:
        """Create the encoder without loading its networks."""
        check_torch_spec(spec)
        return self.build_encoder(spec, self.card)

    def build_encoder(self, spec: ModelSpec, card: ModelCard) -> DenseEncoder:
        """Create the encoder, for a card that may be that of a head over this model.

        Raises:
            MissingExtra: If its tokenizer needs sentencepiece, which isn't installed.
        """
        if (self.folder / SENTENCEPIECE_FILE).is_file():
            import_optional("sentencepiece", "models")  # or transformers fails later, or uses another tokenizer
        return DenseEncoder(self, spec, card)

    @staticmethod
    def prepare_text(text: str) -> str:
        """Normalize a text as in training, where the tokenizer doesn't do so itself."""
        return text


class ClipCheckpoint(DenseCheckpoint):
    """A CLIP."""

    family, model_type, architecture = "CLIP", "clip", "CLIPModel"
    pads_to_longest = True


class SiglipCheckpoint(DenseCheckpoint):
    """A SigLIP, 1 or 2."""

    family, model_type, architecture = "SigLIP", "siglip", "SiglipModel"
    masks_padding = False

    @staticmethod
    def prepare_text(text: str) -> str:
        """Return the text in lower case: the tokenizer of SigLIP 2 keeps capitals, which it never saw in training."""
        return text.lower()


class AlignCheckpoint(DenseCheckpoint):
    """An ALIGN."""

    family, model_type, architecture = "ALIGN", "align", "AlignModel"
    max_tokens = 64


class BlipCheckpoint(DenseCheckpoint):
    """A BLIP for image-text retrieval."""

    family, model_type, architecture = "BLIP (retrieval)", "blip", "BlipForImageTextRetrieval"
    pads_to_longest = True
    max_tokens = 35
    prepare_text = staticmethod(clean_caption)


class DenseEncoder(Encoder):
    """The two towers, loaded lazily. They have no tokens."""

    has_dense = True

    def __init__(self, checkpoint: DenseCheckpoint, spec: ModelSpec, card: ModelCard) -> None:
        """Create the encoder without loading its networks."""
        self._checkpoint, self._folder, self._spec, self.card = checkpoint, checkpoint.folder, spec, card
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Raise ModelError: the model has no tokens."""
        raise build_dense_only_error(self.card.name)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Raise ModelError: the model has no tokens."""
        raise build_dense_only_error(self.card.name)

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Encode images as unit vectors [B, D]."""
        check_encoder_pixels(pixels_BHWC, self.card)
        normalizer, device = self._normalizer, self._device
        if normalizer is None:  # unusual preprocessing, which runs on the CPU and sends floats
            return self._run_tower(
                pixels_BHWC, self._run_image_tower, stage=lambda chunk: self._preprocess(chunk).to(device.name, device.dtype)
            )
        return self._run_tower(pixels_BHWC, lambda pixels: self._run_image_tower(normalizer.normalize(pixels)))

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Encode texts as unit vectors [B, D]. Long texts are truncated."""
        family, model, tokenizer = self._checkpoint, self._model, self._tokenizer
        max_length = family.max_tokens or model.config.text_config.max_position_embeddings
        padding = True if family.pads_to_longest else "max_length"
        names = ("input_ids", "attention_mask") if family.masks_padding else ("input_ids",)

        def stage(chunk: Sequence[str]) -> dict[str, Tensor]:
            prepared = [family.prepare_text(text) for text in chunk]
            inputs = tokenizer(prepared, padding=padding, truncation=True, max_length=max_length, return_tensors="pt")
            return {key: inputs[key].to(self._device.name) for key in names if key in inputs}

        return self._run_tower(texts, self._run_text_tower, stage=stage, kind="texts")

    def _run_tower(self, inputs: Any, run_tower: Callable[[Any], Tensor], **options: Any) -> Floats:  # noqa: ANN401
        """Return the unit vectors [B, D] of a tower; `options` are those of `TorchDevice.run_chunks`."""
        from torch.nn import functional

        assert self._model  # loaded before the memory of a chunk is measured

        def compute(chunk: Any) -> list[Tensor]:  # noqa: ANN401
            return [functional.normalize(run_tower(chunk).float(), dim=-1)]

        rows = [vectors_BD for (vectors_BD,) in self._device.run_chunks(inputs, compute, **options)]
        return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)

    def _preprocess(self, pixels_BHWC: Pixels) -> Tensor:
        """Preprocess images as the checkpoint says, except for their size."""
        inputs = self._processor(
            images=list(np.array(pixels_BHWC)),  # PyTorch rejects read-only arrays
            do_resize=False,
            do_center_crop=False,
            input_data_format="channels_last",
            return_tensors="pt",
        )
        pixels: Tensor = inputs["pixel_values"]
        return pixels

    def _run_image_tower(self, pixels: Tensor) -> Tensor:
        if self._checkpoint.model_type == "blip":
            states = self._model.vision_model(pixel_values=pixels).last_hidden_state
            projected: Tensor = self._model.vision_proj(states[:, 0])
            return projected
        return _get_pooled_output(self._model.get_image_features(pixel_values=pixels))

    def _run_text_tower(self, inputs: dict[str, Tensor]) -> Tensor:
        if self._checkpoint.model_type == "blip":
            states = self._model.text_encoder(**inputs).last_hidden_state
            projected: Tensor = self._model.text_proj(states[:, 0])
            return projected
        return _get_pooled_output(self._model.get_text_features(**inputs))

    _device = LockedProperty(open_device)

    @LockedProperty
    def _normalizer(self) -> PixelNormalizer | None:
        """Return the preprocessing on the device; None if it isn't a scale and an offset of each channel."""
        from stair_es.model.adapters.normalization import PixelNormalizer, measure_normalization

        found = measure_normalization(self._preprocess, self.image_spec.size_px)
        return PixelNormalizer(*found, self._device.name, self._device.dtype) if found else None

    @LockedProperty
    def _model(self) -> Any:  # noqa: ANN401  a class of transformers
        import transformers

        model_class = getattr(transformers, self._checkpoint.architecture)
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
                raise CheckpointError(f"the weights in {self._folder} {what} {', '.join(names[:3])}", _REFETCH_HINT)
        return self._device.place_network(model)

    @LockedProperty
    def _processor(self) -> Any:  # noqa: ANN401
        from transformers import AutoImageProcessor

        processor_class: Any = AutoImageProcessor
        return _load_part(
            "preprocessing", lambda: processor_class.from_pretrained(self._folder, local_files_only=True), self._folder
        )

    @LockedProperty
    def _tokenizer(self) -> Any:  # noqa: ANN401
        from transformers import AutoTokenizer

        if not any((self._folder / name).is_file() for name in _TOKENIZERS):  # transformers would create an empty one
            raise CheckpointError(f"{self._folder} has no tokenizer: none of {', '.join(_TOKENIZERS)}", _REFETCH_HINT)
        tokenizer_class: Any = AutoTokenizer
        tokenizer = _load_part(
            "tokenizer", lambda: tokenizer_class.from_pretrained(self._folder, local_files_only=True), self._folder
        )
        check_token_ids(tokenizer.get_vocab(), self._model.config.text_config.vocab_size, str(self._folder))
        return tokenizer


def _get_pooled_output(output: Any) -> Tensor:  # noqa: ANN401  a tensor up to transformers 4, an output object since 5
    vector: Tensor = output.pooler_output if hasattr(output, "pooler_output") else output
    return vector


@contextmanager
def _hide_progress() -> Iterator[None]:
    """Hide the progress bars of transformers, which would be in the log of a server and in front of a command's output."""
    import transformers

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
        raise CheckpointError(f"the {what} in {folder} can't be loaded: {reason}", _REFETCH_HINT) from error
