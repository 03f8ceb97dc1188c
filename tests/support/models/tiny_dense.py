"""CLIP, SigLIP, ALIGN and BLIP of `transformers`, tiny, with random weights, saved as the real ones are: for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AlignConfig,
    AlignModel,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from support.models.tiny_checkpoints import WORDS

_TEXT = {"vocab_size": len(WORDS), "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4}
_CLIP_IMAGES = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def write_clip(folder: Path, seed: int = 0) -> Path:
    """Write a 16 px CLIP."""
    end = {"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**_TEXT, **end, "max_position_embeddings": 9}, vision_config={**_VISION, "image_size": 16}, projection_dim=6
    )
    preprocessing = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16}, "do_center_crop": True}
    return _save_model(
        folder, CLIPModel, config, seed, {**preprocessing, "crop_size": {"height": 16, "width": 16}, **_CLIP_IMAGES}
    )


def write_siglip(folder: Path, seed: int = 0) -> Path:
    """Write a SigLIP of 7 tokens."""
    config = SiglipConfig(
        text_config={**_TEXT, "max_position_embeddings": 7, "projection_size": 8}, vision_config={**_VISION, "image_size": 16}
    )
    return _save_model(
        folder, SiglipModel, config, seed, {"image_processor_type": "SiglipImageProcessor", "size": _build_size(16), **_HALF}
    )


def write_align(folder: Path, seed: int = 0) -> Path:
    """Write an ALIGN of 64 tokens."""
    vision_config = {
        "width_coefficient": 0.1,
        "depth_coefficient": 0.1,
        "image_size": 32,
        "hidden_dim": 8,
        "depthwise_padding": [],
        "in_channels": [32, 16],
        "out_channels": [16, 24],
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "num_block_repeats": [1, 1],
        "expand_ratios": [1, 2],
    }
    config = AlignConfig(
        text_config={**_TEXT, "max_position_embeddings": 64, "pad_token_id": 0}, vision_config=vision_config, projection_dim=8
    )
    preprocessing = {"image_processor_type": "EfficientNetImageProcessor", "size": _build_size(40), "do_center_crop": True}
    preprocessing |= {"crop_size": _build_size(32), "include_top": False, **_HALF}
    return _save_model(folder, AlignModel, config, seed, preprocessing)


def write_blip(folder: Path, seed: int = 0, dense_size: int = 6) -> Path:
    """Write a BLIP for retrieval: 16 px."""
    text = {**_TEXT, "encoder_hidden_size": 8, "max_position_embeddings": 40, "pad_token_id": 0}
    config = BlipConfig(text_config=text, vision_config={**_VISION, "image_size": 16}, image_text_hidden_size=dense_size)
    preprocessing = {"image_processor_type": "BlipImageProcessor", "size": _build_size(16), **_CLIP_IMAGES}
    return _save_model(folder, BlipForImageTextRetrieval, config, seed, preprocessing)


def _build_size(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _save_model(folder: Path, model_class: Any, config: Any, seed: int, preprocessing: dict[str, Any]) -> Path:  # noqa: ANN401
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    build_tokenizer().save_pretrained(folder)
    return folder


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of `tiny_checkpoints.WORDS`: `[CLS] ... [SEP]`."""
    inner = Tokenizer(WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer = BertNormalizer()
    inner.pre_tokenizer = BertPreTokenizer()
    inner.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)])
    kind: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = kind(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
    return wrapped
