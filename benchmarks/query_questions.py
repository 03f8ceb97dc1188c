"""What `query.py` asks, and the exact answers.

Up to 24 words a question is a text: the bundled photos' captions, then the heaviest words of one or two classes, drawn as the
documents' classes are, all through stair-mini's text tower (about 36 words of a text, at most 48), cut to the heaviest. With
`IMAGE_WORDS` it is a photograph that isn't in the corpus, with all words that it has. The dense question is the same text's or
image's vector.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from common import PHOTOS
from numpy.typing import NDArray
from query_corpus import Corpus, Documents

from stair_es.eval.dense import ConseEncoder
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.stair_mini.plugin import KIND
from stair_es.types import Floats, SparseVector

K = 10
IMAGE_WORDS = 64
"""No image has more: among numbers of words it stands for all words of an image, however many."""
FEATURES = (3, 10, 24, IMAGE_WORDS)
NINE_BITS = 2**-8
"""What an engine's rounding of a weight can take from a score: documents that are nearer to each other may change places."""
_SEED = 11
_FIRST_UNUSED = 900_000_000  # where no corpus reaches


@dataclass(frozen=True, kw_only=True)
class Questions:
    """As many words each, unless the text gives fewer; with `IMAGE_WORDS` all of an image."""

    features: int
    vectors: tuple[SparseVector, ...]
    dense_QD: Floats


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The exact answer to one question."""

    scores_N: NDArray[np.float64]
    count: int
    """Ten, unless fewer documents have anything in common with the question."""
    least: float
    """Score of the last of them."""

    def recall(self, found: Sequence[int], *, slack: float = 1e-9) -> float:
        """The share of the ten best that was found; any counts that is not further below the last of them than `slack`."""
        right = sum(bool(self.scores_N[row] >= self.least * (1 - slack)) for row in found[: self.count])
        return right / self.count if self.count else 1.0


def texts(corpus: Corpus, count: int) -> list[str]:
    """The captions, then drawn ones."""
    lines = (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line)["caption"] for line in lines]
    rng = np.random.default_rng(_SEED)
    while len(made) < count:
        drawn = rng.choice(len(corpus.popularity), 1 + int(rng.random() < 0.5), p=corpus.popularity, replace=False)
        made.append(" and ".join(_name(corpus, row, 1 + int(rng.integers(2))) for row in drawn))
    return made[:count]


def by_text(corpus: Corpus, count: int) -> tuple[tuple[SparseVector, ...], Floats]:
    """The texts as the product encodes them, and as MiniLM does."""
    asked = texts(corpus, count)
    encoder = StairMiniEncoder(ModelSpec(name=KIND.card.name))
    return tuple(encoder.encode_texts(asked)), ConseEncoder(encoder).encode_texts_dense(asked).astype(np.float32)


def by_image(corpus: Corpus, count: int) -> Questions:
    """Images that no corpus has."""
    rng = np.random.default_rng((_SEED, _FIRST_UNUSED))
    drawn = corpus.draw(rng.choice(len(corpus.popularity), count, p=corpus.popularity), rng)
    return Questions(features=IMAGE_WORDS, vectors=tuple(corpus.vectors(drawn)), dense_QD=corpus.dense(drawn, _FIRST_UNUSED))


def all_questions(corpus: Corpus, features: Sequence[int], count: int) -> list[Questions]:
    """Questions for each number of features."""
    vectors, dense_QD = by_text(corpus, count)
    return [
        by_image(corpus, count)
        if wanted == IMAGE_WORDS
        else Questions(features=wanted, vectors=tuple(vector.top(wanted) for vector in vectors), dense_QD=dense_QD)
        for wanted in features
    ]


class Exact:
    """All dot products, in double precision, by posting lists."""

    def __init__(self, corpus: Corpus, documents: Documents) -> None:
        """Sorts the documents' words."""
        used = np.flatnonzero(documents.weights_NW)
        flat = documents.word_ids_NW.ravel()[used]
        order = np.argsort(flat, kind="stable")
        self._rows = (used[order] // documents.word_ids_NW.shape[1]).astype(np.int32)
        self._weights = documents.weights_NW.ravel()[used[order]].astype(np.float64).round(5)
        self._starts = np.searchsorted(flat[order], np.arange(len(corpus.vocabulary) + 1))
        self._ids = {word: i for i, word in enumerate(corpus.vocabulary)}
        self._count = len(documents)

    def truth(self, vector: SparseVector) -> Truth:
        """The scores of all documents."""
        scores_N = np.zeros(self._count)
        for word, weight in vector:
            first, end = self._starts[self._ids[word]], self._starts[self._ids[word] + 1]
            scores_N[self._rows[first:end]] += weight * self._weights[first:end]  # a document has a word once
        return _truth(scores_N)


def dense_truth(documents_ND: Floats, question_D: Floats) -> Truth:
    """The same for dense vectors."""
    return _truth((documents_ND @ question_D).astype(np.float64))


def _truth(scores_N: NDArray[np.float64]) -> Truth:
    count = min(K, int(np.count_nonzero(scores_N > 0)))
    least = float(np.partition(scores_N, -count)[-count]) if count else 0.0
    return Truth(scores_N=scores_N, count=count, least=least)


def _name(corpus: Corpus, row: int, words: int) -> str:
    """The heaviest words of a class."""
    order = np.argsort(-corpus.classes.weights_KE[row].astype(int), kind="stable")
    names = [corpus.vocabulary[corpus.classes.word_ids_KE[row, column]] for column in order]
    return " ".join([name for name in names if name.isalpha()][:words])
