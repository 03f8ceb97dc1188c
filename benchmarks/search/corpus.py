"""Synthetic corpora for `query.py` and `query_bytes.py`: documents of imaginary photographs, as stair-mini would encode them.

stair-mini's own code computes a document from a posterior over the 1,000 classes and from the scores of the detector. Two
inputs are real: the profile of a posterior (the sorted probabilities of one of 240 views of the bundled photos), and the
highest score of the detector in that view. The class at each rank is random: the first by popularity (Zipf), the others by
their similarity to the first, with the amount of noise that makes neighboring classes as similar as in the real posteriors. The
detector finds one object, that of the first class, or nothing if COCO has no such object. The heads, which are for drawings,
are not used. Each batch has its own seed, so that a smaller corpus is the beginning of a larger one.

Shape suffixes: see `stair_mini.artifacts`; B views, N documents, W words of a document (at most 64), R kept ranks of a
posterior (64), C ranks used for a dense vector (10).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from harness.photos import PHOTOS, list_photos
from numpy.typing import NDArray
from PIL import Image

from stair_es.model.base import ModelSpec
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini.encoder import StairMiniEncoder, resize_square_pixels
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels, SparseVector

BATCH, RANKS, DENSE_RANKS = 1000, 64, 10
POPULARITY = 0.7  # exponent of Zipf's law over the classes
TEMPERATURE = 0.09  # of the similarities of classes within a posterior, fitted
DENSE_NOISE = 0.35  # length of what is added to a dense vector of length 1
DECIMALS = 5  # as in the model
Words = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Views:
    """Outputs of the networks for real photos."""

    posteriors_BK: NDArray[np.float64]
    scores_BO: NDArray[np.float64]
    """Scores of the detector."""


def crop_photos(photos: Path = PHOTOS) -> Pixels:
    """Return six views of each photo: whole, mirrored, and four crops."""
    made = []
    for path in list_photos(photos):
        whole_HWC = decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC
        side = len(whole_HWC)
        made += [whole_HWC, whole_HWC[:, ::-1]]
        for share, y, x in ((0.75, 0.125, 0.125), (0.6, 0.0, 0.0), (0.6, 0.4, 0.4), (0.6, 0.2, 0.2)):
            box = tuple(int(side * edge) for edge in (x, y, x + share, y + share))
            made.append(np.asarray(Image.fromarray(whole_HWC).crop(box).resize((side, side), Image.Resampling.BICUBIC)))  # type: ignore[arg-type]
    return np.stack(made)


def score_photos(photos: Path = PHOTOS) -> Views:
    """Return the outputs of the two image networks of stair-mini for the views."""
    encoder, pixels_BHWC = StairMiniEncoder(ModelSpec(name=KIND.card.name)), crop_photos(photos)
    logits_BK = encoder.image_network.run_network(resize_square_pixels(pixels_BHWC, CLASSIFIER_SIZE_PX)).logits_BK
    posteriors_BK = np.stack([compute_softmax(logits_K.astype(np.float64)) for logits_K in logits_BK])
    scores_BO = encoder.detector.score_classes(pixels_BHWC)
    return Views(posteriors_BK=posteriors_BK, scores_BO=scores_BO.astype(np.float64))


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Consecutive documents of a corpus."""

    word_ids_NW: Words
    """Rows of the vocabulary, heaviest first."""
    weights_NW: Floats
    """Weights; 0 if a document has fewer words."""
    classes_NC: NDArray[np.int16]
    """The likeliest classes and their probabilities, for the dense vector."""
    shares_NC: Floats

    def __len__(self) -> int:
        return len(self.word_ids_NW)

    def slice_rows(self, first: int, end: int) -> Documents:
        """Return a slice of the documents."""
        return Documents(
            word_ids_NW=self.word_ids_NW[first:end],
            weights_NW=self.weights_NW[first:end],
            classes_NC=self.classes_NC[first:end],
            shares_NC=self.shares_NC[first:end],
        )


