"""The words that can be seen in pictures, and the captions in which a dense model reads them.

A bare noun is an unusual caption, so each word is also read in a caption that suits its kind, and the vectors are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.stop_words import MODEL_DATA, read_packaged_lines
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

WordKind: TypeAlias = Literal["thing", "scene", "activity", "attribute"]
WORD_KINDS: tuple[WordKind, ...] = get_args(WordKind)
WORD_KINDS_FILE = "word_kinds.txt"
_UNSEEN = "unseen"
"""Section of the file with the words that no picture shows."""
PROMPTS: Mapping[WordKind, tuple[str, ...]] = {
    "thing": ("{}", "a photo of a {}"),
    "scene": ("{}", "a view of the {}"),
    "activity": ("{}", "a photo of someone {}"),
    "attribute": ("{}", "a photo of something {}"),
}
"""Captions for each kind of word, which stands for `{}`."""


@lru_cache(maxsize=1)
def load_seen_words() -> Mapping[str, WordKind]:
    """Return the words of stair-mini that pictures can show, and their kinds."""
    sections = _read_sections()
    kinds = {word: kind for kind in WORD_KINDS for word in sections.get(kind, ())}
    unseen = frozenset(sections[_UNSEEN])
    return {word: kinds.get(word, "thing") for word in read_mini_artifacts().vocabulary.words if word not in unseen}


def _read_sections() -> dict[str, list[str]]:
    """Return the words of each section of the packaged file; those in none are things."""
    sections: dict[str, list[str]] = {}
    section: list[str] = []
    for line in read_packaged_lines(MODEL_DATA / WORD_KINDS_FILE):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            section += line.split()
    return sections


def build_word_vocabulary(words: Iterable[str]) -> WholeWordVocabulary:
    """Return a vocabulary of words, with the irregular plurals and other spellings that stair-mini knows for them."""
    unique = dict.fromkeys(words)
    known = read_mini_artifacts().vocabulary.spellings
    spellings = {spelling: word for spelling, word in known.items() if word in unique and spelling not in unique}
    return WholeWordVocabulary(tuple(unique), spellings)
