"""Token weights of dense vectors over a dictionary of words: a non-negative lasso for images, similarities for texts.

An image vector `z` gets the weights `w >= 0` that minimize `1/2 |z - sum_v w_v c_v|^2 + penalty * sum_v w_v`, divided by the norm
of the sum, with `c_v` the vector of word `v` (SpLiCE: Bhalla et al., "Interpreting CLIP with Sparse Linear Concept Embeddings",
NeurIPS 2024). A text vector `t` isn't decomposed: its weight of a word is the similarity `c_v . t`, since the score of an image,
`(sum_v w_v c_v) . t`, is the sum over its words of `w_v` times that similarity.

Shape suffixes: B batch, V words, D dimensions, K words that are considered for an image, N words that are returned.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stair_es.types import Floats

Indices: TypeAlias = NDArray[np.int64]
Doubles: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_TOLERANCE = 4e-7
"""A word belongs to the solution if its correlation with the residual exceeds the penalty by more."""
_FIRST_WORDS, _MORE_WORDS = 128, 48
"""Words considered first, those with the largest correlations, and words added in each round."""
_BLOCK = 8
"""Words that enter the solution at once."""
_RIDGE = 1e-9
"""Added to the diagonal of Gram matrices, so that two words with the same vector share their weight."""
_MAX_STEPS = 1000
_MIN_NORM = 1e-12


def center_vectors(vectors_BD: Floats, mean_D: Floats) -> Floats:
    """Return vectors minus their mean, of length 1."""
    centered_BD = vectors_BD - mean_D
    unit_BD: Floats = (centered_BD / np.maximum(np.linalg.norm(centered_BD, axis=1, keepdims=True), _MIN_NORM)).astype(np.float32)
    return unit_BD


def decompose_images(images_BD: Floats, dictionary_VD: Floats, *, l1: float, max_tokens: int) -> Floats:
    """Decompose centered image vectors into token weights [B, V].

    Args:
        images_BD: Vectors of length 1.
        dictionary_VD: Vectors of the words, of length 1.
        l1: The penalty, as a share of the image's largest correlation with a word: 1 leaves no token, 0 penalizes none.
        max_tokens: Maximum number of tokens. If there are more, the heaviest are weighted again without the others.
    """
    correlations_BV = images_BD @ dictionary_VD.T
    penalties_B = l1 * np.maximum(correlations_BV.max(axis=1), 0.0)
    weights_BV = solve_lasso(images_BD, dictionary_VD, penalties_B)
    crowded = np.flatnonzero(np.count_nonzero(weights_BV, axis=1) > max_tokens)
    if len(crowded):
        kept_BN = _find_largest(weights_BV[crowded], max_tokens)
        linear_BN = np.take_along_axis(correlations_BV[crowded], kept_BN, axis=1) - penalties_B[crowded, None]
        weights_BN = _solve_chosen(dictionary_VD[kept_BN], linear_BN, np.zeros_like(linear_BN))
        weights_BV[crowded] = 0.0
        weights_BV[crowded[:, None], kept_BN] = weights_BN
    return _divide_by_norms(weights_BV, dictionary_VD)


def solve_lasso(images_BD: Floats, dictionary_VD: Floats, penalties_B: Floats) -> Floats:
    """Solve the non-negative lasso: return the weights [B, V] that minimize `1/2 |z - w C|^2 + penalty * sum(w)`.

    An active-set method (Lawson and Hanson, 1974, for the quadratic form of the problem) over few words, with their Gram matrix;
    words that violate the optimality conditions are added until there are none, so the result is that of the whole dictionary.

    Args:
        images_BD: Vectors `z`.
        dictionary_VD: Vectors of the words, `C`, of length 1.
        penalties_B: Penalty of each image; 0 or more.
    """
    images, words = len(images_BD), len(dictionary_VD)
    weights_BV = np.zeros((images, words), np.float32)
    if not images:
        return weights_BV
    correlations_BV = images_BD @ dictionary_VD.T
    rows_B, index_BK = np.arange(images), _find_largest(correlations_BV, min(_FIRST_WORDS, words))
    for _ in range(_MAX_STEPS):
        vectors_BKD = dictionary_VD[index_BK]
        linear_BK = np.take_along_axis(correlations_BV[rows_B], index_BK, axis=1) - penalties_B[rows_B, None]
        found_BK = _solve_chosen(vectors_BKD, linear_BK, weights_BV[rows_B[:, None], index_BK])
        weights_BV[rows_B[:, None], index_BK] = found_BK
        residuals_BD = images_BD[rows_B] - (found_BK[:, None] @ vectors_BKD)[:, 0]
        excess_BV = residuals_BD @ dictionary_VD.T - penalties_B[rows_B, None]
        np.put_along_axis(excess_BV, index_BK, 0.0, axis=1)
        open_B = excess_BV.max(axis=1) > _TOLERANCE
        if not open_B.any():
            break
        rows_B = rows_B[open_B]
        index_BK = _replace_idle_words(index_BK[open_B], found_BK[open_B], excess_BV[open_B])
    return weights_BV


def _replace_idle_words(index_BK: Indices, weights_BK: Floats, excess_BV: Floats) -> Indices:
    """Return the words to consider next: those with a weight, and those that violate the conditions most."""
    used = int(np.count_nonzero(weights_BK, axis=1).max())
    heaviest_BK = np.argsort(-weights_BK, axis=1, kind="stable")[:, :used]
    used_BK = np.take_along_axis(index_BK, heaviest_BK, axis=1)
    np.put_along_axis(excess_BV, used_BK, -np.inf, axis=1)
    more = min(max(_MORE_WORDS, _FIRST_WORDS - used), excess_BV.shape[1] - used)
    return np.concatenate([used_BK, _find_largest(excess_BV, more)], axis=1)


def select_similar_words(texts_BD: Floats, dictionary_VD: Floats, own_words: list[list[int]], *, max_tokens: int) -> Floats:
    """Return the token weights [B, V] of centered text vectors: the largest positive similarities with words.

    Args:
        texts_BD: Vectors of length 1.
        dictionary_VD: Vectors of the words, of length 1.
        own_words: For each text the indices of the words in it. They are always kept, with the smallest weight at least.
        max_tokens: Maximum number of tokens, of which the own words are first.
    """
    similarities_BV = texts_BD @ dictionary_VD.T
    weights_BV = np.zeros_like(similarities_BV)
    for row, (similarities_V, own) in enumerate(zip(similarities_BV, own_words, strict=True)):
        kept = list(dict.fromkeys(own))[:max_tokens]
        preference_V = similarities_V.copy()
        preference_V[kept] = np.inf
        chosen = _find_largest(preference_V[None], min(max_tokens, len(similarities_V)))[0]
        weights_BV[row, chosen] = np.maximum(similarities_V[chosen], 0.0)
        if kept:
            positive = weights_BV[row][weights_BV[row] > 0]
            weights_BV[row, kept] = np.maximum(weights_BV[row, kept], positive.min() if len(positive) else 1.0)
    return weights_BV


def _solve_chosen(vectors_BKD: Floats, linear_BK: Floats, start_BK: Floats) -> Floats:
    """Return the weights [B, K] over the chosen words of each image."""
    gram_BKK = (vectors_BKD @ vectors_BKD.transpose(0, 2, 1)).astype(np.float64)
    return np.stack([_solve_image(*image) for image in zip(gram_BKK, linear_BK.astype(np.float64), start_BK, strict=True)])


def _solve_image(gram_KK: Doubles, linear_K: Doubles, start_K: Floats) -> Floats:
    """Minimize `1/2 w' G w - l' w` over `w >= 0`, from a start that is optimal on its own words or 0."""
    weights_K = start_K.astype(np.float64)
    in_solution_K = weights_K > 0
    block = _BLOCK
    for _ in range(_MAX_STEPS):
        slopes_K = np.where(in_solution_K, 0.0, linear_K - gram_KK @ weights_K)
        entering = np.argsort(-slopes_K, kind="stable")[:block]
        entering = entering[slopes_K[entering] > _TOLERANCE / 2]
        if not len(entering):
            break
        in_solution_K[entering] = True
        _move_to_minimum(gram_KK, linear_K, weights_K, in_solution_K)
        if in_solution_K[entering].any():
            block = _BLOCK
        elif block == 1:  # below the precision of the Gram matrix
            break
        else:
            block = 1
    return weights_K.astype(np.float32)


def _move_to_minimum(gram_KK: Doubles, linear_K: Doubles, weights_K: Doubles, in_solution_K: Mask) -> None:
    """Move the weights to the minimum over the words in the solution; those that become 0 on the way leave it."""
    while True:
        words = np.flatnonzero(in_solution_K)
        gram_NN = gram_KK[words[:, None], words]
        gram_NN.flat[:: len(words) + 1] += _RIDGE
        minimum_N = np.linalg.solve(gram_NN, linear_K[words])
        if (minimum_N > 0).all():
            weights_K[words] = minimum_N
            return
        current_N = weights_K[words]
        falling_N = minimum_N <= 0
        shares_N = current_N[falling_N] / (current_N[falling_N] - minimum_N[falling_N])
        weights_K[words] = current_N + shares_N.min() * (minimum_N - current_N)
        leaving = words[falling_N][shares_N <= shares_N.min() + 1e-12]
        weights_K[leaving] = 0.0
        in_solution_K[leaving] = False
        if not in_solution_K.any():
            return


def _find_largest(values_BV: Floats, count: int) -> Indices:
    """Return the indices [B, count] of the largest values, largest first; of equal values the first."""
    if count < values_BV.shape[1]:
        index_BN = np.argpartition(-values_BV, count - 1, axis=1)[:, :count] if count else np.zeros((len(values_BV), 0), np.int64)
    else:
        index_BN = np.tile(np.arange(values_BV.shape[1]), (len(values_BV), 1))
    index_BN.sort(axis=1)
    order_BN = np.argsort(-np.take_along_axis(values_BV, index_BN, axis=1), axis=1, kind="stable")
    largest_BN: Indices = np.take_along_axis(index_BN, order_BN, axis=1)
    return largest_BN


def _divide_by_norms(weights_BV: Floats, dictionary_VD: Floats) -> Floats:
    norms_B = np.linalg.norm(weights_BV @ dictionary_VD, axis=1, keepdims=True)
    divided_BV: Floats = weights_BV / np.maximum(norms_B, _MIN_NORM)
    return divided_BV
