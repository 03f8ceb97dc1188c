"""VDR's format on tiny random checkpoints: vectors against numpy, and everything that may be wrong with a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.errors import expect_error
from support.models.tiny_checkpoints import WORDS, MaliciousPickle, build_vdr_config, draw_vdr_weights, write_checkpoint

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.adapters.vdr import list_valid_ids
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.types import SparseVector

Array = NDArray[np.float64]
VALID = [
    position for position, word in enumerate(WORDS) if word in ("!", ".", "a", "dog", "red", "##s", "cat", "[", "bus", "##ge")
]
REQUIRED = ("encoder_p.transformer.resblocks.1.ln_2.bias", "encoder_q.bert_model.encoder.layer.1.output.dense.weight")
TEXTS = ["a red dog", "buses", "cat!", "a dog a dog a dog a dog a dog a dog"]
_erf = np.vectorize(math.erf)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "VDR Tiny", build_vdr_config(), draw_vdr_weights(), pickled=True)


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (3, 12, 12, 3), np.uint8)


def load_encoder(checkpoint: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(checkpoint)))


def normalize_layer(x: Array, weights: Mapping[str, Array], name: str, eps: float) -> Array:
    centered = x - x.mean(-1, keepdims=True)
    unit: Array = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps)
    return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def compute_attention(query: Array, key: Array, value: Array, heads: int, keys: int) -> Array:
    """Attention written out head by head; only the first `keys` positions are looked at."""
    size = query.shape[1] // heads
    out = np.zeros_like(query)
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        scores = query[:, at] @ key[:keys, at].T / math.sqrt(size)
        powers = np.exp(scores - scores.max(1, keepdims=True))
        out[:, at] = powers / powers.sum(1, keepdims=True) @ value[:keys, at]
    return out


def normalize_scores(scores: Array) -> Array:
    grown = np.where(scores > 0, scores, np.exp(scores) - 1) + 1
    unit: Array = grown / np.linalg.norm(grown)
    return unit


def encode_image(weights: Mapping[str, Array], pixels_HWC: NDArray[np.uint8]) -> Array:
    w = {name.removeprefix("encoder_p."): value for name, value in weights.items() if name.startswith("encoder_p.")}
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    image = (pixels_HWC / 255 - mean) / std
    rows = [
        np.einsum("dcij,ijc->d", w["conv1.weight"], image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4])
        for row in range(3)
        for column in range(3)
    ]
    x = normalize_layer(np.stack(rows) + w["positional_embedding"], w, "ln_pre", 1e-5)
    for layer in range(2):
        at = f"transformer.resblocks.{layer}."
        qkv = normalize_layer(x, w, f"{at}ln_1", 1e-5) @ w[f"{at}attn.in_proj_weight"].T + w[f"{at}attn.in_proj_bias"]
        attended = compute_attention(qkv[:, :8], qkv[:, 8:16], qkv[:, 16:], 2, 9)
        x = x + attended @ w[f"{at}attn.out_proj.weight"].T + w[f"{at}attn.out_proj.bias"]
        inner = normalize_layer(x, w, f"{at}ln_2", 1e-5) @ w[f"{at}mlp.c_fc.weight"].T + w[f"{at}mlp.c_fc.bias"]
        inner = inner / (1 + np.exp(-1.702 * inner))
        x = x + inner @ w[f"{at}mlp.c_proj.weight"].T + w[f"{at}mlp.c_proj.bias"]
    return normalize_scores((normalize_layer(x, w, "ln_post", 1e-5) @ w["proj"].T).max(0))


def encode_text(weights: Mapping[str, Array], ids: list[int], length: int) -> Array:
    """BERT over the padded text: padding isn't looked at, but its own states take part in the maximum."""
    w = {name.removeprefix("encoder_q.bert_model."): value for name, value in weights.items()}
    padded = ids + [WORDS.index("[PAD]")] * (length - len(ids))
    words = w["embeddings.word_embeddings.weight"]
    x = words[padded] + w["embeddings.position_embeddings.weight"][:length] + w["embeddings.token_type_embeddings.weight"][0]
    x = normalize_layer(x, w, "embeddings.LayerNorm", 1e-12)

    def apply_linear(inputs: Array, name: str) -> Array:
        product: Array = inputs @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return product

    for layer in range(2):
        at = f"encoder.layer.{layer}."
        query, key, value = (apply_linear(x, f"{at}attention.self.{part}") for part in ("query", "key", "value"))
        attended = apply_linear(compute_attention(query, key, value, 2, len(ids)), f"{at}attention.output.dense")
        x = normalize_layer(x + attended, w, f"{at}attention.output.LayerNorm", 1e-12)
        inner = apply_linear(x, f"{at}intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))
        x = normalize_layer(x + apply_linear(inner, f"{at}output.dense"), w, f"{at}output.LayerNorm", 1e-12)
    return normalize_scores((normalize_layer(x, weights, "encoder_q.ln", 1e-5) @ words[VALID].T).max(0))


def select_tokens(weights_V: Array, count: int, pieces: Collection[str] = ()) -> dict[str, float]:
    best = set(np.argsort(-weights_V)[:count].tolist())
    words = [WORDS[token] for token in VALID]
    return {word: float(weights_V[position]) for position, word in enumerate(words) if position in best or word in pieces}


def check_vector(vector: SparseVector, expected: Mapping[str, float]) -> None:
    assert vector.to_dict() == pytest.approx(expected, abs=1.2e-5)  # both may be rounded to 5 decimals


def load_arrays() -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in draw_vdr_weights().items()}


