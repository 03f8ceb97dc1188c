"""The shipped arrays of the starter model, as `tools/build_starter.py` wrote them.

Shape suffixes: K the 1,000 ImageNet classes, E words kept for a class (64), D size of a text embedding (384),
T words of the token table, C classes kept for one of its words (8), V vocabulary (30,522).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stair_es.errors import ModelError
from stair_es.model.wordpiece import Vocabulary
from stair_es.types import Floats

DATA = Path(__file__).parent / "data"
WORDS_FILE, TABLE_FILE = "starter-words.safetensors", "starter-table.safetensors"
VOCABULARY_FILE, STOP_FILE = "vocab.txt", "stop_words.txt"

Doubles = NDArray[np.float64]
_REMEDY = "Install stair-es again."


@dataclass(frozen=True, kw_only=True)
class ClassWords:
    """Each ImageNet class as weights over the vocabulary, and as an embedding of the text network."""

    word_ids_KE: NDArray[np.uint16]
    weights_KE: NDArray[np.uint8]
    """In 1/255; 0 where a class has fewer words."""
    vectors_KD: NDArray[np.int8]
    scales_K: Floats
    vocabulary_size: int

    def words(self, classes_K: Doubles) -> Doubles:
        """`classes_K @ W`, [V]: the words of a weighting of the classes. Summed in one fixed order, so always the same bits."""
        values_KE = classes_K[:, None] * self.weights_KE * (1 / 255)
        words_V: Doubles = np.bincount(self.word_ids_KE.ravel(), values_KE.ravel(), self.vocabulary_size).astype(np.float64)
        return words_V

    @cached_property
    def mean(self) -> Doubles:
        """The mean class [V]: what a clueless network would say."""
        return self.words(np.full(len(self.word_ids_KE), 1 / len(self.word_ids_KE)))

    @cached_property
    def rarity(self) -> Doubles:
        """[V]: `idf^0.5` with `idf = log(K / df) / log(K)`, df the classes that have the word (at least 1)."""
        counts_V = np.bincount(self.word_ids_KE[self.weights_KE > 0], minlength=self.vocabulary_size)
        classes = len(self.word_ids_KE)
        rarity_V: Doubles = np.sqrt(np.log(classes / np.maximum(counts_V, 1)) / np.log(classes))
        return rarity_V

    @cached_property
    def embeddings(self) -> Floats:
        """Unit vectors [K, D], up to the int8 rounding."""
        embeddings_KD: Floats = self.vectors_KD * self.scales_K[:, None]
        return embeddings_KD


@dataclass(frozen=True, kw_only=True)
class TokenTable:
    """For each whole word, the classes nearest in the text network, and by how much they beat the next one."""

    token_ids_T: NDArray[np.uint16]
    """Ascending."""
    classes_TC: NDArray[np.uint16]
    excess_TC: NDArray[np.uint8]
    unit: float
    """What 1 in `excess_TC` is worth, as a cosine."""

    def excess(self, ids: list[int], classes: int) -> Doubles:
        """[K], summed over the words: how much each class is favoured."""
        total_K = np.zeros(classes)
        for token in ids:
            row = int(np.searchsorted(self.token_ids_T, token))
            if row < len(self.token_ids_T) and self.token_ids_T[row] == token:
                np.add.at(total_K, self.classes_TC[row], self.excess_TC[row] * self.unit)
        return total_K


def load_vocabulary(folder: Path = DATA) -> Vocabulary:
    """The vocabulary.

    Raises:
        ModelError: The packaged file is missing.
    """
    return Vocabulary(_lines(folder / VOCABULARY_FILE))


def load_stop_words(folder: Path = DATA) -> frozenset[str]:
    """The words that a query doesn't search for.

    Raises:
        ModelError: The packaged file is missing.
    """
    return frozenset(_lines(folder / STOP_FILE))


def load_class_words(vocabulary_size: int, folder: Path = DATA) -> ClassWords:
    """The class-to-word matrix.

    Raises:
        ModelError: The packaged file is missing or broken.
    """
    arrays = _arrays(folder / WORDS_FILE)
    return ClassWords(
        word_ids_KE=arrays["word_ids"],
        weights_KE=arrays["weights"],
        vectors_KD=arrays["vectors"],
        scales_K=arrays["scales"],
        vocabulary_size=vocabulary_size,
    )


def load_token_table(folder: Path = DATA) -> TokenTable:
    """The static token table.

    Raises:
        ModelError: The packaged file is missing or broken.
    """
    arrays = _arrays(folder / TABLE_FILE)
    return TokenTable(
        token_ids_T=arrays["token_ids"], classes_TC=arrays["classes"], excess_TC=arrays["excess"], unit=float(arrays["unit"][0])
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError as error:
        raise ModelError(f"the packaged file {path.name} can't be read: {error}", _REMEDY) from error


def _arrays(path: Path) -> dict[str, Any]:
    try:
        arrays: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the packaged file {path.name} can't be read: {error}", _REMEDY) from error
    return arrays
