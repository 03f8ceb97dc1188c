"""Checkpoints of public formats with random weights and tiny dimensions, with the key names of the real ones, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = (
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "!",
    ".",
    "a",
    "dog",
    "red",
    "##s",
    "é",
    "cat",
    "[",
    "bus",
    "##ge",
)
"""A BERT vocabulary: special, unused, punctuation, ASCII and not, beginnings and continuations."""

Weights = dict[str, Tensor]


class MaliciousPickle:
    """Weights whose unpickling would end the process: no loader may run code of a checkpoint."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint ran')",)


def build_vdr_config() -> dict[str, Any]:
    """Return a small `config.json` of VDR."""
    return {
        "architectures": ["Retriever"],
        "encoder_q": {
            "type": "vdr_crossmodal_text",
            "model_id": "bert-base-uncased",
            "max_len": 10,
            "topk": 4,
            "num_attention_heads": 2,
        },
        "encoder_p": {
            "type": "vdr_crossmodal_image",
            "tokenizer_id": "bert-base-uncased",
            "resolution": 12,
            "heads": 2,
            "topk": 5,
        },
        "shared_encoder": False,
    }


def draw_vdr_weights(seed: int = 0, width: int = 8, patch: int = 4, layers: int = 2) -> Weights:
    """Return random weights with the names of the published `pytorch_model.bin`."""
    draw = torch.Generator().manual_seed(seed)
    words = sum(word.isascii() and not (word.startswith("[") and len(word) > 1) for word in WORDS)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder_q.ln.weight": (width,),
        "encoder_q.ln.bias": (width,),
        "encoder_p.conv1.weight": (width, 3, patch, patch),
        "encoder_p.positional_embedding": ((12 // patch) ** 2, width),
        "encoder_p.proj": (words, width),
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"encoder_p.{norm}.weight": (width,), f"encoder_p.{norm}.bias": (width,)}
    for layer in range(layers):
        prefix = f"encoder_p.transformer.resblocks.{layer}."
        shapes |= {f"{prefix}attn.in_proj_weight": (3 * width, width), f"{prefix}attn.in_proj_bias": (3 * width,)}
        shapes |= {f"{prefix}attn.out_proj.weight": (width, width), f"{prefix}attn.out_proj.bias": (width,)}
        shapes |= {f"{prefix}mlp.c_fc.weight": (4 * width, width), f"{prefix}mlp.c_fc.bias": (4 * width,)}
        shapes |= {f"{prefix}mlp.c_proj.weight": (width, 4 * width), f"{prefix}mlp.c_proj.bias": (width,)}
        shapes |= {f"{prefix}{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    shapes |= _list_bert_shapes("encoder_q.bert_model.", width, layers)
    return {name: torch.randn(shape, generator=draw) * 0.4 for name, shape in shapes.items()}


def _list_bert_shapes(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}embeddings.word_embeddings.weight": (len(WORDS), width),
        f"{prefix}embeddings.position_embeddings.weight": (16, width),
        f"{prefix}embeddings.token_type_embeddings.weight": (2, width),
    }
    dense = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (3 * width, width),
        "output.dense": (width, 3 * width),
    }
    norms = [f"{prefix}embeddings.LayerNorm"]
    for layer in range(layers):
        layer_prefix = f"{prefix}encoder.layer.{layer}."
        norms += [f"{layer_prefix}attention.output.LayerNorm", f"{layer_prefix}output.LayerNorm"]
        for name, (out, into) in dense.items():
            shapes |= {f"{layer_prefix}{name}.weight": (out, into), f"{layer_prefix}{name}.bias": (out,)}
    return shapes | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}


def build_d2s_config(dense_model: str | None) -> dict[str, Any]:
    """Return a small `config.json` of D2S."""
    config = {"architectures": ["D2SModel"], "model_type": "d2s", "mlm_head": "distilbert-base-uncased", "dense_size": 6}
    return config | ({"dense_model": dense_model} if dense_model else {})


def draw_d2s_weights(seed: int = 1, width: int = 8, dense_size: int = 6) -> Weights:
    """Return random weights with the names of the published `model.safetensors`."""
    draw = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "proj.weight": (width, dense_size),
        "proj.bias": (width,),
        "vocab_layer_norm.weight": (width,),
        "vocab_layer_norm.bias": (width,),
        "vocab_projector.weight": (len(WORDS), width),
        "vocab_projector.bias": (len(WORDS),),
    }
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def write_checkpoint(folder: Path, config: Mapping[str, Any], weights: Weights, *, pickled: bool = False) -> Path:
    """Write a checkpoint with the vocabulary `WORDS`, its weights as safetensors or pickled."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder
