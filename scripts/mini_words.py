"""Build the vocabulary of stair-mini: handwritten words of the classes in `scripts/mini`, and words of the training drawings.

Shape suffixes: K the 1,000 classes of ImageNet, O the 80 classes of COCO, V words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary, list_singulars
from stair_es.types import Floats

FOLDER = Path(__file__).parent / "mini"
FIRST_WEIGHTS = (1.0, 0.75, 0.4, 0.2)
"""Weight of the first basic, own and related word of a class, and of its context."""
DECAY = (0.9, 0.9, 0.95, 1.0)
"""Factor from each word of a group to the next."""
_WORD = re.compile(r"[^\W\d_]+")
_ASCII = re.compile("[a-z]{3,}")
_MIN_EMOJI, _MIN_CLIP_ART = 1, 1


@dataclass(frozen=True)
class NamedClass:
    """A class of an image network and its words."""

    name: str
    groups: tuple[tuple[str, ...], ...]
    """Basic, own, related and context words."""
    same: tuple[int, ...] = ()
    """For a class of COCO: the classes of ImageNet that are the same thing."""

    @property
    def weights(self) -> dict[str, float]:
        """Return `{word: weight}`; a word in several groups has its largest weight."""
        found: dict[str, float] = {}
        for words, first, decay in zip(self.groups, FIRST_WEIGHTS, DECAY, strict=True):
            for place, word in enumerate(words):
                found[word] = max(found.get(word, 0.0), first * decay**place)
        return found

    @property
    def specific_words(self) -> frozenset[str]:
        """Return the basic and own words, which name the thing; the others are general."""
        return frozenset(word for words in self.groups[:2] for word in words)


def read_classes(path: Path) -> list[NamedClass]:
    """Return the classes of a file, in its order.

    Raises:
        SystemExit: If a line can't be parsed.
    """
    return [_parse_class(line) for line in read_lines(path)]


def _parse_class(line: str) -> NamedClass:
    name, _, rest = line.partition("=")
    words, _, same = rest.partition("|")
    groups = tuple(tuple(part.split()) for part in words.split("/"))
    if len(groups) != len(FIRST_WEIGHTS) or not groups[0]:
        raise SystemExit(f"not `NAME = basic / own / related / context`: {line!r}")
    return NamedClass(name.strip(), groups, tuple(_parse_ranges(same)))


def _parse_ranges(text: str) -> Iterator[int]:
    for part in text.split():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file without comments and blank lines."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]


def find_drawing_words(captions: Sequence[dict[str, object]], known: WholeWordVocabulary, english: Iterable[str]) -> list[str]:
    """Return the unknown words of drawings, in alphabetical order.

    Takes all words of emoji, but only English words of clip art, whose keywords are unreviewed.

    Args:
        captions: Rows of a small set with `captions`, `tags` and `source`.
        known: The words of the classes.
        english: The words that count as English.
    """
    emoji, clip_art = Counter[str](), Counter[str]()
    left_out = load_stop_words() | set(" ".join(read_lines(FOLDER / "drop.txt")).split())
    for row in captions:
        words = {word for text in _iterate_texts(row) for word in _WORD.findall(text.lower()) if _ASCII.fullmatch(word)}
        (clip_art if row["source"] == "openclipart" else emoji).update(
            word for word in words - left_out if known.find_word(word) < 0
        )
    whole = frozenset(english)
    kept = {word for word, count in emoji.items() if count >= _MIN_EMOJI}
    kept |= {word for word, count in clip_art.items() if count >= _MIN_CLIP_ART and word in whole}
    return sorted(word for word in kept if kept.isdisjoint(list_singulars(word)))


def _iterate_texts(row: dict[str, object]) -> Iterator[str]:
    for key in ("captions", "tags"):
        texts = row.get(key) or []
        assert isinstance(texts, list)
        yield from texts


def read_spellings(path: Path, words: Iterable[str]) -> dict[str, str]:
    """Return the spellings of words in the vocabulary, without those that are words themselves."""
    vocabulary = frozenset(words)
    pairs = (tuple(part.strip() for part in line.split("=")) for line in read_lines(path))
    return {spelling: word for spelling, word in pairs if word in vocabulary and spelling not in vocabulary}


def read_never_added(words: Iterable[str]) -> frozenset[str]:
    """Return the words of a vocabulary that a text has only if it names them."""
    return frozenset(" ".join(read_lines(FOLDER / "never_added.txt")).split()) & frozenset(words)


def build_vocabulary(classes: Sequence[NamedClass], drawn: Path, english: Iterable[str]) -> WholeWordVocabulary:
    """Return the words of all classes and of the drawings, in alphabetical order.

    Args:
        classes: The classes of both networks.
        drawn: JSON Lines with the captions of the drawings.
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
