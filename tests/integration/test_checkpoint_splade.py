"""SPLADE as people save it: before its first encode, and without modules; against the library's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import SparseEncoder
from support.models import tiny_dense
from support.models.tiny_checkpoints import WORDS, MaliciousPickle
from transformers import BertConfig

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.types import Floats

TEXTS = ["a red dog", "cats", "bus ! ."]


def bare(folder: Path, *, pickled: bool = False) -> Path:
    """A masked language model, as `naver/splade_v2_*` are: hidden size 8, 17 words."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    kind: Any = transformers.BertForMaskedLM
    model = kind(config)
    model.save_pretrained(folder)
    tiny_dense.build_tokenizer().save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def library(folder: Path) -> Floats:
    """The weights [B, V] of `TEXTS` by sentence-transformers itself."""
    model: Any = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    rows: Floats = model.encode_query(TEXTS, convert_to_sparse_tensor=False).float().numpy()
    return rows


def check(folder: Path, wanted_BV: Floats) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert encoder.tokens == WORDS
    for vector, wanted_V in zip(encoder.encode_texts(TEXTS), wanted_BV, strict=True):
        weights = {word: float(weight) for word, weight in zip(WORDS, wanted_V, strict=True) if weight > 0}
        assert vector.to_dict() == pytest.approx(weights, abs=1e-6)


def test_model_saved_before_its_first_encode(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    SparseEncoder(str(bare(tmp_path / "bert")), device="cpu").save_pretrained(str(saved))
    config = json.loads((saved / "1_SpladePooling" / "config.json").read_text())
    assert config["embedding_dimension"] is None
    wanted_BV = library(saved)
    assert wanted_BV.shape == (3, len(WORDS))
    assert np.count_nonzero(wanted_BV)
    check(saved, wanted_BV)


@pytest.mark.parametrize("pickled", [False, True])
def test_one_without_modules(tmp_path: Path, pickled: bool) -> None:
    folder = bare(tmp_path / "splade", pickled=pickled)
    check(folder, library(folder))
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.description.startswith("SPLADE")


def test_code_in_folders_and_weights_is_not_run(tmp_path: Path) -> None:
    folder = bare(tmp_path / "splade", pickled=True)
    torch.save({"cls.predictions.bias": MaliciousPickle()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can't be loaded"):
        registry.load_encoder(ModelSpec(name=str(folder))).encode_texts(["dog"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForMaskedLM": "own.Net"}}))
    with pytest.raises(ModelError, match=r"its own Python code \(own\.Net\)"):
        registry.resolve_model(ModelSpec(name=str(folder)))


def test_networks_need_words(tmp_path: Path) -> None:
    folder = bare(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(ModelError, match="unknown format"):
        registry.resolve_model(ModelSpec(name=str(folder)))
