"""The queries of `query.py`, and their exact answers.

Texts are the captions of the bundled photos, then the heaviest words of one or two classes, drawn like the classes of
documents, encoded with stair-mini's text tower. `TEXT` has all of their tokens (about 42, at most 48), as users' searches do;
queries of up to 24 tokens have the heaviest ones. Queries of 64 and 128 tokens are like those of a model distilled without
training: the words of a list that are most similar to the text, weighted by their similarity, where label scoring takes its
cube. The list consists of all words of the documents' classes. `IMAGE` is a photograph that isn't in the corpus, with
all of its tokens. The dense query is the vector of the same text or image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from harness.photos import read_captions
from numpy.typing import NDArray

from search.corpus import DECIMALS, Corpus, Words
from stair_es.eval.models import ConseEncoder
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.stair_mini.plugin import KIND
from stair_es.types import Floats, SparseVector

K = 10
TEXT, IMAGE = 1 << 15, 1 << 16
"""Represent all tokens of a text, and of an image, among the numbers of tokens, and sort last."""
QUERY_SIZES = (3, 10, 24, TEXT, IMAGE)
SIMILAR_SIZES = (64, 128)
"""Numbers of tokens of texts that are encoded by similarity."""
NINE_BITS = 2**-8
"""Largest relative loss of a score by the engine's rounding. Documents with a smaller difference may change places."""
_SEED = 11
_FIRST_UNUSED = 900_000_000  # beyond the largest corpus


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Queries with the same number of tokens, or fewer if the text has fewer; `TEXT` and `IMAGE` mean all tokens."""

    size: int
    vectors: tuple[SparseVector, ...]
    dense_QD: Floats


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The exact answer to one query."""

    scores_N: NDArray[np.float64]
    count: int
    """The ten best, or fewer if fewer documents match."""
    least: float
    """Score of the tenth best."""

    def compute_recall(self, found: Sequence[int], *, slack: float = 1e-9) -> float:
        """Return the found share of the ten best. Any document counts whose score is at most `slack` below the tenth best."""
        right = sum(bool(self.scores_N[row] >= self.least * (1 - slack)) for row in found[: self.count])
        return right / self.count if self.count else 1.0


def make_texts(corpus: Corpus, count: int) -> list[str]:
    """Return the captions, then generated texts."""
    made = list(read_captions().values())
    rng = np.random.default_rng(_SEED)
    while len(made) < count:
        drawn = rng.choice(len(corpus.popularity), 1 + int(rng.random() < 0.5), p=corpus.popularity, replace=False)
        made.append(" and ".join(_name_class(corpus, row, 1 + int(rng.integers(2))) for row in drawn))
    return made[:count]


def weigh_similar_words(texts_QD: Floats, words_VD: Floats, words: Sequence[str], size: int) -> tuple[SparseVector, ...]:
    """Return the words that are most similar to each text, weighted by their similarity if it is above 0."""
    made = []
    for similarities_V in (texts_QD @ words_VD.T).astype(np.float64).round(DECIMALS):
        best = np.argsort(-similarities_V, kind="stable")[:size]
        best = best[similarities_V[best] > 0]
        made.append(SparseVector(tuple(words[place] for place in best), tuple(similarities_V[best].tolist())))
    return tuple(made)


def draw_image_queries(corpus: Corpus, count: int) -> Queries:
    """Generate images that are in no corpus."""
    rng = np.random.default_rng((_SEED, _FIRST_UNUSED))
    drawn = corpus.draw(rng.choice(len(corpus.popularity), count, p=corpus.popularity), rng)
    return Queries(
        size=IMAGE, vectors=tuple(corpus.make_vectors(drawn)), dense_QD=corpus.make_dense_vectors(drawn, _FIRST_UNUSED)
    )


def make_queries(corpus: Corpus, sizes: Sequence[int], count: int) -> list[Queries]:
    """Return queries for each number of tokens."""
    texts = make_texts(corpus, count)
    encoder = StairMiniEncoder(ModelSpec(name=KIND.card.name))
    dense = ConseEncoder(encoder)
    vectors, dense_QD = encoder.encode_texts(texts), dense.encode_texts_dense(texts).astype(np.float32)
    similar: tuple[SparseVector, ...] = ()
    if longest := max((size for size in sizes if size in SIMILAR_SIZES), default=0):
        words = [corpus.vocabulary[i] for i in np.unique(corpus.classes.word_ids_KE[corpus.classes.weights_KE > 0])]
        similar = weigh_similar_words(dense_QD, dense.encode_texts_dense(words), words, longest)
    made = []
    for size in sizes:
        if size == IMAGE:
            made.append(draw_image_queries(corpus, count))
        else:
            chosen = similar if size in SIMILAR_SIZES else vectors
            made.append(Queries(size=size, vectors=tuple(vector.top(size) for vector in chosen), dense_QD=dense_QD))
    return made


class ExactSearch:
    """All dot products, in double precision, by posting lists."""

    def __init__(self, vocabulary: Sequence[str], word_ids_NW: Words, weights_NW: Floats) -> None:
        """Sort the documents' tokens, given as in `Documents`."""
        used = np.flatnonzero(weights_NW)
        flat = word_ids_NW.ravel()[used]
        order = np.argsort(flat, kind="stable")
        self._rows = (used[order] // word_ids_NW.shape[1]).astype(np.int32)
        self._weights = weights_NW.ravel()[used[order]].astype(np.float64).round(5)
        self._starts = np.searchsorted(flat[order], np.arange(len(vocabulary) + 1))
        self._ids = {word: i for i, word in enumerate(vocabulary)}
        self._count = len(word_ids_NW)

    def count_postings(self, vector: SparseVector) -> int:
        """Return how many documents have each token of a query, summed: what an engine reads that skips nothing."""
        return sum(int(self._starts[self._ids[word] + 1] - self._starts[self._ids[word]]) for word in vector.tokens)

    def compute_truth(self, vector: SparseVector) -> Truth:
        """Return the scores of all documents."""
        scores_N = np.zeros(self._count)
        for word, weight in vector:
            first, end = self._starts[self._ids[word]], self._starts[self._ids[word] + 1]
            scores_N[self._rows[first:end]] += weight * self._weights[first:end]  # a document has each word once
        return _build_truth(scores_N)


def compute_dense_truth(documents_ND: Floats, query_D: Floats) -> Truth:
    """Compute the exact answer for dense vectors."""
    return _build_truth((documents_ND @ query_D).astype(np.float64))


def _build_truth(scores_N: NDArray[np.float64]) -> Truth:
    count = min(K, int(np.count_nonzero(scores_N > 0)))
    least = float(np.partition(scores_N, -count)[-count]) if count else 0.0
    return Truth(scores_N=scores_N, count=count, least=least)


def _name_class(corpus: Corpus, row: int, words: int) -> str:
    """Return the heaviest words of a class."""
    order = np.argsort(-corpus.classes.weights_KE[row].astype(int), kind="stable")
    names = [corpus.vocabulary[corpus.classes.word_ids_KE[row, column]] for column in order]
    return " ".join([name for name in names if name.isalpha()][:words])
