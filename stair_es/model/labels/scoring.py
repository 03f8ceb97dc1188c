"""Label scoring: token weights of dense vectors by their similarities to words, above what is usual for each word.

The weight of word `v` for an image vector `z` is `max(0, (z . c_v - floor_v) / spread_v) ^ 1.5`: `c_v` is the vector of the word,
`spread_v` the standard deviation of its similarities to sample images, `floor_v` (its noise floor) their mean plus 0.85 of that.
A text `t` gets the cubes of its similarities `t . c_v`. Since near words say the same thing, what the sum of the weighted words
says too much or too little is corrected twice. All vectors get the length 1. `docs/distill.md` has the measurements.

Shape suffixes: B batch, N sample images, V words, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stair_es.types import Floats

_FLOOR_SPREADS = 0.85
"""Standard deviations from the mean of a word's similarities to its noise floor: one image in five reaches it."""
_PRIOR_IMAGES = 100
"""Images that the mean spread of all words counts for, so that few samples give no word a spread by chance."""
_IMAGE_EXPONENT, _TEXT_EXPONENT = 1.5, 3
_CORRECTIONS, _CORRECTION_SHARE = 2, 0.1
_MIN_NORM, _MIN_SPREAD = 1e-12, 1e-6
_MIN_DISTANCE = 1e-6
"""Distance from a mean below which a vector is the mean, but for rounding."""


def center_vectors(vectors_BD: Floats, mean_D: Floats) -> Floats:
    """Return vectors minus their mean, of length 1; those that are the mean stay 0."""
    centered_BD = vectors_BD - mean_D
    centered_BD[np.linalg.norm(centered_BD, axis=1) < _MIN_DISTANCE] = 0.0
    return _scale_to_unit(centered_BD)


def measure_noise(samples_ND: Floats, words_VD: Floats) -> tuple[Floats, Floats]:
    """Measure the noise floor of each word, and the spread of its similarities, both [V].

    Args:
        samples_ND: Centered vectors of sample images.
        words_VD: Centered vectors of the words.
    """
    similarities_NV = samples_ND @ words_VD.T
    variances_V = similarities_NV.var(axis=0)
    count = len(samples_ND)
    spreads_V = np.sqrt((count * variances_V + _PRIOR_IMAGES * variances_V.mean()) / (count + _PRIOR_IMAGES))
    spreads_V = np.maximum(spreads_V, _MIN_SPREAD).astype(np.float32)
    return similarities_NV.mean(axis=0) + _FLOOR_SPREADS * spreads_V, spreads_V


def score_images(images_BD: Floats, words_VD: Floats, floors_V: Floats, spreads_V: Floats, *, max_tokens: int) -> Floats:
    """Return the token weights [B, V] of centered image vectors; none for an image that is above the floor of no word."""
    excess_BV = np.maximum((images_BD @ words_VD.T - floors_V) / spreads_V, 0.0)
    return _scale_to_unit(_keep_largest(excess_BV**_IMAGE_EXPONENT, max_tokens))


def score_texts(texts_BD: Floats, words_VD: Floats, own_words: Sequence[Sequence[int]], *, max_tokens: int) -> Floats:
    """Return the token weights [B, V] of centered text vectors.

    Args:
        texts_BD: Centered vectors of the texts.
        words_VD: Centered vectors of the words.
        own_words: For each text the indices of the words in it. They are always kept, with the smallest weight at least.
        max_tokens: Maximum number of tokens, of which the own words are first.
    """
    similarities_BV = texts_BD @ words_VD.T
    preferences_BV = similarities_BV.copy()
    own = [list(dict.fromkeys(words))[:max_tokens] for words in own_words]
    for row, words in enumerate(own):
        preferences_BV[row, words] = np.inf
    chosen_BV = _keep_largest(preferences_BV, max_tokens) > 0
    weights_BV = np.where(chosen_BV, np.maximum(similarities_BV, 0.0) ** _TEXT_EXPONENT, 0.0)
    for _ in range(_CORRECTIONS):
        weights_BV /= np.maximum(np.linalg.norm(weights_BV @ words_VD, axis=1, keepdims=True), _MIN_NORM)
        missing_BV = (texts_BD - weights_BV @ words_VD) @ words_VD.T
        weights_BV = np.where(chosen_BV, np.maximum(weights_BV + _CORRECTION_SHARE * missing_BV, 0.0), 0.0)
    for weights_V, words in zip(weights_BV, own, strict=True):
        positive = weights_V[weights_V > 0]
        weights_V[words] = np.maximum(weights_V[words], positive.min() if len(positive) else 1.0)
    return _scale_to_unit(weights_BV)


def _keep_largest(values_BV: Floats, count: int) -> Floats:
    """Return the values with all but the largest of each row set to 0."""
    if count >= values_BV.shape[1]:
        return values_BV
    index_BN = np.argpartition(-values_BV, count - 1, axis=1)[:, :count]
    kept_BV = np.zeros_like(values_BV)
    np.put_along_axis(kept_BV, index_BN, np.take_along_axis(values_BV, index_BN, axis=1), axis=1)
    return kept_BV


def _scale_to_unit(vectors_BD: Floats) -> Floats:
    """Return vectors with length 1; those without a length stay 0."""
    unit_BD: Floats = (vectors_BD / np.maximum(np.linalg.norm(vectors_BD, axis=1, keepdims=True), _MIN_NORM)).astype(np.float32)
    return unit_BD
