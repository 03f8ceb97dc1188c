"""STAIR checkpoints with random weights and tiny dimensions over every kind of backbone: for tests.

Configurations and tokenizers need no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from stair_es.model.stair import checkpoint as stair_checkpoint
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.model.stair.tokenizer import StairTokenizer, TokenizedTexts, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

if TYPE_CHECKING:
    import torch

    from stair_es.model.stair.modeling import StairModel, TextBatch

SIZE_PX, WIDTH, TRANSFORM, MAX_TOKENS = 32, 32, 24, 12
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = ("[unused0]", "[unused1]")
WORDS = ("the", "a", "of", ".", "!", "dog", "cat", "bird", "red", "blue", "car", "tree", "##s", "##ing", "run", "##n", "sea")
WHOLE = ("dog", "cat", "running", "bluebird", "sea", "red")
"""Whole words of a model with `vocabulary="words"`."""
_IMAGE_SETTINGS: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": SIZE_PX,
}
_TEXT_SETTINGS: Mapping[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(SPECIAL) + len(UNUSED) + len(WORDS),
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": MAX_TOKENS,
}


def _build_transformer(kind: str, **settings: object) -> BackboneConfig:
    return BackboneConfig(kind="transformers", name=f"tiny-{kind}", config={"model_type": kind, **settings})


IMAGES: Mapping[str, BackboneConfig] = {
    "vit": _build_transformer("vit", **_IMAGE_SETTINGS),
    "clip": _build_transformer("clip_vision_model", **_IMAGE_SETTINGS),
    "siglip": _build_transformer("siglip_vision_model", **_IMAGE_SETTINGS),
    "dinov2": _build_transformer("dinov2", **_IMAGE_SETTINGS),
    "timm-vit": BackboneConfig(
        kind="timm",
        name="vit_tiny_patch16_224",
        config={"num_classes": 0, "img_size": SIZE_PX, "patch_size": 8, "depth": 2, "embed_dim": WIDTH, "num_heads": 2},
    ),
    "timm-convnet": BackboneConfig(kind="timm", name="test_convnext", config={"num_classes": 0}),
}
TEXTS: Mapping[str, BackboneConfig] = {
    "bert": BackboneConfig(kind="transformers", name="tiny-bert", config=_TEXT_SETTINGS),
    "distilbert": _build_transformer(
        "distilbert",
        vocab_size=_TEXT_SETTINGS["vocab_size"],
        dim=WIDTH,
        hidden_dim=48,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=MAX_TOKENS,
    ),
}


def build_tokenizer() -> Tokenizer:
    """WordPiece over the special, the unused and a few more words: `[CLS] ... [SEP]`."""
    words = (*SPECIAL, *UNUSED, *WORDS)
    result = Tokenizer(WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    result.normalizer = BertNormalizer()
    result.pre_tokenizer = BertPreTokenizer()
    result.add_special_tokens(list(SPECIAL))
    ends = [(word, SPECIAL.index(word)) for word in ("[CLS]", "[SEP]")]
    result.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return result


def build_config(image: str = "vit", text: str = "bert", **changes: Any) -> StairConfig:  # noqa: ANN401
    """Return a configuration; tower fields are prefixed, such as `image_top_k=3` or `text_tie=True`."""
    towers = {
        side: {name.removeprefix(f"{side}_"): changes.pop(name) for name in list(changes) if name.startswith(f"{side}_")}
        for side in ("image", "text")
    }
    channel_means = (0.5, 0.4, 0.45)
    image_tower = ImageTowerConfig(
        backbone=IMAGES[image], size_px=SIZE_PX, mean=channel_means, std=(0.2, 0.25, 0.3), transform_dim=TRANSFORM, top_k=6
    )
    text_tower = TextTowerConfig(backbone=TEXTS[text], max_tokens=MAX_TOKENS, transform_dim=TRANSFORM, top_k=5)
    stair_config = StairConfig(
        name="tiny", image=replace(image_tower, **towers["image"]), text=replace(text_tower, **towers["text"])
    )
    return replace(stair_config, **changes)


def build_shallow_config(image: str = "vit", text: str = "bert", **changes: Any) -> StairConfig:  # noqa: ANN401
    """Return a configuration whose transformers have one layer: for what costs seconds a layer, such as exports."""
    config = build_config(image, text, **changes)
    return replace(
        config,
        image=replace(config.image, backbone=_keep_one_layer(config.image.backbone)),
        text=replace(config.text, backbone=_keep_one_layer(config.text.backbone)),
    )


def _keep_one_layer(backbone: BackboneConfig) -> BackboneConfig:
    depth = {"num_hidden_layers", "n_layers", "depth"} & set(backbone.config)
    return replace(backbone, config={**backbone.config, **dict.fromkeys(depth, 1)})


def build_model(stair_config: StairConfig, seed: int = 0) -> StairModel:
    """Return a model with random weights, including biases and norms."""
    import torch

    from stair_es.model.stair.modeling import StairModel

    torch.manual_seed(seed)
    features = WholeWordVocabulary(WHOLE) if stair_config.vocabulary == "words" else list_candidate_tokens(build_tokenizer())
    stair_model: StairModel = StairModel(
        stair_config, StairTokenizer(build_tokenizer(), features, stair_config.text.max_tokens)
    ).eval()
    with torch.no_grad():
        for name, value in stair_model.named_parameters():
            if value.ndim < 2 and name != "log_scale":
                value.add_(torch.randn_like(value) * 0.1)
        if stair_config.text.tie:  # so small at the start that no word would have a weight
            stair_model.text.backbone.word_embeddings_VD.mul_(10)
    return stair_model


def write_checkpoint(folder: Path, stair_config: StairConfig | None = None, seed: int = 0) -> Path:
    """Write a checkpoint of such a model, and return the folder."""
    stair_model = build_model(stair_config or build_config(), seed)
    write_tensors(folder, stair_model, get_tensors(stair_model))
    return folder


def get_tensors(stair_model: StairModel) -> dict[str, torch.Tensor]:
    """Return the tensors of the model's checkpoint."""
    import torch

    state_dict = {
        name: value.clone().contiguous()
        for name, value in stair_model.state_dict().items()
        if stair_checkpoint.is_stored_tensor(name, stair_model.config)
    }
    if stair_model.tokens.word_vocabulary is None:
        state_dict[stair_checkpoint.FEATURE_IDS_TENSOR] = torch.from_numpy(stair_model.tokens.feature_ids_F)
    return state_dict


def write_tensors(folder: Path, stair_model: StairModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint of the model with these tensors instead of its own."""
    stair_checkpoint.save_checkpoint(
        folder, stair_model.config, stair_model.tokens.tokenizer, weights, "# tiny\n", stair_model.tokens.word_vocabulary
    )


def build_batch(tokenized: TokenizedTexts) -> TextBatch:
    """Return the input of the text tower."""
    from stair_es.model.stair.modeling import TextBatch

    return TextBatch.from_tokenized(tokenized)
