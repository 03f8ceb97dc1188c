"""Synthetic corpora for `query.py` and `query_bytes.py`: images of the starter model that nobody took.

    python benchmarks/query_corpus.py     # how far they resemble the real photos

A document is drawn as the starter makes one: from a posterior over the 1,000 classes, by the shipped class-to-word matrix. What
is real in a posterior is its profile, the sorted probabilities of one of 240 views of the bundled photos. What is drawn is which
class stands at which rank: the first by popularity (Zipf), the others by their likeness to the first, with as much noise as makes
neighbours as like as in the real posteriors. Batches have seeds of their own: a smaller corpus is the beginning of a larger one.

Shape suffixes: see `starter_data`; N documents, W words of a document (64), R ranks of a posterior that are kept (64).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from common import PHOTOS, options, publish
from numpy.typing import NDArray
from PIL import Image
from result import Result, Table
from stair_es.model.starter import IMAGE_SPEC, IMAGE_WORDS, Starter

from stair_es.model import starter_data
from stair_es.model.encoder import ModelSpec
from stair_es.model.minilm import softmax
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import Floats, Pixels, SparseVector

BATCH, RANKS, DENSE_RANKS = 1000, 64, 10
POPULARITY = 0.7  # exponent of Zipf's law over the classes
TEMPERATURE = 0.075  # of the likeness of classes within a posterior: fitted, see `main`
DENSE_NOISE = 0.35  # length of what is added to a dense vector of length 1
GAIN, DECIMALS = 30.0, 5  # as the starter has them

Words = NDArray[np.uint16]


def views() -> Pixels:
    """Six views of each bundled photo: whole, mirrored, and four crops."""
    made = []
    for path in sorted(PHOTOS.glob("*.jpg")):
        whole_HWC = decode(path.read_bytes(), IMAGE_SPEC, DecodeLimits()).pixels_HWC
        side = len(whole_HWC)
        made += [whole_HWC, whole_HWC[:, ::-1]]
        for share, y, x in ((0.75, 0.125, 0.125), (0.6, 0.0, 0.0), (0.6, 0.4, 0.4), (0.6, 0.2, 0.2)):
            box = tuple(int(side * edge) for edge in (x, y, x + share, y + share))
            made.append(np.asarray(Image.fromarray(whole_HWC).crop(box).resize((side, side), Image.Resampling.BICUBIC)))  # type: ignore[arg-type]
    return np.stack(made)


def real_posteriors() -> Floats:
    """[B, K]: what the starter's image network says of the views."""
    network = Starter(ModelSpec(name="starter")).image_network
    return np.stack([softmax(logits_K) for logits_K in network.see(views()).logits_BK])


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Consecutive documents of a corpus."""

    word_ids_NW: Words
    """Rows of the vocabulary, heaviest first."""
    weights_NW: Floats
    """0 where a document has fewer words."""
    classes_NC: NDArray[np.int16]
    """The likeliest classes, and their probabilities: what the dense vector is made of."""
    shares_NC: Floats

    def __len__(self) -> int:
        return len(self.word_ids_NW)

    def part(self, first: int, end: int) -> Documents:
        """Some of them."""
        return Documents(
            word_ids_NW=self.word_ids_NW[first:end],
            weights_NW=self.weights_NW[first:end],
            classes_NC=self.classes_NC[first:end],
            shares_NC=self.shares_NC[first:end],
        )


class Corpus:
    """Draws documents."""

    def __init__(self, posteriors_BK: Floats, *, seed: int = 5, temperature: float = TEMPERATURE) -> None:
        """Nothing is drawn yet.

        Args:
            posteriors_BK: Of real photos.
            seed: Another one is another corpus.
            temperature: How unlike the classes of one posterior are.
        """
        self.vocabulary = starter_data.load_vocabulary().words
        self.classes = starter_data.load_class_words(len(self.vocabulary))
        self._profiles_BK = -np.sort(-posteriors_BK, axis=1)
        self._seed = seed
        likeness_KK = self.classes.embeddings @ self.classes.embeddings.T / temperature
        np.fill_diagonal(likeness_KK, np.inf)
        self._likeness_KK = likeness_KK

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """How often each class is the first: Zipf's law, in an order that has nothing to do with the classes."""
        count = len(self.classes.word_ids_KE)
        weights = 1 / np.arange(1, count + 1) ** POPULARITY
        return np.random.default_rng(self._seed).permutation(weights / weights.sum())

    def batches(self, count: int) -> Iterator[Documents]:
        """The first `count` documents, `BATCH` at a time."""
        for first in range(0, count, BATCH):
            rng = np.random.default_rng((self._seed, 1, first))
            drawn = self.draw(rng.choice(len(self.popularity), BATCH, p=self.popularity), rng)
            yield drawn.part(0, count - first)

    def draw(self, first_N: NDArray[np.int64], rng: np.random.Generator) -> Documents:
        """Documents whose likeliest classes are `first_N`."""
        scores_NK = self._likeness_KK[first_N] + rng.gumbel(size=(len(first_N), len(self._likeness_KK)))
        classes_NR = np.argsort(-scores_NK, axis=1)[:, :RANKS]
        profiles_NK = self._profiles_BK[rng.integers(len(self._profiles_BK), size=len(first_N))]
        shares_NR = profiles_NK[:, :RANKS]
        floor_N = profiles_NK[:, RANKS:].mean(axis=1)  # the many classes at the end: each as likely as the other
        word_ids_NW, weights_NW = self._words(classes_NR, shares_NR - floor_N[:, None], floor_N)
        return Documents(
            word_ids_NW=word_ids_NW,
            weights_NW=weights_NW,
            classes_NC=classes_NR[:, :DENSE_RANKS].astype(np.int16),
            shares_NC=shares_NR[:, :DENSE_RANKS].astype(np.float32),
        )

    def dense(self, documents: Documents, first: int) -> Floats:
        """Unit vectors [N, 384]: the classes' text embeddings mixed as the words are (ConSE), plus noise."""
        rng = np.random.default_rng((self._seed, 2, first))
        mixed_ND = np.einsum("nc,ncd->nd", documents.shares_NC, self.classes.embeddings[documents.classes_NC])
        noise_ND = rng.standard_normal(mixed_ND.shape, np.float32)
        return _unit(_unit(mixed_ND) + DENSE_NOISE * _unit(noise_ND))

    def vectors(self, documents: Documents) -> Iterator[SparseVector]:
        """The documents as the product has them."""
        for ids_W, weights_W in zip(documents.word_ids_NW, documents.weights_NW, strict=True):
            words = [self.vocabulary[i] for i in ids_W[weights_W > 0]]
            weights = [round(float(weight), DECIMALS) for weight in weights_W[weights_W > 0]]
            yield SparseVector(tuple(words), tuple(weights))

    def _words(
        self, classes_NR: NDArray[np.int64], shares_NR: NDArray[np.float64], floor_N: NDArray[np.float64]
    ) -> tuple[Words, Floats]:
        """As `Starter._words_of_classes` has it, for many at a time and over the words that any class has."""
        used_U, columns_KE = self._used
        count = len(classes_NR)
        cells = (np.arange(count)[:, None, None] * len(used_U) + columns_KE[classes_NR]).ravel()
        values = (shares_NR[:, :, None] * self.classes.weights_KE[classes_NR] * (1 / 255)).ravel()
        words_NU = np.bincount(cells, values, count * len(used_U)).reshape(count, -1)
        mean_NU = (1 - len(self._likeness_KK) * floor_N)[:, None] * self.classes.mean[used_U]
        weights_NU = np.log1p(GAIN * np.maximum(words_NU - mean_NU, 0)) * self.classes.rarity[used_U]
        best_NW = np.argpartition(-weights_NU, IMAGE_WORDS, axis=1)[:, :IMAGE_WORDS]
        weights_NW = np.take_along_axis(weights_NU, best_NW, axis=1)
        order_NW = np.argsort(-weights_NW, axis=1, kind="stable")
        weights_NW = np.take_along_axis(weights_NW, order_NW, axis=1)
        rounded_NW = np.round(weights_NW / np.linalg.norm(weights_NW, axis=1, keepdims=True), DECIMALS)
        return used_U[np.take_along_axis(best_NW, order_NW, axis=1)].astype(np.uint16), rounded_NW.astype(np.float32)

    @cached_property
    def _used(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The words that any class has, and the class-to-word matrix in columns of these alone."""
        used_U, columns = np.unique(self.classes.word_ids_KE, return_inverse=True)
        return used_U.astype(np.int64), columns.reshape(self.classes.word_ids_KE.shape).astype(np.int64)


def load(count: int, folder: Path) -> tuple[Corpus, Documents]:
    """The first `count` documents, from `folder` if it has as many."""
    folder.mkdir(parents=True, exist_ok=True)
    posteriors = folder / "posteriors.npy"
    if not posteriors.exists():
        np.save(posteriors, real_posteriors())
    corpus = Corpus(np.load(posteriors))
    names = ("word_ids_NW", "weights_NW", "classes_NC", "shares_NC")
    files = {name: folder / f"{name}-{count}.npy" for name in names}
    if not all(file.exists() for file in files.values()):
        parts = list(corpus.batches(count))
        for name, file in files.items():
            np.save(file, np.concatenate([getattr(part, name) for part in parts]))
    return corpus, Documents(**{name: np.load(file) for name, file in files.items()})


def _unit(x_ND: Floats) -> Floats:
    unit_ND: Floats = (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)
    return unit_ND


def _figures(weights_NW: Floats, ids_NW: Words, near: tuple[float, ...]) -> list[str]:
    """One column of the comparison."""
    used = weights_NW > 0
    counts = np.sort(np.bincount(ids_NW[used]))[::-1] / len(weights_NW)
    dense_NV = np.zeros((len(weights_NW), int(ids_NW.max()) + 1), np.float32)
    np.put_along_axis(dense_NV, ids_NW.astype(np.int64), weights_NW, axis=1)
    dots = (dense_NV @ dense_NV.T)[np.triu_indices(len(dense_NV), 1)]
    return [
        " ".join(f"{value:.2f}" for value in near),
        " ".join(f"{np.mean(weights_NW[:, rank]):.3f}" for rank in (0, 1, 3, 7, 15, 31, 63)),
        f"{used.sum(1).mean():.1f}",
        f"{np.count_nonzero(counts)}",
        " ".join(f"{100 * counts[rank]:.0f}" for rank in (0, 3, 10, 31, 100, 316)),
        f"{dots.mean():.3f}, {np.percentile(dots, 90):.3f}, {np.percentile(dots, 99):.3f}",
    ]


def _near(classes_NR: NDArray[np.int64], embeddings_KD: Floats) -> tuple[float, ...]:
    first_ND = embeddings_KD[classes_NR[:, 0]]
    return tuple(float((first_ND * embeddings_KD[classes_NR[:, rank]]).sum(1).mean()) for rank in (1, 2, 3, 5, 9))


def main() -> None:
    """Compare the views with as many drawn documents whose likeliest classes are the same."""
    given = options(__doc__).parse_args()
    posteriors_BK = real_posteriors()
    starter, corpus = Starter(ModelSpec(name="starter")), Corpus(posteriors_BK)
    order_BK = np.argsort(-posteriors_BK, axis=1)
    ids = {word: i for i, word in enumerate(corpus.vocabulary)}
    real_ids_BW = np.zeros((len(posteriors_BK), IMAGE_WORDS), np.uint16)
    real_weights_BW = np.zeros(real_ids_BW.shape, np.float32)
    for row, vector in enumerate(starter.encode_images(views())):
        real_ids_BW[row, : len(vector)] = [ids[word] for word in vector.features]
        real_weights_BW[row, : len(vector)] = vector.weights
    drawn = corpus.draw(order_BK[:, 0], np.random.default_rng(1))
    embeddings_KD = corpus.classes.embeddings
    columns = [
        _figures(real_weights_BW, real_ids_BW, _near(order_BK, embeddings_KD)),
        _figures(drawn.weights_NW, drawn.word_ids_NW, _near(drawn.classes_NC.astype(np.int64), embeddings_KD)),
    ]
    rows = (
        "likeness of class 2 3 4 6 10 to the first (cosine)",
        "mean weight of word 1 2 4 8 16 32 64",
        "words an image",
        "distinct words",
        "% of images that have word 1 4 11 32 101 317 (by frequency)",
        "dot product of two images: mean, p90, p99",
    )
    lines = tuple((name, *both) for name, *both in zip(rows, *columns, strict=True))
    about = f"{len(posteriors_BK)} views of the bundled photos, and as many drawn documents"
    publish(Result(about=about, tables=(Table(head=("", "real", "drawn"), rows=lines),)), given.json)


if __name__ == "__main__":
    main()
