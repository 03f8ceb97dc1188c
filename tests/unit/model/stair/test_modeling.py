"""The towers of STAIR against a computation in numpy, and equivalences of encoders with their tolerances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray
from support.errors import expect_error
from support.models import tiny_stair

from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair import heads
from stair_es.model.stair.configuration import TextMask
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.types import Pixels, SparseVector

BATCH_TOLERANCE = 1.01e-5
"""Between a batch and its items, padded and not, fp32: at most one step of the fifth decimal, to which weights are rounded."""
BF16_TOLERANCE = 0.04
"""Between bf16 and fp32, for weights of about 1; over all these networks 0.02 is the most that was seen."""
TEXTS = (
    "a red dog",
    "the dogs running of the sea .",
    "",
    "blue",
    "cat ! cat",
    "the of",
    "dog dog dog dog dog dog dog dog dog dog dog dog",
)
Doubles = NDArray[np.float64]


def draw_pixels(count: int) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)


def tokenize_texts(model: StairModel, texts: Sequence[str] = TEXTS) -> TextBatch:
    return TextBatch.from_tokenized(model.tokens.encode(texts))


def to_doubles(tensor: Any) -> Doubles:  # noqa: ANN401
    doubles: Doubles = tensor.detach().double().numpy()
    return doubles


def compute_text_states(model: StairModel, batch: TextBatch) -> Doubles:
    """Return the states of a batch of one text: [tokens, width]."""
    with torch.inference_mode():
        states_LD: Doubles = to_doubles(model.text.backbone(batch.ids_BL, batch.mask_BL))[0]
    return states_LD


def transform_states(head: Any, states_LD: Doubles) -> Doubles:  # noqa: ANN401
    """Apply linear layer, GELU and LayerNorm."""
    linear, _, norm = head.transform
    hidden_LT = states_LD @ to_doubles(linear.weight).T + to_doubles(linear.bias)
    hidden_LT = hidden_LT * 0.5 * (1 + np.vectorize(math.erf)(hidden_LT / math.sqrt(2)))
    hidden_LT = (hidden_LT - hidden_LT.mean(-1, keepdims=True)) / np.sqrt(hidden_LT.var(-1, keepdims=True) + 1e-5)
    normalized_LT: Doubles = hidden_LT * to_doubles(norm.weight) + to_doubles(norm.bias)
    return normalized_LT


def compute_logits(head: Any, embedding_FT: Doubles, states_LD: Doubles) -> Doubles:  # noqa: ANN401
    """Return the logits of one item without padding: the largest over its positions."""
    if head.pool == "mean":
        states_LD = states_LD.mean(0, keepdims=True)
    logits_F: Doubles = (transform_states(head, states_LD) @ embedding_FT.T + to_doubles(head.bias_F)).max(0)
    return logits_F


def compute_weights(logits_F: Doubles, top_k: int) -> Doubles:
    """Return the `top_k` largest weights, and 0 elsewhere."""
    weights_F = np.log1p(np.maximum(logits_F, 0))
    ranked = sorted(range(len(weights_F)), key=lambda index: -weights_F[index])
    top_F = np.zeros_like(weights_F)
    top_F[ranked[:top_k]] = weights_F[ranked[:top_k]]
    return top_F


def list_tokens(model: StairModel, *, mask: TextMask) -> list[set[str]]:
    """Return the tokens of each text with a mask."""
    with torch.inference_mode():
        weights_BF = model.encode_texts(tokenize_texts(model), mask=mask).weights_BF
    assert weights_BF is not None
    return [{model.tokens.tokens[index] for index in np.flatnonzero(weights_F)} for weights_F in weights_BF.numpy()]


def load_encoder(
    folder: Path, *, spec: dict[str, Any] | None = None, image: str = "vit", text: str = "bert", **changes: object
) -> Encoder:
    tiny_stair.write_checkpoint(folder, tiny_stair.build_config(image, text, **changes))
    return registry.load_encoder(ModelSpec(name=str(folder), backend="torch", **(spec or {})))


def assert_near(vector: SparseVector, expected: SparseVector, tolerance: float) -> None:
    weights, expected_weights = vector.to_dict(), expected.to_dict()
    for token in {*weights, *expected_weights}:
        assert weights.get(token, 0) == pytest.approx(expected_weights.get(token, 0), abs=tolerance), token


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("tie", [False, True])
def test_the_weights_of_an_image_match_numpy(pool: str, tie: bool) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(image_pool=pool, image_tie=tie, image_top_k=4))
    pixels_BHWC = torch.from_numpy(draw_pixels(3))
    with torch.inference_mode():
        states_BLD = to_doubles(model.image.compute_states(pixels_BHWC))
        weights_BF = to_doubles(model.encode_images(pixels_BHWC).weights_BF)
    embedding_FT = to_doubles((model.text if tie else model.image).head.embedding_FT)
    for states_LD, weights_F in zip(states_BLD, weights_BF, strict=True):
        logits_F = compute_logits(model.image.head, embedding_FT, states_LD)
        assert weights_F == pytest.approx(compute_weights(logits_F, 4), abs=1e-5)
        assert np.count_nonzero(weights_F) == min(4, np.count_nonzero(logits_F > 0))


def test_pixel_scaling_follows_the_configuration() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config())
    pixels_BHWC = draw_pixels(2)
    scaled_BHWC = (pixels_BHWC / 255.0 - np.array([0.5, 0.4, 0.45])) / np.array([0.2, 0.25, 0.3])
    with torch.inference_mode():
        expected_BLD = model.image.backbone(torch.from_numpy(scaled_BHWC.transpose(0, 3, 1, 2).astype(np.float32).copy()))
        assert torch.allclose(model.image.compute_states(torch.from_numpy(pixels_BHWC)), expected_BLD, atol=1e-5)


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("own_words", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_weights_of_a_text_match_numpy(pool: str, own_words: bool, masked: bool) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_pool=pool, text_own_words=own_words, text_always_masked=masked))
    with torch.inference_mode():
        weights_BF = to_doubles(model.encode_texts(tokenize_texts(model)).weights_BF)
    embedding_FT, own = to_doubles(model.text.head.embedding_FT), model.text.own_words
    assert (own is not None) == own_words
    for text, weights_F in zip(TEXTS, weights_BF, strict=True):
        batch = tokenize_texts(model, (text,))
        states_LD = compute_text_states(model, batch)
        logits_F = compute_logits(model.text.head, embedding_FT, states_LD)
        features_L = model.tokens.own_feature_of_V[batch.ids_BL[0].numpy()]
        if own:
            logits_F = np.maximum(logits_F, 0)
            for feature in set(features_L[features_L >= 0].tolist()):
                state_logits_L = states_LD[features_L == feature] @ to_doubles(own.state_D)
                logits_F[feature] += max(0, (to_doubles(own.word_F)[feature] + state_logits_L).max())
        if masked:
            logits_F = logits_F * np.isin(np.arange(len(model.tokens.tokens)), features_L)
        assert weights_F == pytest.approx(compute_weights(logits_F, 5), abs=1e-5)


def test_tied_text_embeddings_match_the_network() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_tie=True, text_transform_dim=tiny_stair.WIDTH))
    batch = tokenize_texts(model, ("a red dog",))
    with torch.inference_mode():
        weights_F = to_doubles(model.encode_texts(batch, top_k=0).weights_BF)[0]
    assert np.count_nonzero(weights_F) > 2
    table_FT = to_doubles(model.text.backbone.network.embeddings.word_embeddings.weight)[model.tokens.feature_ids_F]
    logits_F = compute_logits(model.text.head, table_FT, compute_text_states(model, batch))
    assert weights_F == pytest.approx(compute_weights(logits_F, len(logits_F)), abs=1e-5)


def test_dense_vectors_match_numpy() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(heads=("tokens", "dense"), dense_dim=7))
    assert model.text.head.dense is not None
    with torch.inference_mode():
        dense_BE = to_doubles(model.encode_texts(tokenize_texts(model)).dense_BE)
    for text, dense_E in zip(TEXTS, dense_BE, strict=True):
        states_LD = compute_text_states(model, tokenize_texts(model, (text,)))
        expected_E = to_doubles(model.text.head.dense.weight) @ transform_states(model.text.head, states_LD).mean(0)
        assert dense_E == pytest.approx(expected_E / np.linalg.norm(expected_E), abs=1e-5)


def test_masks_keep_the_tokens_of_the_text() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_own_words=True, text_top_k=0))
    tokens = list_tokens(model, mask="own")
    assert tokens[0] == {"red", "dog"}  # no stop word
    assert tokens[1] <= {"dog", "##s", "run", "##n", "##ing", "sea"}
    assert tokens[2] == tokens[5] == set()


def test_plain_masks_keep_stop_words() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_top_k=0))
    model.set_bias(9.0)  # so that every token has a weight
    tokens = list_tokens(model, mask="tokens")
    assert tokens[0] == {"a", "red", "dog"}
    assert tokens[1] == {"the", "dog", "##s", "run", "##n", "##ing", "of", "sea", "."}
    assert tokens[2] == set()  # special tokens and padding are no features
    assert tokens[5] == {"the", "of"}


def test_always_masked_tower_ignores_a_plain_mask() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_always_masked=True))
    with torch.inference_mode():
        free_BF, masked_BF = (model.encode_texts(tokenize_texts(model), mask=mask).weights_BF for mask in ("none", "tokens"))
    assert free_BF is not None
    assert torch.equal(free_BF, masked_BF)


def test_uncapped_vectors_have_all_positive_tokens(tmp_path: Path) -> None:
    encoder = load_encoder(tmp_path, image_top_k=0, text_top_k=0, similarity="dot")
    model = tiny_stair.build_model(tiny_stair.build_config(image_top_k=0, text_top_k=0, similarity="dot"))
    pixels_BHWC = draw_pixels(3)
    with torch.inference_mode():
        outputs = (model.encode_images(torch.from_numpy(pixels_BHWC)), model.encode_texts(tokenize_texts(model)))
    images, texts = encoder.encode_images(pixels_BHWC), encoder.encode_texts(TEXTS)
    for output, vectors in zip(outputs, (images, texts), strict=True):
        for logits_F, vector in zip(to_doubles(output.logits_BF), vectors, strict=True):
            weights = {token: math.log1p(max(0, logit)) for token, logit in zip(model.tokens.tokens, logits_F, strict=True)}
            expected = {token: weight for token, weight in weights.items() if weight > 5e-6}
            assert vector.to_dict() == pytest.approx(expected, abs=2e-5)
    assert max(map(len, texts)) > 6  # more than the usual cap


@pytest.mark.parametrize("text", ["bert", "distilbert"])
def test_special_and_unused_tokens_have_no_weight(tmp_path: Path, text: str) -> None:
    encoder = load_encoder(tmp_path, text=text, image_top_k=0, text_top_k=0)
    vectors = [*encoder.encode_images(draw_pixels(8)), *encoder.encode_texts([*TEXTS, "[MASK] [unused0] [CLS] xyzzy"])]
    assert vectors == [SparseVector.from_mapping(vector.to_dict()) for vector in vectors]  # sorted
    tokens = {token for vector in vectors for token in vector.tokens}
    assert tokens <= set(tiny_stair.WORDS)
    assert len(tokens) > len(tiny_stair.WORDS) / 2
    assert not any(encoder.tokenize_word(token) for token in (*tiny_stair.SPECIAL, *tiny_stair.UNUSED))
    assert encoder.tokenize_word("Dogs") == ("dog", "##s")
    assert encoder.tokenize_word("running") == ("run", "##n", "##ing")


@pytest.mark.parametrize("image", tiny_stair.IMAGES)
def test_an_image_alone_and_in_a_batch(tmp_path: Path, image: str) -> None:
    encoder, pixels_BHWC = load_encoder(tmp_path, image=image, image_top_k=0), draw_pixels(11)
    for pixels_HWC, vector in zip(pixels_BHWC, encoder.encode_images(pixels_BHWC), strict=True):
        assert_near(encoder.encode_images(pixels_HWC[None])[0], vector, BATCH_TOLERANCE)
    assert encoder.encode_images(pixels_BHWC[:0]) == []


@pytest.mark.parametrize("text", tiny_stair.TEXTS)
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_text_alone_and_padded_in_a_batch(tmp_path: Path, text: str, pool: str) -> None:
    encoder = load_encoder(tmp_path, text=text, text_pool=pool, text_top_k=0, text_own_words=True)
    texts = TEXTS * 12  # more than one batch
    for each, vector in zip(texts, encoder.encode_texts(texts), strict=True):
        assert_near(encoder.encode_texts([each])[0], vector, BATCH_TOLERANCE)
    assert encoder.encode_texts([]) == []


def test_a_text_that_is_too_long_is_truncated(tmp_path: Path) -> None:
    longest, longer = load_encoder(tmp_path).encode_texts([TEXTS[-1], TEXTS[-1] + " cat" * 5000])
    assert longest == longer


@pytest.mark.parametrize("image", ["vit", "timm-convnet"])
def test_bf16_is_near_fp32(tmp_path: Path, image: str) -> None:
    exact = load_encoder(tmp_path, image=image, image_top_k=0, text_top_k=0, similarity="dot")
    narrow = registry.load_encoder(ModelSpec(name=str(tmp_path), backend="torch", precision="bf16"))
    assert narrow.model_id == exact.model_id
    exact_vectors, narrow_vectors = (
        [*encoder.encode_images(draw_pixels(8)), *encoder.encode_texts(TEXTS)] for encoder in (exact, narrow)
    )
    assert exact_vectors[:8] != narrow_vectors[:8]
    assert exact_vectors[8:] != narrow_vectors[8:]
    for exact_vector, narrow_vector in zip(exact_vectors, narrow_vectors, strict=True):
        assert_near(narrow_vector, exact_vector, BF16_TOLERANCE)


def test_threads_get_the_same_vectors(tmp_path: Path) -> None:
    encoder, pixels_BHWC = load_encoder(tmp_path, spec={"threads": 1}), draw_pixels(3)

    def encode_both(_: int) -> tuple[list[SparseVector], list[SparseVector]]:
        return encoder.encode_images(pixels_BHWC), encoder.encode_texts(TEXTS)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(encode_both, range(12))
    assert others == [first] * 11


def test_only_cosine_vectors_are_normalized(tmp_path: Path) -> None:
    cosine = load_encoder(tmp_path / "cosine").encode_images(draw_pixels(4))
    dot = load_encoder(tmp_path / "dot", similarity="dot").encode_images(draw_pixels(4))
    for cosine_vector, dot_vector in zip(cosine, dot, strict=True):
        assert cosine_vector.dot(cosine_vector) == pytest.approx(1, abs=1e-4)
        length = math.sqrt(dot_vector.dot(dot_vector))
        assert_near(cosine_vector, SparseVector.from_pairs((token, weight / length) for token, weight in dot_vector), 2e-5)


def test_heads_are_independent(tmp_path: Path) -> None:
    dense = load_encoder(tmp_path / "dense", heads=("dense",))
    assert dense.has_dense
    assert np.linalg.norm(dense.encode_images_dense(draw_pixels(2)), axis=1) == pytest.approx(1, abs=1e-5)
    with expect_error("no-such-head") as caught:
        dense.encode_images(draw_pixels(1))
    assert "stair-es evaluate" in caught.value.remedy
    with expect_error("model-without-tokens"):
        registry.resolve_model(ModelSpec(name=str(tmp_path / "dense"))).check_indexable()
    sparse = load_encoder(tmp_path / "sparse")
    assert not sparse.has_dense
    with expect_error("no-such-head"):
        sparse.encode_texts_dense(["dog"])
    assert get_dense_encoder(dense) is dense
    assert get_dense_encoder(sparse) is None  # an evaluation leaves dense rows out


def test_tokens_and_dense_vectors_equal_separate_calls(tmp_path: Path) -> None:
    encoder, pixels_BHWC = load_encoder(tmp_path / "both", heads=("tokens", "dense")), draw_pixels(3)
    vectors, dense_BE = encoder.encode_images_both(pixels_BHWC)
    assert vectors == encoder.encode_images(pixels_BHWC)
    assert np.array_equal(dense_BE, encoder.encode_images_dense(pixels_BHWC))
    vectors, dense_BE = encoder.encode_texts_both(TEXTS)
    assert vectors == encoder.encode_texts(TEXTS)
    assert np.array_equal(dense_BE, encoder.encode_texts_dense(TEXTS))
    for head in ("tokens", "dense"):
        with expect_error("no-such-head"):
            load_encoder(tmp_path / head, heads=(head,)).encode_texts_both(TEXTS)


def test_invalid_pixels_are_rejected(tmp_path: Path) -> None:
    encoder = load_encoder(tmp_path)
    arrays: list[Any] = [np.zeros(shape, np.uint8) for shape in ((1, 16, 16, 3), (1, 32, 32, 4), (32, 32, 3))]
    for pixels in (*arrays, np.zeros((1, 32, 32, 3), np.float32)):
        with expect_error("invalid-pixels") as caught:
            encoder.encode_images(pixels)
        assert f"{pixels.dtype} {pixels.shape}" in caught.value.message


@pytest.mark.parametrize("masked", [False, True])
def test_slices_of_the_vocabulary_give_the_same_logits(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    hidden_BLT, embedding_FT, bias_F = (torch.randn(*shape, generator=generator) for shape in ((3, 5, 8), (1300, 8), (1300,)))
    mask_BL = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 1, 0]], dtype=torch.bool) if masked else None
    logits_BF = heads.compute_max_logits(hidden_BLT, mask_BL, embedding_FT, bias_F)
    monkeypatch.setitem(heads._MAX_LOGITS, "cpu", 15 * 600)
    with torch.inference_mode():
        assert torch.allclose(heads.compute_max_logits(hidden_BLT, mask_BL, embedding_FT, bias_F), logits_BF, atol=1e-6)
    logits_BLF = (hidden_BLT.double() @ embedding_FT.double().T + bias_F.double()).numpy()
    for row, logits_F in enumerate(logits_BF):
        logits_LF = logits_BLF[row] if mask_BL is None else logits_BLF[row][mask_BL[row].numpy()]
        assert logits_F.numpy() == pytest.approx(logits_LF.max(0), abs=1e-5)
