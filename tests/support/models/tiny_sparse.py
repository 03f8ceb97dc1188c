"""Sparse encoders of sentence-transformers with a byte-level vocabulary, tiny, with random weights, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from stair_es.model.own_code import hash_python_files

SIDE_PX = 16
PADDED = 3
"""Dimensions beyond the tokenizer, as padded vocabularies have."""

CODE = '''
import numpy
import torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoTokenizer


class TinySplade(torch.nn.Module):
    """Texts by a table of tokens, images by their mean color: as inference-free sparse encoders do, in small."""

    modalities = ["text", "image"]

    def __init__(self, tokenizer, table, colors):
        super().__init__()
        self.tokenizer = tokenizer
        self.table, self.colors = torch.nn.Parameter(table), torch.nn.Parameter(colors)

    @classmethod
    def load(cls, model_name_or_path, **kwargs):
        weights = load_file(Path(model_name_or_path) / "model.safetensors")
        return cls(AutoTokenizer.from_pretrained(model_name_or_path), weights["table"], weights["colors"])

    def preprocess(self, inputs, prompt=None, **kwargs):
        if isinstance(inputs[0], str):
            return dict(self.tokenizer(list(inputs), padding=True, return_tensors="pt"))
        pixels = [torch.from_numpy(numpy.array(image, dtype=numpy.float32)).reshape(-1, 3) for image in inputs]
        return {"pixel_values": torch.stack(pixels)}

    def forward(self, features, **kwargs):
        if "pixel_values" in features:
            logits = (features["pixel_values"].mean(1) / 255 - 0.5) @ self.colors.T
            features["sentence_embedding"] = torch.log1p(torch.relu(logits))
        else:
            shape = (len(features["input_ids"]), len(self.table))
            seen = torch.zeros(shape, device=self.table.device)
            seen.scatter_reduce_(1, features["input_ids"], features["attention_mask"].float(), "amax")
            features["sentence_embedding"] = seen * self.table
        return features

    def get_embedding_dimension(self):
        return len(self.table)
'''


PAGE_CODE = '''
import numpy
import torch
from pathlib import Path
from safetensors.torch import load_file


class TinyPages(torch.nn.Module):
    """The network of a page: scores of all tokens for each of four parts, by its mean color. It takes no texts."""

    modalities = ["image"]

    def __init__(self, colors):
        super().__init__()
        self.colors = torch.nn.Parameter(colors)

    @classmethod
    def load(cls, model_name_or_path, subfolder="", **kwargs):
        return cls(load_file(Path(model_name_or_path) / subfolder / "model.safetensors")["colors"])

    def preprocess(self, inputs, prompt=None, **kwargs):
        halves = [half for image in inputs for half in numpy.array_split(numpy.array(image, dtype=numpy.float32), 2)]
        parts = [part.mean((0, 1)) / 255 - 0.5 for half in halves for part in numpy.array_split(half, 2, axis=1)]
        shape = (len(inputs), 4)
        return {"pixel_values": torch.tensor(numpy.stack(parts)).reshape(*shape, 3), "attention_mask": torch.ones(shape)}

    def forward(self, features, **kwargs):
        features["token_embeddings"] = features["pixel_values"] @ self.colors.T
        return features
'''


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a few words; with a special token, and one with a space in it."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=310, initial_alphabet=alphabet, special_tokens=["<pad>", "<mask>"], show_progress=False)
    inner.train_from_iterator([" red blue red bus v2.0 café dog dogs" for _ in range(20)], trainer)
    inner.add_tokens([AddedToken("new york", special=False)])
    kind: Any = PreTrainedTokenizerFast
    wrapped: PreTrainedTokenizerFast = kind(tokenizer_object=inner, pad_token="<pad>", mask_token="<mask>")
    return wrapped


def write_image_model(folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write a model of texts and images with its own code, and return its weights."""
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    size = len(tokenizer) + PADDED
    draw = torch.Generator().manual_seed(seed)
    weights = {
        "table": torch.rand(size, generator=draw) + 0.1,
        "colors": torch.randn((size, 3), generator=draw) * 2,
    }
    weights["table"][:2] = 0  # special tokens
    _set_color_tokens(weights["colors"], tokenizer)
    save_file(weights, folder / "model.safetensors")
    (folder / "tiny_splade.py").write_text(CODE)
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny_splade"}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": SIDE_PX, "width": SIDE_PX}}))
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "tiny_splade.TinySplade"}]))
    _write_library_config(folder)
    return weights


def build_trust(folder: Path) -> str:
    """Return the value of `STAIR_ES_TRUST_REMOTE_CODE` for the code in a folder."""
    return f"{folder}@{hash_python_files(folder)}"


def _set_color_tokens(colors: torch.Tensor, tokenizer: PreTrainedTokenizerFast) -> None:
    """A red image has the words red and v2.0, a blue one blue and new york."""
    vocabulary = tokenizer.get_vocab()
    for word, color in (("Ġred", (9, -9, -9)), ("Ġv2.0", (8, -8, -8)), ("Ġblue", (-9, -9, 9)), ("new york", (-8, -8, 8))):
        colors[vocabulary[word]] = torch.tensor(color, dtype=torch.float32)


def write_page_model(folder: Path, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Write a model in the layout of V-SPLADE, and return the table of texts and the weights of its network.

    A router sends texts to a lookup table, and images to a network with its own code and the library's pooling.
    """
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    tokenizer: Any = build_tokenizer()
    draw = torch.Generator().manual_seed(seed)
    table, colors = torch.rand(len(tokenizer), generator=draw) + 0.1, torch.randn((len(tokenizer), 3), generator=draw) * 2
    _set_color_tokens(colors, tokenizer)
    query = SparseStaticEmbedding(tokenizer, table, frozen=True)
    structure = {"query": ["query_0_SparseStaticEmbedding"], "document": ["document_0_TinyPages", "document_1_SpladePooling"]}
    for name in (*structure["query"], *structure["document"]):
        (folder / name).mkdir(parents=True)
    query.save(str(folder / structure["query"][0]))
    save_file({"colors": colors}, folder / "document_0_TinyPages" / "model.safetensors")
    SpladePooling("max", embedding_dimension=len(table)).save(str(folder / "document_1_SpladePooling"))
    types = {
        structure["query"][0]: f"{SparseStaticEmbedding.__module__}.SparseStaticEmbedding",
        "document_0_TinyPages": "tiny_pages.TinyPages",
        "document_1_SpladePooling": f"{SpladePooling.__module__}.SpladePooling",
    }
    parameters = {"default_route": "document", "allow_empty_key": True, "route_mappings": {}}
    (folder / "router_config.json").write_text(json.dumps({"types": types, "structure": structure, "parameters": parameters}))
    (folder / "tiny_pages.py").write_text(PAGE_CODE)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"longest_edge": SIDE_PX}}))
    router = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"}
    (folder / "modules.json").write_text(json.dumps([router]))
    _write_library_config(folder)
    return table, colors


def write_text_model(folder: Path, seed: int = 0) -> torch.Tensor:
    """Write a text model with modules of the library only, and return its weights."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    tokenizer: Any = build_tokenizer()
    table = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(seed)) + 0.1
    SparseEncoder(modules=[SparseStaticEmbedding(tokenizer, table)], device="cpu").save_pretrained(str(folder))
    return table


def _write_library_config(folder: Path) -> None:
    library_config = {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "similarity_fn_name": "dot"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(library_config))
