"""STAIR checkpoints with random weights and tiny dimensions over every kind of backbone: for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from stair_es.model.stair import checkpoint as stair_checkpoint
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer, TokenizedTexts, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

SIZE_PX, WIDTH, TRANSFORM, MAX_TOKENS = 32, 32, 24, 12
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = ("[unused0]", "[unused1]")
WORDS = ("the", "a", "of", ".", "!", "dog", "cat", "bird", "red", "blue", "car", "tree", "##s", "##ing", "run", "##n", "sea")
WHOLE = ("dog", "cat", "running", "bluebird", "sea", "red")
"""Whole words of a model with `vocabulary="words"`."""
_SEEN: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": SIZE_PX,
}
_READ: Mapping[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(SPECIAL) + len(UNUSED) + len(WORDS),
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": MAX_TOKENS,
}


def _transformer(kind: str, **config: object) -> BackboneConfig:
    return BackboneConfig(kind="transformers", name=f"tiny-{kind}", config={"model_type": kind, **config})


IMAGES: Mapping[str, BackboneConfig] = {
    "vit": _transformer("vit", **_SEEN),
    "clip": _transformer("clip_vision_model", **_SEEN),
    "siglip": _transformer("siglip_vision_model", **_SEEN),
    "dinov2": _transformer("dinov2", **_SEEN),
    "timm-vit": BackboneConfig(
        kind="timm",
        name="vit_tiny_patch16_224",
        config={"num_classes": 0, "img_size": SIZE_PX, "patch_size": 8, "depth": 2, "embed_dim": WIDTH, "num_heads": 2},
    ),
    "timm-convnet": BackboneConfig(kind="timm", name="test_convnext", config={"num_classes": 0}),
}
TEXTS: Mapping[str, BackboneConfig] = {
    "bert": BackboneConfig(kind="transformers", name="tiny-bert", config=_READ),
    "distilbert": _transformer(
        "distilbert",
        vocab_size=_READ["vocab_size"],
        dim=WIDTH,
        hidden_dim=48,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=MAX_TOKENS,
    ),
}


def tokenizer() -> Tokenizer:
    """WordPiece over the special, the unused and a few more words: `[CLS] ... [SEP]`."""
    words = (*SPECIAL, *UNUSED, *WORDS)
    made = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = BertNormalizer()
    made.pre_tokenizer = BertPreTokenizer()
    made.add_special_tokens(list(SPECIAL))
    ends = [(word, SPECIAL.index(word)) for word in ("[CLS]", "[SEP]")]
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return made


def config(image: str = "vit", text: str = "bert", **changes: Any) -> StairConfig:  # noqa: ANN401
    """Of a model; changes of the towers as `image_top_k=3` or `text_tie=True`, of the model as `similarity="dot"`."""
    towers = {
        side: {name.removeprefix(f"{side}_"): changes.pop(name) for name in list(changes) if name.startswith(f"{side}_")}
        for side in ("image", "text")
    }
    thirds = (0.5, 0.4, 0.45)
    seen = ImageTowerConfig(
        backbone=IMAGES[image], size_px=SIZE_PX, mean=thirds, std=(0.2, 0.25, 0.3), transform_dim=TRANSFORM, top_k=6
    )
    read = TextTowerConfig(backbone=TEXTS[text], max_tokens=MAX_TOKENS, transform_dim=TRANSFORM, top_k=5)
    made = StairConfig(name="tiny", image=replace(seen, **towers["image"]), text=replace(read, **towers["text"]))
    return replace(made, **changes)


def model(of: StairConfig, seed: int = 0) -> StairModel:
    """With random weights that leave no bias and no norm as they start."""
    torch.manual_seed(seed)
    features = WholeWordVocabulary(WHOLE) if of.vocabulary == "words" else list_candidate_tokens(tokenizer())
    made: StairModel = StairModel(of, StairTokenizer(tokenizer(), features, of.text.max_tokens)).eval()
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.ndim < 2 and name != "log_scale":
                value.add_(torch.randn_like(value) * 0.1)
        if of.text.tie:  # so small at the start that no word would have a weight
            made.text.backbone.word_embeddings_VD.mul_(10)
    return made


def checkpoint(folder: Path, of: StairConfig | None = None, seed: int = 0) -> Path:
    """A checkpoint of such a model; the folder."""
    made = model(of or config(), seed)
    write(folder, made, tensors(made))
    return folder


def tensors(of: StairModel) -> dict[str, torch.Tensor]:
    """What a checkpoint of the model holds."""
    found = {
        name: value.clone().contiguous()
        for name, value in of.state_dict().items()
        if stair_checkpoint.is_stored_tensor(name, of.config)
    }
    if of.tokens.word_vocabulary is None:
        found[stair_checkpoint.FEATURE_IDS_TENSOR] = torch.from_numpy(of.tokens.feature_ids_F)
    return found


def write(folder: Path, of: StairModel, weights: Mapping[str, torch.Tensor]) -> None:
    """A checkpoint of the model with these tensors instead of its own."""
    stair_checkpoint.save_checkpoint(folder, of.config, of.tokens.tokenizer, weights, "# tiny\n", of.tokens.word_vocabulary)


def batch(found: TokenizedTexts) -> TextBatch:
    """Tokens as the text tower takes them."""
    return TextBatch.from_tokenized(found)
