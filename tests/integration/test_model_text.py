"""The text network: fetched by pip into the home folder if it isn't there yet, then read from disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.model.networks import minilm_download
from stair_es.model.networks.minilm import MINILM_MAX_TOKENS, MiniLM
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.model.vocabularies.wordpiece import WORDPIECE_FILE, load_wordpiece_vocabulary
from stair_es.types import Floats

TEXTS = (
    "a red bus",
    "horses on a mountain",
    "An Adelaide Rosella.",
    "a kitten playing with a ball of yarn on a sofa, seen from above",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return minilm_download.ensure_minilm(DataDir.from_env().models)


def by_torch(path: Path, ids: list[int]) -> Floats:
    """The same network made of PyTorch's own transformer layers: an independent computation."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional

    tensors: dict[str, Any] = load_file(path)

    def pair(name: str) -> tuple[Any, Any]:
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    word, place, segment = (tensors[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type"))
    x = functional.layer_norm(word[ids] + place[: len(ids)] + segment[0], (384,), *pair("embeddings.LayerNorm"), 1e-12)[None]
    layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, functional.gelu, 1e-12, batch_first=True).eval()
    for index in range(6):
        name = f"encoder.layer.{index}"
        attention = [pair(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        state = {
            "self_attn.in_proj_weight": torch.cat([weight for weight, _ in attention]),
            "self_attn.in_proj_bias": torch.cat([bias for _, bias in attention]),
        }
        for ours, theirs in (
            ("self_attn.out_proj", "attention.output.dense"),
            ("norm1", "attention.output.LayerNorm"),
            ("linear1", "intermediate.dense"),
            ("linear2", "output.dense"),
            ("norm2", "output.LayerNorm"),
        ):
            state[f"{ours}.weight"], state[f"{ours}.bias"] = pair(f"{name}.{theirs}")
        layer.load_state_dict(state)
        with torch.no_grad():
            x = layer(x)
    unit: Floats = functional.normalize(x[0].mean(0), dim=0).numpy()
    return unit


def test_our_forward_pass_is_that_of_the_network(folder: Path) -> None:
    network, vocabulary = MiniLM(folder / minilm_download.MINILM_WEIGHTS), load_wordpiece_vocabulary()
    for text in (*TEXTS, "river bear " * 200):
        ids = vocabulary.add_special_tokens(vocabulary.encode(text), MINILM_MAX_TOKENS)
        assert np.abs(network.embed_ids(ids) - by_torch(folder / minilm_download.MINILM_WEIGHTS, ids)).max() < 1e-6


def test_our_tokeniser_is_that_of_the_network(folder: Path) -> None:
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_padding()
    vocabulary = load_wordpiece_vocabulary()
    for text in (*TEXTS, "Crème brûlée, don't!", "日本の犬 \U0001f9ab", "x" * 200, "\x00a\u200bb", ""):
        assert (
            vocabulary.add_special_tokens(vocabulary.encode(text), MINILM_MAX_TOKENS)
            == theirs.encode(text).ids[:MINILM_MAX_TOKENS]
        )
    assert (folder / "vocab.txt").read_bytes() == (MODEL_DATA / WORDPIECE_FILE).read_bytes()
