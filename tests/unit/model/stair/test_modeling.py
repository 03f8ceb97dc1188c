"""STAIR's towers against a computation in numpy, and the equivalences that an encoder promises, with their tolerances."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray
from support.models import tiny_stair

from stair_es.errors import ModelError
from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.sparse_rows import build_sparse_vector
from stair_es.model.stair import heads
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.types import SparseVector

ALIKE = 1.01e-5
"""Between a batch and its items, padded and not, fp32: at most one step of the fifth decimal, to which weights are rounded."""
BF16 = 0.04
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


def _pixels(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)


def _texts(model: StairModel, texts: tuple[str, ...] = TEXTS) -> TextBatch:
    result = model.tokens.encode(texts)
    return TextBatch.from_tokenized(result)


def _array(tensor: Any) -> Doubles:  # noqa: ANN401
    result: Doubles = tensor.detach().double().numpy()
    return result


def _transformed(head: Any, states: Doubles) -> Doubles:  # noqa: ANN401
    """Linear, GELU, LayerNorm."""
    linear, _, norm = head.transform
    x = states @ _array(linear.weight).T + _array(linear.bias)
    x = x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    result: Doubles = x * _array(norm.weight) + _array(norm.bias)
    return result


def _kept(weights_F: Doubles, top_k: int) -> Doubles:
    """The `top_k` largest; 0 elsewhere."""
    ranked = sorted(range(len(weights_F)), key=lambda index: -weights_F[index])
    result = np.zeros_like(weights_F)
    result[ranked[:top_k]] = weights_F[ranked[:top_k]]
    return result


def _logits(head: Any, embedding: Doubles, states_LD: Doubles) -> Doubles:  # noqa: ANN401
    """Of one item without padding: the largest over positions."""
    if head.pool == "mean":
        states_LD = states_LD.mean(0, keepdims=True)
    result: Doubles = (_transformed(head, states_LD) @ embedding.T + _array(head.bias_F)).max(0)
    return result


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("tie", [False, True])
def test_the_words_of_an_image_match_numpy(pool: str, tie: bool) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(image_pool=pool, image_tie=tie, image_top_k=4))
    pixels = _pixels(3)
    with torch.inference_mode():
        states_BLD = _array(model.image.compute_states(torch.from_numpy(pixels)))
        result_BF = _array(model.encode_images(torch.from_numpy(pixels)).weights_BF)
    embedding = _array((model.text if tie else model.image).head.embedding_FT)
    for states_LD, result_F in zip(states_BLD, result_BF, strict=True):
        logits_F = _logits(model.image.head, embedding, states_LD)
        assert result_F == pytest.approx(_kept(np.log1p(np.maximum(logits_F, 0)), 4), abs=1e-5)
        assert np.count_nonzero(result_F) == min(4, np.count_nonzero(logits_F > 0))


def test_pixel_scaling_follows_the_configuration() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config())
    pixels = _pixels(2)
    scaled = (pixels / 255.0 - np.array([0.5, 0.4, 0.45])) / np.array([0.2, 0.25, 0.3])
    with torch.inference_mode():
        expected = model.image.backbone(torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32).copy()))
        assert torch.allclose(model.image.compute_states(torch.from_numpy(pixels)), expected, atol=1e-5)


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("own_words", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_words_of_a_text_match_numpy(pool: str, own_words: bool, masked: bool) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_pool=pool, text_own_words=own_words, text_always_masked=masked))
    with torch.inference_mode():
        result_BF = _array(model.encode_texts(_texts(model)).weights_BF)
    embedding, features = _array(model.text.head.embedding_FT), len(model.tokens.tokens)
    for text, result_F in zip(TEXTS, result_BF, strict=True):
        one = _texts(model, (text,))
        with torch.inference_mode():
            states_LD = _array(model.text.backbone(one.ids_BL, one.mask_BL))[0]
        strength_F = _logits(model.text.head, embedding, states_LD)
        indices = [int(index) for index in model.tokens.own_feature_of_V[one.ids_BL[0].numpy()]]
        own = model.text.own_words
        assert (own is not None) == own_words
        if own:
            strength_F = np.maximum(strength_F, 0)
            for index in {index for index in indices if index >= 0}:
                at = [_array(own.word_F)[index] + states_LD[i] @ _array(own.state_D) for i, p in enumerate(indices) if p == index]
                strength_F[index] += max(0, *at)
        if masked:
            strength_F = strength_F * np.isin(np.arange(features), indices)
        assert result_F == pytest.approx(_kept(np.log1p(np.maximum(strength_F, 0)), 5), abs=1e-5)


def test_tied_text_embeddings_match_the_network() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_tie=True, text_transform_dim=tiny_stair.WIDTH))
    one = _texts(model, ("a red dog",))
    with torch.inference_mode():
        states_LD = _array(model.text.backbone(one.ids_BL, one.mask_BL))[0]
        result_F = _array(model.encode_texts(one, top_k=0).weights_BF)[0]
    assert np.count_nonzero(result_F) > 2
    rows = _array(model.text.backbone.network.embeddings.word_embeddings.weight)[model.tokens.feature_ids_F]
    assert result_F == pytest.approx(np.log1p(np.maximum(_logits(model.text.head, rows, states_LD), 0)), abs=1e-5)


def test_dense_vectors_match_numpy() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(heads=("tokens", "dense"), dense_dim=7))
    assert model.text.head.dense is not None
    with torch.inference_mode():
        result_BE = _array(model.encode_texts(_texts(model)).dense_BE)
    for text, result_E in zip(TEXTS, result_BE, strict=True):
        one = _texts(model, (text,))
        with torch.inference_mode():
            states_LD = _array(model.text.backbone(one.ids_BL, one.mask_BL))[0]
        expected_E = _array(model.text.head.dense.weight) @ _transformed(model.text.head, states_LD).mean(0)
        assert result_E == pytest.approx(expected_E / np.linalg.norm(expected_E), abs=1e-5)


def test_masks_keep_the_words_of_the_text() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_own_words=True, text_top_k=0))
    with torch.inference_mode():
        weights_BF = model.encode_texts(_texts(model), mask="own").weights_BF
    assert weights_BF is not None
    words = [{model.tokens.tokens[i] for i in np.flatnonzero(row)} for row in weights_BF.numpy()]
    assert words[0] <= {"red", "dog"}  # no stop word
    assert {"red", "dog"} <= words[0]
    assert words[1] <= {"dog", "##s", "run", "##n", "##ing", "sea"}
    assert words[2] == words[5] == set()


def test_plain_masks_keep_stop_words() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_top_k=0))
    model.set_bias(9.0)  # so that every word is on
    with torch.inference_mode():
        weights_BF = model.encode_texts(_texts(model), mask="tokens").weights_BF
    assert weights_BF is not None
    words = [{model.tokens.tokens[i] for i in np.flatnonzero(row)} for row in weights_BF.numpy()]
    assert words[0] == {"a", "red", "dog"}
    assert words[1] == {"the", "dog", "##s", "run", "##n", "##ing", "of", "sea", "."}
    assert words[2] == set()  # neither special tokens nor padding have a word
    assert words[5] == {"the", "of"}


def test_always_masked_tower_ignores_a_plain_mask() -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(text_always_masked=True))
    with torch.inference_mode():
        one, other = (model.encode_texts(_texts(model), mask=mask).weights_BF for mask in ("none", "tokens"))
    assert one is not None
    assert torch.equal(one, other)


def test_uncapped_vectors_have_all_positive_words(tmp_path: Path) -> None:
    encoder = _encoder(tmp_path, image_top_k=0, text_top_k=0, similarity="dot")
    model = tiny_stair.build_model(tiny_stair.build_config(image_top_k=0, text_top_k=0, similarity="dot"))
    pixels = _pixels(3)
    with torch.inference_mode():
        outs = (model.encode_images(torch.from_numpy(pixels)), model.encode_texts(_texts(model)))
    for out, vectors in zip(outs, (encoder.encode_images(pixels), encoder.encode_texts(TEXTS)), strict=True):
        for logits_F, vector in zip(_array(out.logits_BF), vectors, strict=True):
            expected = {word: math.log1p(logit) for word, logit in zip(model.tokens.tokens, logits_F, strict=True) if logit > 0}
            assert vector.to_dict() == pytest.approx(
                {word: weight for word, weight in expected.items() if weight > 5e-6}, abs=2e-5
            )
    assert max(map(len, encoder.encode_texts(TEXTS))) > 6, "no test of a cap that is off"


@pytest.mark.parametrize("text", ["bert", "distilbert"])
def test_neither_special_nor_unused_tokens_are_words(tmp_path: Path, text: str) -> None:
    encoder = _encoder(tmp_path, text=text, image_top_k=0, text_top_k=0)
    never = {*tiny_stair.SPECIAL, *tiny_stair.UNUSED}
    vectors = [*encoder.encode_images(_pixels(8)), *encoder.encode_texts([*TEXTS, "[MASK] [unused0] [CLS] xyzzy"])]
    seen = {word for vector in vectors for word in vector.tokens}
    assert seen <= set(tiny_stair.WORDS)
    assert len(seen) > len(tiny_stair.WORDS) / 2
    assert not any(encoder.tokenize_word(word) for word in never)
    assert encoder.tokenize_word("Dogs") == ("dog", "##s")
    assert encoder.tokenize_word("running") == ("run", "##n", "##ing")


def _encoder(
    folder: Path, *, spec: dict[str, Any] | None = None, image: str = "vit", text: str = "bert", **changes: object
) -> Encoder:
    tiny_stair.write_checkpoint(folder, tiny_stair.build_config(image, text, **changes))
    return registry.load_encoder(ModelSpec(name=str(folder), backend="torch", **(spec or {})))


def _near(one: SparseVector, other: SparseVector, tolerance: float) -> None:
    ours, theirs = one.to_dict(), other.to_dict()
    for word in {*ours, *theirs}:
        assert ours.get(word, 0) == pytest.approx(theirs.get(word, 0), abs=tolerance), word


@pytest.mark.parametrize("image", tiny_stair.IMAGES)
def test_an_image_alone_and_in_a_batch(tmp_path: Path, image: str) -> None:
    encoder, pixels = _encoder(tmp_path, image=image, image_top_k=0), _pixels(11)
    for pixels_HWC, vector in zip(pixels, encoder.encode_images(pixels), strict=True):
        _near(encoder.encode_images(pixels_HWC[None])[0], vector, ALIKE)
    assert encoder.encode_images(pixels[:0]) == []


@pytest.mark.parametrize("text", tiny_stair.TEXTS)
@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_text_alone_and_padded_in_a_batch(tmp_path: Path, text: str, pool: str) -> None:
    encoder = _encoder(tmp_path, text=text, text_pool=pool, text_top_k=0, text_own_words=True)
    texts = TEXTS * 12  # more than one batch
    for one, vector in zip(texts, encoder.encode_texts(texts), strict=True):
        _near(encoder.encode_texts([one])[0], vector, ALIKE)
    assert encoder.encode_texts([]) == []


def test_a_text_that_is_too_long_is_truncated(tmp_path: Path) -> None:
    encoder = _encoder(tmp_path)
    first, longer = encoder.encode_texts([TEXTS[-1], TEXTS[-1] + " cat" * 5000])
    assert first == longer


@pytest.mark.parametrize("image", ["vit", "timm-convnet"])
def test_bf16_is_near_fp32(tmp_path: Path, image: str) -> None:
    wide, pixels = _encoder(tmp_path, image=image, image_top_k=0, text_top_k=0, similarity="dot"), _pixels(8)
    narrow = registry.load_encoder(ModelSpec(name=str(tmp_path), backend="torch", precision="bf16"))
    assert narrow.model_id == wide.model_id
    pairs = [(wide.encode_images(pixels), narrow.encode_images(pixels)), (wide.encode_texts(TEXTS), narrow.encode_texts(TEXTS))]
    for ones, others in pairs:
        assert ones != others
        for one, other in zip(ones, others, strict=True):
            _near(one, other, BF16)


def test_threads_get_the_same_vectors(tmp_path: Path) -> None:
    encoder, pixels = _encoder(tmp_path, spec={"threads": 1}), _pixels(3)

    def both(_: int) -> tuple[list[SparseVector], list[SparseVector]]:
        return encoder.encode_images(pixels), encoder.encode_texts(TEXTS)

    with ThreadPoolExecutor(4) as pool:
        result = list(pool.map(both, range(12)))
    assert all(each == result[0] for each in result)


def test_only_cosine_vectors_are_normalized(tmp_path: Path) -> None:
    unit = _encoder(tmp_path / "a").encode_images(_pixels(4))
    plain = _encoder(tmp_path / "b", similarity="dot").encode_images(_pixels(4))
    for one, other in zip(unit, plain, strict=True):
        assert one.dot(one) == pytest.approx(1, abs=1e-4)
        length = math.sqrt(other.dot(other))
        _near(one, SparseVector.from_pairs((word, weight / length) for word, weight in other), 2e-5)


def test_rows_become_vectors_without_zero_weights() -> None:
    row = np.array([0, 0.5, 1e-7, 2, 0], np.float32)
    ranks = np.arange(5)
    assert build_sparse_vector(row, "abcde", ranks, unit=False).to_dict() == {"d": 2.0, "b": 0.5}
    assert build_sparse_vector(row, "abcde", ranks, unit=True).to_dict() == {"d": 0.97014, "b": 0.24254}
    assert build_sparse_vector(row * 0, "abcde", ranks, unit=True) == SparseVector((), ())
    ties = np.array([0.5, 0, 0.5, 0.7, 0.500001], np.float32)
    words, ranks = ["e", "d", "c", "b", "a"], np.arange(5)[::-1]
    assert build_sparse_vector(ties, words, ranks, unit=False) == SparseVector.from_pairs(
        [("e", 0.5), ("c", 0.5), ("b", 0.7), ("a", 0.5)]
    )
    for value in (np.nan, np.inf):
        with pytest.raises(ModelError, match="a weight that isn't finite"):
            build_sparse_vector(row + np.array([0, 0, 0, 0, value], np.float32), "abcde", ranks, unit=True)


def test_vectors_are_sorted(tmp_path: Path) -> None:
    encoder = _encoder(tmp_path, image_top_k=0, text_top_k=0)
    for vector in (*encoder.encode_images(_pixels(8)), *encoder.encode_texts(TEXTS)):
        assert vector == SparseVector.from_mapping(vector.to_dict())


def test_heads_are_independent(tmp_path: Path) -> None:
    dense = _encoder(tmp_path / "dense", heads=("dense",))
    assert dense.has_dense
    assert np.linalg.norm(dense.encode_images_dense(_pixels(2)), axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ModelError, match="no head for tokens") as error:
        dense.encode_images(_pixels(1))
    assert "stair-es evaluate" in error.value.remedy
    with pytest.raises(ModelError, match="dense vectors only"):
        registry.resolve_model(ModelSpec(name=str(tmp_path / "dense"))).check_indexable()
    words = _encoder(tmp_path / "words")
    assert not words.has_dense
    with pytest.raises(ModelError, match="no head for dense"):
        words.encode_texts_dense(["dog"])
    assert get_dense_encoder(dense) is dense
    assert get_dense_encoder(words) is None, "an evaluation leaves dense rows out"


def test_words_and_dense_vectors_equal_separate_calls(tmp_path: Path) -> None:
    encoder = _encoder(tmp_path / "both", heads=("tokens", "dense"))
    words, dense_BD = encoder.encode_images_both(_pixels(3))
    assert words == encoder.encode_images(_pixels(3))
    assert np.array_equal(dense_BD, encoder.encode_images_dense(_pixels(3)))
    words, dense_BD = encoder.encode_texts_both(TEXTS)
    assert words == encoder.encode_texts(TEXTS)
    assert np.array_equal(dense_BD, encoder.encode_texts_dense(TEXTS))
    for one, lacking in (("tokens", "dense"), ("dense", "tokens")):
        alone = _encoder(tmp_path / one, heads=(one,))
        with pytest.raises(ModelError, match=f"no head for {lacking}"):
            alone.encode_texts_both(TEXTS)


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (1, 32, 32, 4), (32, 32, 3)])
def test_invalid_pixels_are_rejected(tmp_path: Path, shape: tuple[int, ...]) -> None:
    encoder = _encoder(tmp_path)
    with pytest.raises(ModelError, match=r"requires uint8 pixels \(B, 32, 32, 3\)"):
        encoder.encode_images(np.zeros(shape, np.uint8))
    with pytest.raises(ModelError, match="got float32"):
        encoder.encode_images(np.zeros((1, 32, 32, 3), np.float32))


@pytest.mark.parametrize("masked", [False, True])
def test_slicing_words_keeps_the_numbers(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    hidden, words, bias = (torch.randn(*shape, generator=draw) for shape in ((3, 5, 8), (1300, 8), (1300,)))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 1, 0]], dtype=torch.bool) if masked else None
    whole = heads.compute_max_logits(hidden, mask, words, bias)
    monkeypatch.setitem(heads._MAX_LOGITS, "cpu", 15 * 600)
    with torch.inference_mode():
        assert torch.allclose(heads.compute_max_logits(hidden, mask, words, bias), whole, atol=1e-6)
    logits = (hidden.double() @ words.double().T + bias.double()).numpy()
    for row, result in enumerate(whole):
        kept = logits[row] if mask is None else logits[row][mask[row].numpy()]
        assert result.numpy() == pytest.approx(kept.max(0), abs=1e-5)