def test_images_match_numpy(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    weights = load_arrays()
    for vector, pixels_HWC in zip(load_encoder(checkpoint).encode_images(pixels), pixels, strict=True):
        check_vector(vector, select_tokens(encode_image(weights, pixels_HWC), 5))


def test_texts_match_numpy(checkpoint: Path) -> None:
    pieces_by_text = {
        "a red dog": ["a", "red", "dog"],
        "buses": ["[UNK]"],
        "cat!": ["cat", "!"],
        "dogs a": ["dog", "##s", "a"],
        TEXTS[3]: ["a", "dog"] * 4,
    }
    weights, encoder = load_arrays(), load_encoder(checkpoint)
    for text, pieces in pieces_by_text.items():
        vector = encoder.encode_texts([text])[0]
        if pieces == ["[UNK]"]:
            assert not len(vector)
            continue
        ids = [WORDS.index(word) for word in ("[CLS]", *pieces, "[SEP]")]
        assert len(ids) <= 10
        check_vector(vector, select_tokens(encode_text(weights, ids, 10), 4, pieces))


def test_padding_counts_in_the_maximum(tmp_path: Path) -> None:
    """As in training: the length that texts are padded to is part of the model."""
    longer = build_vdr_config()
    longer["encoder_q"]["max_len"] = 16
    short, long = (
        write_checkpoint(tmp_path / name, config, draw_vdr_weights())
        for name, config in (("s", build_vdr_config()), ("l", longer))
    )
    assert load_encoder(short).encode_texts(["dog"]) != load_encoder(long).encode_texts(["dog"])


def test_alone_and_in_a_batch_are_the_same(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    encoder = load_encoder(checkpoint)
    batch = np.concatenate([pixels] * 4)  # more than a chunk
    for vector, pixels_HWC in zip(encoder.encode_images(batch), batch, strict=True):
        check_vector(encoder.encode_images(pixels_HWC[None])[0], vector.to_dict())
    for vector, text in zip(encoder.encode_texts(TEXTS * 5), TEXTS * 5, strict=True):
        check_vector(encoder.encode_texts([text])[0], vector.to_dict())
    assert encoder.encode_images(pixels[:0]) == encoder.encode_texts([]) == []


def test_half_precision_is_near(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    exact = load_encoder(checkpoint).encode_images(pixels)
    half_precision = registry.load_encoder(ModelSpec(name=str(checkpoint), precision="bf16", backend="torch")).encode_images(
        pixels
    )
    for one, other in zip(exact, half_precision, strict=True):
        assert one.dot(other) > 0.98 * one.dot(one)
        assert one != other


def test_safetensors_and_pickle_are_the_same_vectors(checkpoint: Path, tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    other = write_checkpoint(tmp_path / "other", build_vdr_config(), draw_vdr_weights())
    assert load_encoder(other).encode_images(pixels) == load_encoder(checkpoint).encode_images(pixels)


def test_words_become_wordpiece_tokens(checkpoint: Path) -> None:
    encoder = load_encoder(checkpoint)
    assert encoder.tokenize_word("dog") == ("dog",)
    assert encoder.tokenize_word("Dogs") == ("dog", "##s")
    assert encoder.tokenize_word("##s") == ("##s",)
    assert encoder.tokenize_word("é") == encoder.tokenize_word("giraffe") == ()


def test_dimensions_match_the_published_code() -> None:
    """27,623 of the 30,522 tokens; the ids at its ends and of a few words were read off the published list."""
    ids = list_valid_ids(load_wordpiece_vocabulary())
    assert len(ids) == 30_522 - 2_899
    without = set(range(30_522)) - set(ids)
    assert {0, 998, 1067, 1995, 3186, 6362, 19109, 19110, 29436, 29644, 30521} <= without
    assert not {999, 1066, 1996, 3187, 29435, 29437, 29643} & without


def test_the_card(checkpoint: Path) -> None:
    card = registry.resolve_model(ModelSpec(name=str(checkpoint))).card
    assert card.name == str(checkpoint)
    assert card.model_id.startswith("vdr-tiny-")
    assert len(card.model_id) == len("vdr-tiny-") + 12
    assert card.image_spec.size_px == 12


@pytest.mark.parametrize(
    ("name", "tensor", "facts"),
    [
        *((name, None, [name]) for name in REQUIRED),
        ("encoder_p.proj", torch.zeros(27_623, 8), ["encoder_p.proj", "(27623, 8)", "(10, 8)"]),
        ("encoder_p.class_embedding", torch.zeros(8), ["class_embedding"]),
    ],
    ids=["missing", "missing text", "shape", "unknown"],
)
def test_weights_that_do_not_fit_are_reported(
    checkpoint: Path, pixels: NDArray[np.uint8], name: str, tensor: object, facts: list[str]
) -> None:
    changed = {**draw_vdr_weights(), name: tensor}
    torch.save({name: tensor for name, tensor in changed.items() if tensor is not None}, checkpoint / "pytorch_model.bin")
    check_rejected(checkpoint, pixels, *facts)


@pytest.mark.parametrize("content", [None, b"cut", {"state": 1}], ids=["none", "cut", "no tensors"])
def test_files_without_weights_are_reported(checkpoint: Path, pixels: NDArray[np.uint8], content: object) -> None:
    path = checkpoint / "pytorch_model.bin"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        torch.save(content, path)
    check_rejected(checkpoint, pixels, "pytorch_model.bin")


def test_a_pickle_with_code_is_rejected(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    torch.save({**draw_vdr_weights(), "encoder_p.proj": MaliciousPickle()}, checkpoint / "pytorch_model.bin")
    check_rejected(checkpoint, pixels, "pytorch_model.bin", code="pickle-rejected")


def check_rejected(checkpoint: Path, pixels: NDArray[np.uint8], *facts: str, code: str = "checkpoint-error") -> None:
    with expect_error(code) as caught:
        load_encoder(checkpoint).encode_images(pixels)
    assert [fact for fact in facts if fact not in caught.value.message] == []
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("section", "key", "value", "code", "facts"),
    [
        ("encoder_p", "heads", 3, "checkpoint-error", ["3 heads"]),
        ("encoder_q", "num_attention_heads", 5, "checkpoint-error", ["5 heads"]),
        ("encoder_q", "max_len", 99, "checkpoint-error", ["99 tokens", "16 positions"]),
        ("encoder_q", "topk", "many", "checkpoint-error", ["topk = 'many'"]),
        ("encoder_p", "type", "vdr", "model-of-texts-only", ["vdr"]),
    ],
)
def test_an_impossible_configuration_is_rejected(
    tmp_path: Path, section: str, key: str, value: object, code: str, facts: list[str]
) -> None:
    config = build_vdr_config()
    config[section][key] = value
    checkpoint = write_checkpoint(tmp_path / "vdr", config, draw_vdr_weights())
    with expect_error(code) as caught:
        load_encoder(checkpoint).encode_texts(["dog"])
    assert [fact for fact in facts if fact not in caught.value.message] == []


def test_unsupported_values_of_a_spec_are_rejected(checkpoint: Path) -> None:
    for wrong in (
        ModelSpec(name=str(checkpoint), backend="onnx"),
        ModelSpec(name=str(checkpoint), text_tower="table"),
        ModelSpec(name=str(checkpoint), threads=-1),
        ModelSpec(name=str(checkpoint), precision="int8"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ModelError):
            registry.load_encoder(wrong)


def test_pixels_of_another_size_are_rejected(checkpoint: Path) -> None:
    with expect_error("invalid-pixels") as caught:
        load_encoder(checkpoint).encode_images(np.zeros((1, 224, 224, 3), np.uint8))
    assert "(1, 224, 224, 3)" in caught.value.message
