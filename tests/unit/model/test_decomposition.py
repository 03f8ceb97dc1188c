"""The decomposition against scikit-learn's lasso, planted mixtures, and what the two sides mean together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stair_es.model.decomposition import center_vectors, decompose_images, select_similar_words, solve_lasso
from stair_es.types import Floats


def center_rows(vectors_BD: NDArray[np.floating[Any]]) -> Floats:
    return center_vectors(vectors_BD.astype(np.float32), np.zeros(vectors_BD.shape[1], np.float32))


def _draw_units(count: int, size: int, seed: int) -> Floats:
    return center_rows(np.random.default_rng(seed).normal(size=(count, size)))


def _draw_clustered_words(words: int, size: int, seed: int) -> Floats:
    """Draw words of which many are nearly the same, as synonyms are."""
    centers_CD = _draw_units(max(words // 20, 1), size, seed)
    rng = np.random.default_rng(seed + 1)
    noise_VD = rng.normal(size=(words, size)) * 0.5 / np.sqrt(size)
    return center_rows(centers_CD[rng.integers(len(centers_CD), size=words)] + noise_VD)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.04])
@pytest.mark.parametrize(("words", "size"), [(40, 64), (600, 64), (1500, 96)])
def test_the_solution_is_that_of_scikit_learn(words: int, size: int, share: float) -> None:
    sklearn_linear = pytest.importorskip("sklearn.linear_model")
    words_VD, images_BD = _draw_clustered_words(words, size, 1), _draw_units(5, size, 2)
    penalties_B = (share * (images_BD @ words_VD.T).max(axis=1)).astype(np.float32)
    weights_BV = solve_lasso(images_BD, words_VD, penalties_B)
    for image_D, penalty, weights_V in zip(images_BD.astype(float), penalties_B, weights_BV, strict=True):
        lasso = sklearn_linear.Lasso(alpha=penalty / size, positive=True, fit_intercept=False, tol=1e-12, max_iter=1_000_000)
        assert weights_V == pytest.approx(lasso.fit(words_VD.T.astype(float), image_D).coef_, abs=1e-5)


def test_a_planted_mixture_is_found_again() -> None:
    words_VD, rng = _draw_units(3000, 128, 3), np.random.default_rng(4)
    planted = [sorted(rng.choice(3000, 3, replace=False).tolist()) for _ in range(70)]
    mixtures_BD = np.stack([words_VD[words].sum(axis=0) for words in planted])
    noise_BD = rng.normal(size=mixtures_BD.shape) * 0.3 / np.sqrt(128)
    images_BD = center_rows(mixtures_BD + noise_BD)
    weights_BV = decompose_images(images_BD, words_VD, l1=0.3, max_tokens=64)
    assert [sorted(np.argsort(-weights_V)[:3].tolist()) for weights_V in weights_BV] == planted
    assert np.linalg.norm(weights_BV @ words_VD, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_image_alone_gets_the_same_weights_as_in_a_batch() -> None:
    words_VD, images_BD = _draw_clustered_words(800, 32, 5), _draw_units(9, 32, 6)
    weights_BV = decompose_images(images_BD, words_VD, l1=0.05, max_tokens=12)
    for image_D, weights_V in zip(images_BD, weights_BV, strict=True):
        assert decompose_images(image_D[None], words_VD, l1=0.05, max_tokens=12)[0] == pytest.approx(weights_V, abs=1e-5)


def test_the_heaviest_tokens_are_kept_with_new_weights() -> None:
    words_VD, images_BD = _draw_clustered_words(500, 64, 7), _draw_units(4, 64, 8)
    all_BV = decompose_images(images_BD, words_VD, l1=0.02, max_tokens=500)
    pruned_BV = decompose_images(images_BD, words_VD, l1=0.02, max_tokens=6)
    assert np.count_nonzero(all_BV, axis=1).min() > 6
    for all_V, pruned_V, image_D in zip(all_BV, pruned_BV, images_BD, strict=True):
        heaviest = np.argsort(-all_V)[:6]
        assert set(np.flatnonzero(pruned_V)) <= set(heaviest.tolist())
        pruned_D = all_V[heaviest] @ words_VD[heaviest]
        assert image_D @ (pruned_V @ words_VD) >= image_D @ pruned_D / np.linalg.norm(pruned_D)


def test_words_with_the_same_vector_share_their_weight() -> None:
    words_VD = np.repeat(_draw_units(20, 16, 9), 2, axis=0)
    weights_V = decompose_images(words_VD[:1], words_VD, l1=0.1, max_tokens=64)[0]
    assert weights_V[:2].sum() == pytest.approx(1, abs=1e-4)
    assert not weights_V[2:].any()


def test_an_image_that_is_unlike_all_words_has_no_token() -> None:
    assert not decompose_images(-np.eye(4, dtype=np.float32)[:1], np.eye(4, dtype=np.float32), l1=0.1, max_tokens=4).any()


def test_scores_are_those_of_the_recomposed_image() -> None:
    """A dot product of tokens is `(sum_v w_v c_v) . t`, as long as all words are kept and their similarities are positive."""
    rng = np.random.default_rng(10)
    words_VD = center_rows(rng.random((300, 24)))
    images_BD, texts_BD = words_VD[:5] + words_VD[7:12], words_VD[20:25] + words_VD[30:35]
    weights_BV = decompose_images(images_BD, words_VD, l1=0.01, max_tokens=300)
    similarities_BV = select_similar_words(texts_BD, words_VD, [[]] * 5, max_tokens=300)
    assert weights_BV @ similarities_BV.T == pytest.approx((weights_BV @ words_VD) @ texts_BD.T, abs=1e-4)


def test_a_decomposed_text_finds_less() -> None:
    """The weight of a query's word is its similarity: decomposing the text, too, loses the words that mean nearly the same."""
    words_VD, rng = _draw_clustered_words(1000, 48, 11), np.random.default_rng(12)
    meanings_BD = np.stack([words_VD[rng.choice(1000, 3, replace=False)].sum(axis=0) for _ in range(200)])
    images_BD, texts_BD = (center_rows(meanings_BD + rng.normal(size=meanings_BD.shape) * 0.25) for _ in range(2))
    image_BV = decompose_images(images_BD, words_VD, l1=0.1, max_tokens=32)

    def count_first_hits(text_BE: Floats, image_BE: Floats) -> int:
        return int(((text_BE @ image_BE.T).argmax(axis=1) == np.arange(200)).sum())

    by_similarity = count_first_hits(select_similar_words(texts_BD, words_VD, [[]] * 200, max_tokens=64), image_BV)
    by_lasso = count_first_hits(decompose_images(texts_BD, words_VD, l1=0.1, max_tokens=64), image_BV)
    assert by_similarity > 1.5 * by_lasso
    assert by_similarity > 0.8 * count_first_hits(texts_BD, images_BD)


def test_the_largest_similarities_and_the_own_words_are_kept() -> None:
    words_VD = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    text_BD = np.array([[1, 0]], np.float32)
    assert select_similar_words(text_BD, words_VD, [[]], max_tokens=2)[0].tolist() == pytest.approx([1, 0.8, 0, 0, 0])
    assert select_similar_words(text_BD, words_VD, [[2]], max_tokens=2)[0].tolist() == pytest.approx([1, 0, 0.6, 0, 0])
    # a word whose similarity isn't positive gets the smallest weight of the others
    assert select_similar_words(text_BD, words_VD, [[4]], max_tokens=3)[0].tolist() == pytest.approx([1, 0.8, 0, 0, 0.8])
    assert select_similar_words(-text_BD, words_VD[:4], [[3]], max_tokens=3)[0].tolist() == [0, 0, 0, 1]
