"""Label scoring: floors, spreads and both sides of a score, on vectors whose words are known."""

from __future__ import annotations

import numpy as np
import pytest

from stair_es.model.labels.scoring import center_vectors, measure_noise, score_images, score_texts
from stair_es.types import Floats


def draw_units(count: int, size: int, seed: int) -> Floats:
    """Draw vectors of length 1."""
    vectors_BD = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return center_vectors(vectors_BD, np.zeros(size, np.float32))


WORDS_VD = draw_units(300, 64, 1)
SAMPLES_ND = draw_units(200, 64, 2)
FLOORS_V, SPREADS_V = measure_noise(SAMPLES_ND, WORDS_VD)


def test_noise_is_that_of_the_samples() -> None:
    similarities_NV = SAMPLES_ND @ WORDS_VD.T
    variances_V = similarities_NV.var(axis=0)
    assert pytest.approx(np.sqrt((200 * variances_V + 100 * variances_V.mean()) / 300), rel=1e-4) == SPREADS_V
    assert pytest.approx(similarities_NV.mean(axis=0) + 0.85 * SPREADS_V, abs=1e-5) == FLOORS_V
    assert (similarities_NV > FLOORS_V).mean() == pytest.approx(0.2, abs=0.02)


def test_an_image_has_the_words_that_are_furthest_above_their_floor() -> None:
    weights_BV = score_images(WORDS_VD[:5], WORDS_VD, FLOORS_V, SPREADS_V, max_tokens=7)
    excess_BV = np.maximum((WORDS_VD[:5] @ WORDS_VD.T - FLOORS_V) / SPREADS_V, 0)
    assert weights_BV.argmax(axis=1).tolist() == list(range(5))
    for weights_V, excess_V in zip(weights_BV, excess_BV, strict=True):
        kept = np.flatnonzero(weights_V)
        assert set(kept) == set(np.argsort(-excess_V)[:7])
        assert weights_V[kept] == pytest.approx(excess_V[kept] ** 1.5 / np.linalg.norm(excess_V[kept] ** 1.5), rel=1e-4)


def test_a_word_that_every_image_resembles_needs_more() -> None:
    common_VD = np.concatenate([WORDS_VD, SAMPLES_ND.mean(axis=0, keepdims=True) * 9])
    floors_V, spreads_V = measure_noise(SAMPLES_ND + 0.2 * common_VD[-1], common_VD)
    assert floors_V[-1] > floors_V[:-1].max()
    weights_BV = score_images(SAMPLES_ND[:9] + 0.2 * common_VD[-1], common_VD, floors_V, spreads_V, max_tokens=64)
    without_BV = score_images(SAMPLES_ND[:9] + 0.2 * common_VD[-1], common_VD, 0 * floors_V, spreads_V, max_tokens=64)
    assert np.count_nonzero(weights_BV[:, -1]) < np.count_nonzero(without_BV[:, -1])


def test_an_image_above_no_floor_has_no_token() -> None:
    assert not score_images(np.zeros((2, 64), np.float32), WORDS_VD, np.ones(300, np.float32), SPREADS_V, max_tokens=5).any()


def test_words_without_noise_divide_by_no_zero() -> None:
    floors_V, spreads_V = measure_noise(np.repeat(SAMPLES_ND[:1], 3, axis=0), WORDS_VD)
    weights_BV = score_images(SAMPLES_ND, WORDS_VD, floors_V, spreads_V, max_tokens=5)
    assert np.linalg.norm(weights_BV[1:], axis=1) == pytest.approx(1, abs=1e-5)


def test_a_text_of_two_words_is_their_mixture() -> None:
    text_BD = center_vectors(WORDS_VD[3:4] + WORDS_VD[8:9], np.zeros(64, np.float32))
    weights_V = score_texts(text_BD, WORDS_VD, [[]], max_tokens=12)[0]
    assert set(np.argsort(-weights_V)[:2]) == {3, 8}
    assert np.count_nonzero(weights_V) <= 12
    assert np.linalg.norm(weights_V) == pytest.approx(1, abs=1e-5)
    assert weights_V @ WORDS_VD @ text_BD[0] / np.linalg.norm(weights_V @ WORDS_VD) > 0.9


def test_own_words_of_a_text_are_kept() -> None:
    far = int(np.argmin(WORDS_VD @ WORDS_VD[0]))
    weights_V = score_texts(WORDS_VD[:1], WORDS_VD, [[far, far]], max_tokens=4)[0]
    assert 0 < weights_V[far] == weights_V[weights_V > 0].min()
    assert np.count_nonzero(weights_V) <= 4
    assert np.flatnonzero(score_texts(WORDS_VD[:1], WORDS_VD, [[5, 6, 7]], max_tokens=2)[0]).tolist() == [5, 6]
    unlike_BV = score_texts(np.zeros((1, 64), np.float32), WORDS_VD, [[9]], max_tokens=4)
    assert np.flatnonzero(unlike_BV[0]).tolist() == [9]


def test_one_alone_gets_the_same_weights_as_in_a_batch() -> None:
    images_BV = score_images(SAMPLES_ND[:9], WORDS_VD, FLOORS_V, SPREADS_V, max_tokens=12)
    texts_BV = score_texts(SAMPLES_ND[:9], WORDS_VD, [[]] * 9, max_tokens=12)
    for row, vector_D in enumerate(SAMPLES_ND[:9]):
        alone_BV = score_images(vector_D[None], WORDS_VD, FLOORS_V, SPREADS_V, max_tokens=12)
        assert alone_BV[0] == pytest.approx(images_BV[row], abs=1e-5)
        assert score_texts(vector_D[None], WORDS_VD, [[]], max_tokens=12)[0] == pytest.approx(texts_BV[row], abs=1e-5)


def test_no_input_gives_no_rows() -> None:
    empty_BD = np.zeros((0, 64), np.float32)
    assert score_images(empty_BD, WORDS_VD, FLOORS_V, SPREADS_V, max_tokens=5).shape == (0, 300)
    assert score_texts(empty_BD, WORDS_VD, [], max_tokens=5).shape == (0, 300)