class Corpus:
    """Generates documents."""

    def __init__(self, views: Views, *, seed: int = 5, temperature: float = TEMPERATURE) -> None:
        """Prepare the generator without generating documents.

        Args:
            views: Network outputs for views of real photos.
            seed: Seed of the corpus.
            temperature: Dissimilarity of the classes of one posterior.
        """
        self._encoder = StairMiniEncoder(ModelSpec(name=KIND.card.name))
        mini = self._encoder._artifacts
        self.vocabulary, self.classes, self.max_words = mini.vocabulary.words, mini.classes, mini.blend.image_max_tokens
        self.embeddings_KD = mini.arrays["embeddings.classes_KD"]
        self._ids = {word: place for place, word in enumerate(self.vocabulary)}
        self._thing_of = {kind: thing for thing, same in enumerate(mini.same_things) for kind in same}
        self._things = len(mini.same_things)
        self._profiles_BK = -np.sort(-views.posteriors_BK, axis=1)
        self._best_B = views.scores_BO.max(axis=1)
        self._seed = seed
        likeness_KK = self.embeddings_KD @ self.embeddings_KD.T / temperature
        np.fill_diagonal(likeness_KK, np.inf)
        self._likeness_KK = likeness_KK

    @cached_property
    def popularity(self) -> NDArray[np.float64]:
        """Frequency of each class as the first one: Zipf's law, in random order."""
        count = len(self.classes.word_ids_KE)
        weights = 1 / np.arange(1, count + 1) ** POPULARITY
        return np.random.default_rng(self._seed).permutation(weights / weights.sum())

    def draw_batches(self, count: int, start: int = 0) -> Iterator[Documents]:
        """Yield the documents from `start`, a multiple of `BATCH`, to `count`, in batches of `BATCH`."""
        for first in range(start, count, BATCH):
            rng = np.random.default_rng((self._seed, 1, first))
            drawn = self.draw(rng.choice(len(self.popularity), BATCH, p=self.popularity), rng)
            yield drawn.slice_rows(0, count - first)

    def draw(self, first_N: NDArray[np.int64], rng: np.random.Generator) -> Documents:
        """Generate documents whose likeliest classes are `first_N`."""
        scores_NK = self._likeness_KK[first_N] + rng.gumbel(size=(len(first_N), len(self._likeness_KK)))
        classes_NR = np.argsort(-scores_NK, axis=1)[:, :RANKS]
        views_N = rng.integers(len(self._profiles_BK), size=len(first_N))
        profiles_NK, best_N = self._profiles_BK[views_N], self._best_B[views_N]
        shares_NR = profiles_NK[:, :RANKS]
        floor_N = profiles_NK[:, RANKS:].mean(axis=1)  # the many last classes are equally likely
        posteriors_NK = np.repeat(floor_N[:, None], profiles_NK.shape[1], axis=1)
        np.put_along_axis(posteriors_NK, classes_NR, shares_NR, axis=1)
        word_ids_NW, weights_NW = self.tabulate(
            self._weigh_words(posterior_K, int(first), float(best))
            for posterior_K, first, best in zip(posteriors_NK, first_N, best_N, strict=True)
        )
        return Documents(
            word_ids_NW=word_ids_NW,
            weights_NW=weights_NW,
            classes_NC=classes_NR[:, :DENSE_RANKS].astype(np.int16),
            shares_NC=shares_NR[:, :DENSE_RANKS].astype(np.float32),
        )

    def make_dense_vectors(self, documents: Documents, first: int) -> Floats:
        """Return unit vectors [N, 384]: the classes' text embeddings mixed like the words (ConSE), plus noise."""
        rng = np.random.default_rng((self._seed, 2, first))
        mixed_ND = np.einsum("nc,ncd->nd", documents.shares_NC, self.embeddings_KD[documents.classes_NC])
        noise_ND = rng.standard_normal(mixed_ND.shape, np.float32)
        return _normalize(_normalize(mixed_ND) + DENSE_NOISE * _normalize(noise_ND))

    def make_vectors(self, documents: Documents) -> Iterator[SparseVector]:
        """Yield the vectors of the documents in the product's form."""
        for ids_W, weights_W in zip(documents.word_ids_NW, documents.weights_NW, strict=True):
            words = [self.vocabulary[i] for i in ids_W[weights_W > 0]]
            weights = [round(float(weight), DECIMALS) for weight in weights_W[weights_W > 0]]
            yield SparseVector(tuple(words), tuple(weights))

    def tabulate(self, vectors: Iterable[SparseVector]) -> tuple[Words, Floats]:
        """Return the words [N, W] of vectors and their weights [N, W], padded with 0."""
        listed = list(vectors)
        word_ids_NW = np.zeros((len(listed), self.max_words), np.uint16)
        weights_NW = np.zeros(word_ids_NW.shape, np.float32)
        for row, vector in enumerate(listed):
            word_ids_NW[row, : len(vector)] = [self._ids[word] for word in vector.tokens]
            weights_NW[row, : len(vector)] = vector.weights
        return word_ids_NW, weights_NW

    def _weigh_words(self, posterior_K: NDArray[np.float64], first: int, score: float) -> SparseVector:
        """Return the words of a photograph, computed by the model's code; `score` is the detector's for the object `first`."""
        scores_O = np.zeros(self._things)
        if first in self._thing_of:
            scores_O[self._thing_of[first]] = score
        return self._encoder._build_vector(weigh_without_scenes(self._encoder, posterior_K, scores_O))


def weigh_without_scenes(
    encoder: StairMiniEncoder, posterior_K: NDArray[np.float64], scores_O: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights [V] of a photograph in which no scene is found."""
    return encoder._weigh_recognized(encoder._weigh_classes(posterior_K, photo_share=1.0), posterior_K, scores_O)


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Add `--photos` and `--cache`."""
    parser.add_argument(
        "--photos",
        type=Path,
        default=PHOTOS,
        metavar="FOLDER",
        help="photos that the documents are like (default: the bundled ones)",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora", help="cache of the generated corpora"
    )


def load_corpus(count: int, folder: Path, photos: Path = PHOTOS) -> tuple[Corpus, Documents]:
    """Return the first `count` documents that are like `photos`, from `folder` if it has as many."""
    folder = folder / KIND.card.model_id / ("" if photos.resolve() == PHOTOS.resolve() else photos.name)
    folder.mkdir(parents=True, exist_ok=True)
    seen = {name: folder / f"{name}.npy" for name in ("posteriors_BK", "scores_BO")}
    if not all(file.exists() for file in seen.values()):
        views = score_photos(photos)
        for name, file in seen.items():
            np.save(file, getattr(views, name))
    corpus = Corpus(Views(**{name: np.load(file) for name, file in seen.items()}))
    names = ("word_ids_NW", "weights_NW", "classes_NC", "shares_NC")
    files = {name: folder / f"{name}-{count}.npy" for name in names}
    if not all(file.exists() for file in files.values()):
        parts = list(corpus.draw_batches(count))
        for name, file in files.items():
            np.save(file, np.concatenate([getattr(part, name) for part in parts]))
    return corpus, Documents(**{name: np.load(file) for name, file in files.items()})


def _normalize(x_ND: Floats) -> Floats:
    unit_ND: Floats = (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)).astype(np.float32)
    return unit_ND
