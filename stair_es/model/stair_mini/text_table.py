"""The table of stair-mini: what each word and phrase means without the text network.

Formulas are in `docs/stair-mini.md`; rows are computed when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping

from stair_es.model.stair_mini.artifacts import MINI_CARD, MiniArtifacts
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.token_table import TableRow, TokenTable, split_words
from stair_es.model.vocabularies.whole_words import NEVER_JOINED, WholeWordVocabulary, list_plurals
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

_SCALE = 1000
"""Weights are integers, in thousandths."""
_MIN_PART_LENGTH = 2
"""Shortest part of a vocabulary word that people write as two words: `clown fish`."""


class MiniTableRows(Mapping[str, TableRow]):
    """Rows by phrase: vocabulary words with their spellings and plurals, in one word or two, and BERT's words near to any."""

    def __init__(self, mini: MiniArtifacts) -> None:
        """Find all phrases."""
        pieces, stop_words = load_wordpiece_vocabulary(), load_stop_words()
        self._mini = mini
        self._near = {pieces.tokens[piece]: row for row, piece in enumerate(mini.table.token_ids_T.tolist())}
        forms = _find_forms(mini.vocabulary)
        phrases = {**dict.fromkeys(self._near), **_split_forms(forms, pieces.ids.keys() | forms.keys()), **forms}
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
        blend, rarity_V, index = self._mini.blend, self._mini.token_rarity, self._phrases[phrase]
        near_weight = 1.0 if index is None else blend.text_table_near_weight
        weights = {near: near_weight * weight * float(rarity_V[near]) for near, weight in self._find_near_tokens(phrase, index)}
        if index is not None:
            learned = math.log1p(max(0.0, float(self._mini.arrays["text.own_words.word_F"][index])))
            weights[index] = float(rarity_V[index]) + blend.text_heads_weight * learned
        for word in phrase.split(" ") if " " in phrase else ():
            for near, weight in self._weigh_phrase(word).items() if word in self else ():
                weights[near] = max(weight, weights.get(near, 0.0))
        return weights

    def _find_near_tokens(self, phrase: str, index: int | None) -> Iterator[tuple[int, float]]:
        """Find the tokens near a phrase as it is written, otherwise those near its vocabulary word."""
        table, row = self._mini.table, self._near.get(phrase)
        if row is None and index is not None:
            row = self._near.get(self._mini.vocabulary.words[index])
        if row is not None:
            yield from zip(table.word_ids_TN[row].tolist(), (table.weights_TN[row] * (1 / 255)).tolist(), strict=True)


def build_mini_table(mini: MiniArtifacts) -> TokenTable:
    """Build the table of the packaged model."""
    return TokenTable(model_id=MINI_CARD.model_id, max_words=2, max_tokens=mini.blend.text_max_tokens, rows=MiniTableRows(mini))


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
