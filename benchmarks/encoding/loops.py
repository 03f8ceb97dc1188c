"""The loops that `encode.py` compares, for each runtime: a backbone alone, with its head, and the encoder that a user gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from stair_es.model.base import Encoder
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, create_onnx_session
from stair_es.model.networks.minilm import MINILM_MAX_TOKENS
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.model.stair.encoder import TORCH_TEXT_BATCH, StairEncoder, TorchDualEncoder
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.stair.onnx_runtime import ONNX_IMAGE_BATCH as ONNX_IMAGES
from stair_es.model.stair.onnx_runtime import ONNX_TEXT_BATCH as ONNX_TEXTS
from stair_es.model.stair.onnx_runtime import OnnxDualEncoder, select_inputs
from stair_es.model.stair.tokenizer import StairTokenizer, list_candidate_tokens
from stair_es.model.stair_mini.encoder import StairMiniEncoder, resize_square_pixels
from stair_es.model.torch_device import CPU_CHUNK, MAX_CHUNK
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.types import Pixels

BARE, HEAD, ENCODE = "bare", "head", "encode"


@dataclass(frozen=True, kw_only=True)
class Loops:
    """Loops of a runtime over all images and all texts: up to states, up to weights, and as an encoder."""

    images: dict[str, Callable[[], object]]
    texts: dict[str, Callable[[], object]]


def build_loops(encoder: Encoder, pixels_BHWC: Pixels, texts: Sequence[str], *, compiled: bool = False) -> Loops:
    """Return the loops of any encoder."""
    if isinstance(encoder, StairMiniEncoder):
        return _build_mini_loops(encoder, pixels_BHWC, texts)
    if not isinstance(encoder, StairEncoder):
        raise SystemExit("only stair-mini and checkpoints of stair-es train are supported")
    if isinstance(towers := encoder._towers, TorchDualEncoder):
        return _build_torch_loops(encoder, towers, pixels_BHWC, texts, compiled)
    assert isinstance(towers, OnnxDualEncoder)
    return _build_onnx_loops(encoder, towers, pixels_BHWC, texts)


def _build_mini_loops(encoder: StairMiniEncoder, pixels_BHWC: Pixels, texts: Sequence[str]) -> Loops:
    """Return the loops of stair-mini; bare are both image networks on pixels of the required sizes, the text network on ids."""
    small_BHWC, network = resize_square_pixels(pixels_BHWC, CLASSIFIER_SIZE_PX), encoder._texts._network
    ids = [encoder._texts._pieces.encode_with_offsets(text, MINILM_MAX_TOKENS).ids for text in texts]
    return Loops(
        images={
            BARE: lambda: (encoder.image_network.run_network(small_BHWC), encoder.detector.score_classes(pixels_BHWC)),
            ENCODE: lambda: encoder.encode_images(pixels_BHWC),
        },
        texts={
            BARE: lambda: [network.compute_states(row) for row in ids],
            ENCODE: lambda: encoder.encode_texts(texts),
        },
    )


def _build_torch_loops(
    encoder: StairEncoder, towers: TorchDualEncoder, pixels_BHWC: Pixels, texts: Sequence[str], compiled: bool
) -> Loops:
    model, device = towers._model, towers._device.name
    see, read = model.image.compute_states, model.text.backbone
    if compiled:  # compiled, as `auto` would be if it compiled
        see, read = torch.compile(see), torch.compile(read, dynamic=True)
        model.encode_images = torch.compile(model.encode_images)
        model.encode_texts = torch.compile(model.encode_texts, dynamic=True)
    images = [torch.tensor(part).to(device) for part in _split_batches(pixels_BHWC, CPU_CHUNK if device == "cpu" else MAX_CHUNK)]
    batches = [TextBatch.from_tokenized(part).to(device) for _, part in model.tokens.encode_batches(texts, TORCH_TEXT_BATCH)]

    def make_loop(call: Callable[[Any], object], items: Sequence[Any]) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode():
                last = [call(item) for item in items][-1]
            if device != "cpu":
                torch.cuda.synchronize()
            return last

        return run

    return Loops(
        images={
            BARE: make_loop(see, images),
            HEAD: make_loop(lambda item: model.encode_images(item).weights_BF, images),
            ENCODE: lambda: encoder.encode_images(pixels_BHWC),
        },
        texts={
            BARE: make_loop(lambda item: read(item.ids_BL, item.mask_BL), batches),
            HEAD: make_loop(lambda item: model.encode_texts(item).weights_BF, batches),
            ENCODE: lambda: encoder.encode_texts(texts),
        },
    )


def _build_onnx_loops(encoder: StairEncoder, towers: OnnxDualEncoder, pixels_BHWC: Pixels, texts: Sequence[str]) -> Loops:
    model = checkpoint.load_stair_model(towers._folder)
    images = [{"pixels": part} for part in _split_batches(pixels_BHWC, ONNX_IMAGES)]
    batches = [
        {"ids": part.ids_BL, "mask": part.mask_BL, "features": part.features_BL}
        for _, part in model.tokens.encode_batches(texts, ONNX_TEXTS)
    ]
    bare = {"image": _create_bare_session(model, "image", towers), "text": _create_bare_session(model, "text", towers)}

    def make_loop(made: Any, feeds: Sequence[dict[str, Any]]) -> Callable[[], object]:  # noqa: ANN401  a session
        return lambda: [made.run(None, select_inputs(made, feed)) for feed in feeds][-1]

    return Loops(
        images={
            BARE: make_loop(bare["image"], images),
            HEAD: make_loop(towers._get_session("image"), images),
            ENCODE: lambda: encoder.encode_images(pixels_BHWC),
        },
        texts={
            BARE: make_loop(bare["text"], batches),
            HEAD: make_loop(towers._get_session("text"), batches),
            ENCODE: lambda: encoder.encode_texts(texts),
        },
    )


class _Bare(nn.Module):  # type: ignore[misc]  # mypy skips torch
    def __init__(self, model: StairModel, side: str) -> None:
        super().__init__()
        self.model, self.side = model, side

    def forward(self, first: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        return self.model.image.compute_states(first) if mask_BL is None else self.model.text.backbone(first, mask_BL)


def _create_bare_session(model: StairModel, side: str, towers: OnnxDualEncoder) -> Any:  # noqa: ANN401
    """Return a session of the backbone alone, with a graph like the product's."""
    free, size = torch.export.Dim.DYNAMIC, model.config.image.size_px
    given: tuple[Tensor, ...]
    shapes: tuple[dict[int, Any], ...]
    if side == "image":
        given, names, shapes = (torch.zeros(2, size, size, 3, dtype=torch.uint8),), ["pixels"], ({0: free},)
    else:
        batch = TextBatch.from_tokenized(model.tokens.encode(["a red dog", "cats"]))
        given, names, shapes = (batch.ids_BL, batch.mask_BL), ["ids", "mask"], ({0: free, 1: free},) * 2
    with torch.no_grad():
        made = torch.onnx.export(
            _Bare(model, side).eval(), given, dynamo=True, dynamic_shapes=shapes, input_names=names, verbose=False
        )
    return create_onnx_session(made.model_proto.SerializeToString(), towers._spec.threads)


