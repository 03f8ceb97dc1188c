"""The words of stair-mini: those of the classes, written by hand in `scripts/mini`, and those of the drawings it learns from.

Shape suffixes: K the 1,000 classes of ImageNet, O the 80 of COCO, V words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary, list_singulars
from stair_es.types import Floats

FOLDER = Path(__file__).parent / "mini"
FIRST = (1.0, 0.75, 0.4, 0.2)
"""Weight of the first basic, own and related word of a class, and of its context."""
DECAY = (0.9, 0.9, 0.95, 1.0)
"""What each later word of a group is multiplied with once more."""
_WORD = re.compile(r"[^\W\d_]+")
_ASCII = re.compile("[a-z]{3,}")


@dataclass(frozen=True)
class NamedClass:
    """A class of a network in words."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    """Basic, own, related and context words."""
    same: tuple[int, ...] = ()
    """Of a class of COCO: the classes of ImageNet that are the same thing."""

    @property
    def weights(self) -> dict[str, float]:
        """`{word: weight}`; the largest of several."""
        found: dict[str, float] = {}
        for words, first, decay in zip(self.groups, FIRST, DECAY, strict=True):
            for place, word in enumerate(words):
                found[word] = max(found.get(word, 0.0), first * decay**place)
        return found


def read_classes(path: Path) -> list[NamedClass]:
    """Return the classes of a file, in its order.

    Raises:
        SystemExit: If a line can't be read.
    """
    return [_read_class(line) for line in read_lines(path)]


def _read_class(line: str) -> NamedClass:
    name, _, rest = line.partition("=")
    words, _, same = rest.partition("|")
    groups = tuple(tuple(part.split()) for part in words.split("/"))
    if len(groups) != len(FIRST) or not groups[0]:
        raise SystemExit(f"not `NAME = basic / own / related / context`: {line!r}")
    return NamedClass(name.strip(), groups, tuple(_parse_numbers(same)))


def _parse_numbers(text: str) -> Iterator[int]:
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file without empty ones and comments."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]


def find_drawing_words(captions: Sequence[dict[str, object]], known: WholeWordVocabulary, english: Iterable[str]) -> list[str]:
    """Return the words of drawings that aren't known, in alphabetical order.

    Words of clip art, whose keywords are unreviewed, must be English.

    Args:
        captions: Rows of a small set with `captions`, `tags` and `source`.
        known: The words of the classes.
        english: What counts as English.
    """
    left_out = load_stop_words() | set(" ".join(read_lines(FOLDER / "drop.txt")).split())
    whole, kept = frozenset(english), set[str]()
    for row in captions:
        words = {word for text in _list_texts(row) for word in _WORD.findall(text.lower()) if _ASCII.fullmatch(word)}
        kept |= {
            word for word in words - left_out if known.find_word(word) < 0 and (row["source"] != "openclipart" or word in whole)
        }
    return sorted(word for word in kept if kept.isdisjoint(list_singulars(word)))


def _list_texts(row: dict[str, object]) -> Iterator[str]:
    for key in ("captions", "tags"):
        texts = row.get(key) or []
        assert isinstance(texts, list)
        yield from texts


def read_spellings(path: Path, words: Iterable[str]) -> dict[str, str]:
    """Return the spellings of a file whose word is in the vocabulary, and that are no words themselves."""
    there = frozenset(words)
    pairs = (tuple(part.strip() for part in line.split("=")) for line in read_lines(path))
    return {spelling: word for spelling, word in pairs if word in there and spelling not in there}


def build_vocabulary(classes: Sequence[NamedClass], drawn: Path, english: Iterable[str]) -> WholeWordVocabulary:
    """Return the words of all classes and of the drawings, in alphabetical order.

    Args:
        classes: Of both networks.
        drawn: The captions of the drawings, JSON Lines.
        english: See `find_drawing_words`.
    """
    seen = sorted({word for each in classes for word in each.weights})
    known = WholeWordVocabulary(seen, read_spellings(FOLDER / "spellings.txt", seen))
    rows = [json.loads(line) for line in drawn.read_text(encoding="utf-8").splitlines()]
    words = sorted({*seen, *find_drawing_words(rows, known, english)})
    return WholeWordVocabulary(words, read_spellings(FOLDER / "spellings.txt", words))


def build_table(classes: Sequence[NamedClass], vocabulary: WholeWordVocabulary) -> Floats:
    """Return the words of classes as a matrix `weights_KV`."""
    weights_KV = np.zeros((len(classes), len(vocabulary)), np.float32)
    for row, each in enumerate(classes):
        for word, weight in each.weights.items():
            weights_KV[row, vocabulary.index_of_word[word]] = weight
    return weights_KV
