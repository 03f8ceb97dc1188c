"""Exact scores: dot products in float64, without an engine. Pure.

Shape suffixes: N items of the gallery, D dimensions of a dense vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stair_es.eval.metrics import Doubles
from stair_es.types import Floats, SparseVector


class InvertedIndex:
    """An inverted index in memory: the cost of a query is the number of postings of its tokens."""

    def __init__(self, vectors: Sequence[SparseVector]) -> None:
        """Invert the vectors of the gallery."""
        self._count = len(vectors)
        lists: dict[str, tuple[list[int], list[float]]] = {}
        for item, vector in enumerate(vectors):
            for token, weight in vector:
                items, weights = lists.setdefault(token, ([], []))
                items.append(item)
                weights.append(weight)
        self._lists = {token: (np.array(items), np.array(weights)) for token, (items, weights) in lists.items()}

    def compute_scores(self, query: SparseVector) -> Doubles:
        """Return the scores [N], summed in the order of the query's tokens, so that equal vectors get bitwise equal scores."""
        scores_N = np.zeros(self._count)
        for token, weight in query:
            postings = self._lists.get(token)
            if postings is not None:
                scores_N[postings[0]] += weight * postings[1]
        return scores_N


class DenseIndex:
    """Dense vectors of the gallery."""

    def __init__(self, vectors_ND: Floats) -> None:
        """Convert the vectors to float64."""
        self._vectors_ND = vectors_ND.astype(np.float64)

    def compute_scores(self, query_D: Floats) -> Doubles:
        """Return the scores [N]."""
        scores_N: Doubles = self._vectors_ND @ query_D.astype(np.float64)
        return scores_N