def _split_batches(items: Any, size: int) -> Iterator[Any]:  # noqa: ANN401  an array or a list
    return (items[i : i + size] for i in range(0, len(items), size))


def write_random_checkpoint(folder: Path) -> None:
    """Write ViT-B/32 and BERT base with random weights and BERT's vocabulary: the paper's towers except for the patch size."""
    wide = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    words = load_wordpiece_vocabulary().tokens
    seen = {"model_type": "clip_vision_model", "patch_size": 32, "image_size": 224, **wide}
    read = {"model_type": "bert", "vocab_size": len(words), **wide}
    config = StairConfig(
        name="random",
        image=ImageTowerConfig(
            backbone=BackboneConfig(kind="transformers", name="ViT-B/32", config=seen),
            size_px=224,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        ),
        text=TextTowerConfig(backbone=BackboneConfig(kind="transformers", name="BERT base", config=read)),
    )
    torch.manual_seed(0)
    tokenizer = _build_tokenizer(words)
    model = StairModel(config, StairTokenizer(tokenizer, list_candidate_tokens(tokenizer), config.text.max_tokens))
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    tensors[checkpoint.FEATURE_IDS_TENSOR] = model.feature_ids_F
    checkpoint.save_checkpoint(folder, config, tokenizer, tensors, "# random weights\n")


def _build_tokenizer(words: Sequence[str]) -> Tokenizer:
    made = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    ends = [(word, words.index(word)) for word in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made
