"""Fit a taught word to the vectors of marked images. Pure.

The word is a non-negative logistic regression over the tokens of the model: images that show it against those that don't and
against a sample of the index, each group with a fixed total weight. Weights can't be negative, since a query can only add.
`benchmarks/teach.py` measures it; the constants were chosen on one half of its concepts.

Shape suffixes: N examples, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from stair_es.errors import UsageError
from stair_es.taught_words import MATCH_WEIGHT, MAX_TAUGHT_TOKENS, WORD_SCALE, TaughtMode
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

Matrix: TypeAlias = "NDArray[np.float64]"

_REGULARIZATION, _STEPS = 0.02, 300
_NO_SHARE = 0.5
"""Weight of all images that don't show it, with that of the sample and of the others as 1."""
_MAX_CANDIDATES = 128
"""Tokens that are fitted first, of which the heaviest are fitted again."""
_MAX_FOLDS = 8
_FOUND_SHARE = 2 / 3
"""Share of the marks that match if they are left out."""
_MAX_MATCH_SHARE, _TOKEN_SHARE = 0.05, 0.1
"""Largest share of the sample that matches, and the share that gets the token at all: what matches less ranks below."""


@dataclass(frozen=True, kw_only=True)
class FittedWord:
    """A word, fitted to marks."""

    tokens: dict[str, float]
    """Token -> weight, heaviest first, in steps of 1/`WORD_SCALE`; the heaviest is 1."""
    floor: float
    """Dot product up to which an image doesn't get the word."""
    full: float
    """Dot product from which it gets it with the weight 1."""
    mode: TaughtMode
    """Whether the marks that are left out rank higher with or without the model's vector of the word."""
    precision: float
    """Estimate of the share of right images among the matches: how high marks score if they are left out, as a share of how high
    they score otherwise, to the power of 1.5. `benchmarks/teach.py` compares it with the real share."""
    found_again: int
    """Number of marks that match if they are left out."""
    doubtful_yes: tuple[int, ...]
    """Places of the images that show it, but don't match, although they are marked."""
    matching_no: tuple[int, ...]
    """Places of the images that don't show it, and match nevertheless."""


@dataclass(frozen=True, kw_only=True)
class _Examples:
    """The vectors of images over some tokens."""

    tokens: Sequence[str]
    yes_NV: Matrix
    no_NV: Matrix
    sample_NV: Matrix

    def select_tokens(self, places: Sequence[int]) -> _Examples:
        return _Examples(
            tokens=[self.tokens[place] for place in places],
            yes_NV=self.yes_NV[:, places],
            no_NV=self.no_NV[:, places],
            sample_NV=self.sample_NV[:, places],
        )


def fit_word(
    yes: Sequence[SparseVector], no: Sequence[SparseVector], sample: Sequence[SparseVector], text: SparseVector | None = None
) -> FittedWord:
    """Fit a word to the images that show it, those that don't, and a sample of the others.

    Args:
        yes: Vectors of at least two images that show it.
        no: Vectors of images that don't.
        sample: Vectors of images of the index without marks.
        text: What the model's text encoder makes of the word, if anything.

    Raises:
        UsageError: If the images that show it have no token in common that tells them from the others.
    """
    examples = _choose_candidates(yes, no, sample)
    weights_V = _fit(examples)
    if not weights_V.any():
        raise UsageError(
            "the pictures have no word in common that tells them from the others",
            "Mark pictures that are more alike, or look at their words: stair-es inspect IMAGE",
            code="marks-have-nothing-in-common",
        )
    left_out_N, shares_N = _score_left_out(examples)
    marked_N, sample_N = examples.yes_NV @ weights_V, np.sort(examples.sample_NV @ weights_V)[::-1]
    threshold = _choose_threshold(shares_N, float(np.median(left_out_N * np.linalg.norm(weights_V))), sample_N)
    floor = min(float(sample_N[int(_TOKEN_SHARE * len(sample_N))]) if len(sample_N) else 0.0, 0.8 * threshold)
    ratio = float(left_out_N.mean() * np.linalg.norm(weights_V) / marked_N.mean())
    weights = dict(zip(examples.tokens, weights_V, strict=True))
    return FittedWord(
        tokens={token: weights[token] for token in sorted(weights, key=lambda token: (-weights[token], token)) if weights[token]},
        floor=round(floor, 4),
        full=round(floor + (threshold - floor) / MATCH_WEIGHT, 4),
        mode=_choose_mode(yes, sample, text, shares_N),
        precision=round(min(1.0, ratio) ** 1.5, 3),
        found_again=int((left_out_N * np.linalg.norm(weights_V) >= threshold).sum()),
        doubtful_yes=tuple(int(place) for place in np.flatnonzero(marked_N < threshold)),
        matching_no=tuple(int(place) for place in np.flatnonzero(examples.no_NV @ weights_V >= threshold)),
    )


def _choose_candidates(yes: Sequence[SparseVector], no: Sequence[SparseVector], sample: Sequence[SparseVector]) -> _Examples:
    """Choose the tokens that images which show it have more of than the sample."""
    tokens = sorted({token for vector in yes for token in vector.tokens})
    examples = _Examples(
        tokens=tokens, yes_NV=_build_rows(yes, tokens), no_NV=_build_rows(no, tokens), sample_NV=_build_rows(sample, tokens)
    )
    more_V = examples.yes_NV.mean(axis=0) - (examples.sample_NV.mean(axis=0) if sample else 0.0)
    return examples.select_tokens(sorted(np.argsort(-more_V, kind="stable")[:_MAX_CANDIDATES]))


