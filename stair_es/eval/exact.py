"""Exact scores: dot products in float64 of the vectors as they are, without an engine. Pure.

Shape suffixes: N items of the gallery, D dimensions of a dense vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stair_es.eval.metrics import Doubles
from stair_es.types import Floats, SparseVector


class Postings:
    """An inverted index in memory: a query costs as much as its words have items."""

    def __init__(self, vectors: Sequence[SparseVector]) -> None:
        """Turn the vectors of the gallery over."""
        self._count = len(vectors)
        lists: dict[str, tuple[list[int], list[float]]] = {}
        for item, vector in enumerate(vectors):
            for word, weight in vector:
                items, weights = lists.setdefault(word, ([], []))
                items.append(item)
                weights.append(weight)
        self._lists = {word: (np.array(items), np.array(weights)) for word, (items, weights) in lists.items()}

    def scores(self, query: SparseVector) -> Doubles:
        """[N]: summed in the order of the query's words, so that equal vectors get equal scores to the last bit."""
        scores_N = np.zeros(self._count)
        for word, weight in query:
            found = self._lists.get(word)
            if found is not None:
                scores_N[found[0]] += weight * found[1]
        return scores_N


class DenseGallery:
    """Dense vectors of the gallery."""

    def __init__(self, vectors_ND: Floats) -> None:
        """Widen them."""
        self._vectors_ND = vectors_ND.astype(np.float64)

    def scores(self, query_D: Floats) -> Doubles:
        """[N]."""
        scores_N: Doubles = self._vectors_ND @ query_D.astype(np.float64)
        return scores_N
