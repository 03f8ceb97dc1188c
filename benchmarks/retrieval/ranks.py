"""Ranks of the right pictures and texts of a gallery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from harness.bootstrap import compute_interval
from numpy.typing import NDArray

from retrieval.galleries import Gallery
from stair_es.eval.metrics import RECALL_CUTS, compute_ranks
from stair_es.eval.models import ConseEncoder
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.types import SparseVector

Scores = NDArray[np.float64]
Ranks = NDArray[np.int64]


def compute_sparse_scores(texts: Sequence[SparseVector], images: Sequence[SparseVector]) -> Scores:
    """Return the exact dot products [queries, gallery] of the product's stored vectors and query vectors."""
    places: dict[str, int] = {}
    for vector in (*texts, *images):
        for word in vector.tokens:
            places.setdefault(word, len(places))
    left, right = (np.zeros((len(vectors), len(places))) for vectors in (texts, images))
    for rows, vectors in ((left, texts), (right, images)):
        for row, vector in zip(rows, vectors, strict=True):
            row[[places[word] for word in vector.tokens]] = vector.weights
    return np.round(left @ right.T, 10)  # weights have 5 decimals, so ties are exact


def compute_conse_scores(encoder: StairMiniEncoder, gallery: Gallery) -> Scores:
    """Return the cosines of dense ConSE: the same networks without words."""
    dense = ConseEncoder(encoder)
    texts = dense.encode_texts_dense(list(gallery.queries))
    return (texts @ dense.encode_images_dense(gallery.pixels_BHWC).T).astype(np.float64)


def compute_best_ranks(scores: Scores, gallery: Gallery) -> tuple[Ranks, Ranks]:
    """Return the rank of the best right image of each query, and of the best right text of each image."""
    concepts, query_concepts = np.array(gallery.concepts), np.array(list(gallery.queries.values()))
    to_image = [
        compute_ranks(row, np.flatnonzero(concepts == concept).tolist())[0]
        for row, concept in zip(scores, query_concepts, strict=True)
    ]
    to_text = [
        compute_ranks(row, np.flatnonzero(query_concepts == concept).tolist())[0]
        for row, concept in zip(scores.T, concepts, strict=True)
    ]
    return np.array(to_image), np.array(to_text)


def compute_recalls(found: Ranks) -> tuple[float, ...]:
    """Return R@1/5/10 in percent."""
    return tuple(round(100 * float((found <= cut).mean()), 1) for cut in RECALL_CUTS)


def compare_recalls(ours: Ranks, theirs: Ranks, cut: int) -> tuple[float, float, float]:
    """Return the gain of ours in points of R@cut, and its 95 % interval."""
    return tuple(round(value, 1) for value in compute_interval([ours <= cut], [theirs <= cut]))  # type: ignore[return-value]