def _build_rows(vectors: Sequence[SparseVector], tokens: Sequence[str]) -> Matrix:
    places = {token: place for place, token in enumerate(tokens)}
    rows_NV = np.zeros((len(vectors), len(tokens)))
    for row_V, vector in zip(rows_NV, vectors, strict=True):
        for token, weight in vector:
            if token in places:
                row_V[places[token]] = weight
    return rows_NV


def _fit(examples: _Examples, left_out: Sequence[int] = ()) -> Matrix:
    """Return the weights [V] of the tokens in steps of 1/`WORD_SCALE`, the heaviest 1; zeros if none tells the images apart."""
    yes_NV = np.delete(examples.yes_NV, left_out, axis=0)
    groups = (yes_NV, examples.no_NV, examples.sample_NV)
    weights_V = _solve(groups)
    kept = np.sort(np.argsort(-weights_V, kind="stable")[:MAX_TAUGHT_TOKENS])
    if (weights_V > 0).sum() > MAX_TAUGHT_TOKENS:
        refitted = _solve([group_NV[:, kept] for group_NV in groups])
        weights_V = np.zeros_like(weights_V)
        weights_V[kept] = refitted
    heaviest = weights_V.max(initial=0.0)
    return np.round(weights_V / heaviest * WORD_SCALE) / WORD_SCALE if heaviest > 0 else weights_V


def _solve(groups: Sequence[Matrix]) -> Matrix:
    """Return the weights [V] of a logistic regression with weights >= 0 and a free bias.

    By projected gradient descent with momentum (FISTA; Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm",
    2009).
    """
    sizes = [len(group_NV) for group_NV in groups]
    signs_N = np.repeat([1.0, -1.0, -1.0], sizes)
    importance_N = np.repeat([share / max(size, 1) for share, size in zip((1.0, _NO_SHARE, 1.0), sizes, strict=True)], sizes)
    inputs_NV = np.concatenate(groups)
    inputs_NV = np.column_stack([inputs_NV, np.ones(len(inputs_NV))])
    penalty_V = np.full(inputs_NV.shape[1], _REGULARIZATION)
    penalty_V[-1] = 0.0
    step = 1 / (0.25 * float(importance_N @ (inputs_NV**2).sum(axis=1)) + _REGULARIZATION)
    weights_V = ahead_V = np.zeros(inputs_NV.shape[1])
    momentum = 1.0
    for _ in range(_STEPS):
        errors_N = -importance_N * signs_N / (1 + np.exp(signs_N * (inputs_NV @ ahead_V)))
        next_V = ahead_V - step * (inputs_NV.T @ errors_N + penalty_V * ahead_V)
        next_V[:-1] = np.maximum(next_V[:-1], 0)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead_V = next_V + (momentum - 1) / following * (next_V - weights_V)
        weights_V, momentum = next_V, following
    return weights_V[:-1]


def _score_left_out(examples: _Examples) -> tuple[Matrix, Matrix]:
    """Score each marked image by a word of length 1 that was fitted without it.

    Returns:
        Its score, and the share of the sample that scores as high.
    """
    count = len(examples.yes_NV)
    folds = min(count, _MAX_FOLDS)
    scores_N, shares_N = np.zeros(count), np.ones(count)
    for fold in range(folds):
        places = list(range(fold, count, folds))
        weights_V = _fit(examples, places)
        if not weights_V.any():
            continue
        weights_V = weights_V / np.linalg.norm(weights_V)
        scores_N[places] = examples.yes_NV[places] @ weights_V
        sample_N = examples.sample_NV @ weights_V
        shares_N[places] = [(sample_N >= score).mean() if len(sample_N) else 0.0 for score in scores_N[places]]
    return scores_N, shares_N


def _choose_threshold(shares_N: Matrix, left_out: float, sample_N: Matrix) -> float:
    """Choose the score from which an image matches: most marks reach it if they are left out, and few others.

    Args:
        shares_N: The share of the sample that scores as high as each mark that is left out.
        left_out: The score of a mark that is left out.
        sample_N: The scores of the sample, highest first.
    """
    place = int(min(float(np.quantile(shares_N, _FOUND_SHARE)), _MAX_MATCH_SHARE) * len(sample_N))
    if place:
        return max(float(sample_N[place - 1]), 1 / WORD_SCALE)
    highest = float(sample_N[0]) if len(sample_N) else 0.0
    return max((highest + max(left_out, highest)) / 2, 1 / WORD_SCALE)


def _choose_mode(
    yes: Sequence[SparseVector], sample: Sequence[SparseVector], text: SparseVector | None, shares_N: Matrix
) -> TaughtMode:
    """Choose whether the model's vector of the word counts as well: if the marks rank as high by it alone."""
    if not text or not sample:
        return "replace"
    weights = text.to_dict()

    def score(vector: SparseVector) -> float:
        return sum(weights.get(token, 0.0) * weight for token, weight in vector)

    sample_scores = np.array([score(vector) for vector in sample])
    text_shares = [(sample_scores >= score(vector)).mean() for vector in yes]
    return "add" if np.median(text_shares) <= np.median(shares_N) else "replace"
