"""The table of stair-mini: what each word and phrase means without the text network.

Formulas are in `docs/stair-mini.md`; rows are computed when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping

import numpy as np

from stair_es.model.stair_mini.artifacts import MINI_CARD, MiniArtifacts
from stair_es.model.stair_mini.text_reader import LEAD_INS, TextReader
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.token_table import TableRow, TokenTable, split_words
from stair_es.model.vocabularies.whole_words import NEVER_JOINED, WholeWordVocabulary, list_plurals
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

_SCALE = 1000
"""Weights are integers, in thousandths."""
_MIN_PART_LENGTH = 2
"""Shortest part of a vocabulary word that people write as two words: `clown fish`."""


class MiniTableRows(Mapping[str, TableRow]):
    """Rows by phrase.

    Vocabulary words with their spellings, plurals and translations, in one word or two, BERT's words that are near to any, and
    `photo of` without a token.
    """

    def __init__(self, reader: TextReader, mini: MiniArtifacts) -> None:
        """Find all phrases."""
        pieces, stop_words = load_wordpiece_vocabulary(), load_stop_words()
        self._reader, self._mini = reader, mini
        near = [pieces.tokens[piece] for piece in mini.table.token_ids_T]
        forms, translations = _find_forms(mini.vocabulary), _find_translations(mini)
        phrases = {
            **dict.fromkeys(word for word in near if reader.find_near_tokens(word).any()),
            **_split_forms(forms, pieces.ids.keys() | forms.keys()),
            **translations,
            **forms,
            **dict.fromkeys(LEAD_INS),
        }
        self._translated = translations.keys() - forms.keys()
        self._phrases = {phrase: index for phrase, index in phrases.items() if phrase not in stop_words}

    def __getitem__(self, phrase: str) -> TableRow:
        words, weights = self._mini.vocabulary.words, self._weigh_phrase(phrase)
        row = ((words[index], round(_SCALE * weight)) for index, weight in weights.items())
        return sorted((pair for pair in row if pair[1]), key=lambda pair: (-pair[1], pair[0]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._phrases)

    def __len__(self) -> int:
        return len(self._phrases)

    def _weigh_phrase(self, phrase: str) -> dict[int, float]:
        """Return weights by vocabulary index: the phrase's vocabulary word, the tokens near to it, and those of its single words.

        Raises:
            KeyError: If the table doesn't have the phrase.
        """
        rarity_V, index = self._mini.token_rarity, self._phrases[phrase]
        if phrase in LEAD_INS:
            return {}
        weights = {near: weight * float(rarity_V[near]) for near, weight in self._find_near_tokens(phrase, index).items()}
        if index is not None:
            learned = math.log1p(max(0.0, float(self._mini.arrays["text.own_words.word_F"][index])))
            weights[index] = float(rarity_V[index]) + self._mini.blend.text_heads_weight * learned
        for word in phrase.split(" ") if " " in phrase else ():
            for near, weight in self._weigh_phrase(word).items() if word in self else ():
                weights[near] = max(weight, weights.get(near, 0.0))
        return weights

    def _find_near_tokens(self, phrase: str, index: int | None) -> dict[int, float]:
        """Find the tokens near a phrase as it is written, otherwise near its vocabulary word, and those of photographs."""
        reader, words = self._reader, [phrase] if index is None else [phrase, self._mini.vocabulary.words[index]]
        sources = words[1:] if phrase in self._translated else words
        near_V = next((near_V for word in sources if (near_V := reader.find_near_tokens(word)).any()), np.zeros(0))
        factor = 1.0 if index is None else self._mini.blend.text_table_near_weight
        addable = (near for near in np.flatnonzero(near_V).tolist() if all(reader.can_add(near, word) for word in words))
        found = {near: factor * float(near_V[near]) for near in addable}
        if index is not None:
            for near, weight in zip(*reader.find_photo_tokens(index), strict=True):
                found[int(near)] = max(float(weight), found.get(int(near), 0.0))
        return found


def build_mini_table(mini: MiniArtifacts) -> TokenTable:
    """Build the table of the packaged model."""
    rows = MiniTableRows(TextReader(mini), mini)
    return TokenTable(model_id=MINI_CARD.model_id, max_words=2, max_tokens=mini.blend.text_max_tokens, rows=rows)


def _find_translations(mini: MiniArtifacts) -> dict[str, int]:
    """Find the words of other languages with their regular plurals, and the index of their token."""
    index_of_word = mini.vocabulary.index_of_word
    plurals = {plural: token for word, token in mini.translations.items() for plural in list_plurals(word)}
    return {word: index_of_word[token] for word, token in {**plurals, **mini.translations}.items()}


def _find_forms(vocabulary: WholeWordVocabulary) -> dict[str, int]:
    """Find how the words of a vocabulary are written: spellings and regular plurals, with the index of their word."""
    forms = {}
    for spelling in (*vocabulary.words, *vocabulary.spellings):
        for form in (spelling, *list_plurals(spelling)):
            if (index := vocabulary.find_word(form)) >= 0:
                forms[" ".join(split_words(form))] = index
    return forms


def _split_forms(forms: Mapping[str, int], known_words: Container[str]) -> dict[str, int]:
    """Return words written as two words that exist: `clown fish`; a form that is a phrase already has no others."""
    split = {}
    for form, index in forms.items():
        for cut in range(_MIN_PART_LENGTH, len(form) - _MIN_PART_LENGTH + 1):
            first, second = form[:cut], form[cut:]
            if first in known_words and second in known_words and first not in NEVER_JOINED:
                split[f"{first} {second}"] = index
    return split
