"""The expected ranking: all documents scored in float64, within the precision of an engine.

Engines keep 9 significant bits of a document's weight, truncated, and count in float32. A score is therefore within
[exact x (1 - 2^-8), exact x (1 + 1e-6)]. `find_errors` relies on this: if every score is within its bounds, the order is that of
the scores and no better one is missing, then only documents whose exact scores differ by less than the tolerance can have
changed places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stair_es.types import SparseVector

Doubles: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Ranking: TypeAlias = Sequence[tuple[str, float]]
"""(id, score), best first."""

TRUNCATION = 2.0**-8
ROUNDING = 1e-6


@dataclass(frozen=True)
class Bounds:
    """Bounds of each document's score, and which documents match. Shapes: [documents]."""

    low_N: Doubles
    high_N: Doubles
    part_N: Flags

    def select(self, part_N: Flags) -> Bounds:
        """Return the bounds of some of the documents."""
        return Bounds(self.low_N, self.high_N, self.part_N & part_N)


class Oracle:
    """Exact scores of documents."""

    def __init__(self, documents: Mapping[str, SparseVector]) -> None:
        self.ids = list(documents)
        self.places = {id_: row for row, id_ in enumerate(self.ids)}
        words = sorted({word for vector in documents.values() for word, _ in vector})
        self.columns = {word: column for column, word in enumerate(words)}
        self.weights_NV = np.zeros((len(self.ids), len(words)))
        for row, vector in enumerate(documents.values()):
            for word, weight in vector:
                self.weights_NV[row, self.columns[word]] = weight

    @cached_property
    def _truncated_weights(self) -> Doubles:
        """The weights as an engine keeps them: the upper half of float32."""
        bits_NV = self.weights_NV.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF_8000)
        return bits_NV.view(np.float32).astype(np.float64)

    def get_weights(self, word: str) -> Doubles:
        """Return the weight of a token in each document; 0 if it is absent."""
        column = self.columns.get(word)
        return np.zeros(len(self.ids)) if column is None else self.weights_NV[:, column]

    def _select_columns(self, vector: SparseVector) -> tuple[list[int], Doubles]:
        pairs = [(self.columns[word], weight) for word, weight in vector if word in self.columns]
        return [column for column, _ in pairs], np.array([weight for _, weight in pairs])

    def compute_scores(self, vector: SparseVector) -> Doubles:
        """Return the dot product with each document."""
        columns, weights = self._select_columns(vector)
        return np.asarray(self.weights_NV[:, columns] @ weights)

    def compute_truncated(self, vector: SparseVector) -> Doubles:
        """Return the dot products with the weights as an engine stores them."""
        columns, weights = self._select_columns(vector)
        return np.asarray(self._truncated_weights[:, columns] @ weights)

    def find_matches(self, vector: SparseVector) -> Flags:
        """Return which documents have a token in common with the vector."""
        return np.asarray((self.weights_NV[:, self._select_columns(vector)[0]] > 0).any(axis=1))

    def compute_bounds(self, vector: SparseVector) -> Bounds:
        """Return the bounds of the scores of a vector."""
        exact_N = self.compute_scores(vector)
        return Bounds(exact_N * (1 - TRUNCATION), exact_N * (1 + ROUNDING), self.find_matches(vector))

    def find_errors(self, ranking: Ranking, bounds: Bounds, k: int) -> list[str]:
        """Return what is wrong with the `k` best hits; empty if they are correct."""
        problems = []
        rows_K = np.array([self.places[id_] for id_, _ in ranking], np.intp)
        scores_K = np.array([score for _, score in ranking])
        matching = int(bounds.part_N.sum())
        if len(np.unique(rows_K)) != len(rows_K):
            problems.append("a document comes twice")
        if len(rows_K) != min(k, matching):
            problems.append(f"{len(rows_K)} hits, of {matching} documents that take part, for k={k}")
        problems += [f"{self.ids[row]} takes no part" for row in rows_K[~bounds.part_N[rows_K]]]
        low_K, high_K = bounds.low_N[rows_K], bounds.high_N[rows_K]
        for rank in np.flatnonzero(~((low_K <= scores_K) & (scores_K <= high_K))).tolist():
            problems.append(f"{ranking[rank]} is not within {low_K[rank]}..{high_K[rank]}")
        if (np.diff(scores_K) > 0).any():
            problems.append("not in the order of the scores")
        missing = bounds.part_N.copy()
        missing[rows_K] = False
        if len(rows_K) and missing.any():
            best = int(np.flatnonzero(missing)[np.argmax(bounds.low_N[missing])])
            if bounds.low_N[best] > scores_K[-1] * (1 + ROUNDING):
                problems.append(
                    f"{self.ids[best]} is missing: at least {bounds.low_N[best]!r}, the last hit has {scores_K[-1]!r}"
                )
        return problems
