"""How stair-mini reads a text before it is encoded: which words it knows, and what stands for the others.

Both text towers use it. Shape suffixes are those of `artifacts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from stair_es.model.base import ReadText
from stair_es.model.stair_mini.artifacts import Float64Array, MiniArtifacts
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.unknown_words import SURE_LIKENESS, find_similar_tokens
from stair_es.model.vocabularies.whole_words import WordMatch, list_singulars, list_uncovered_words, strip_accents
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary, load_wordpiece_vocabulary

LEAD_INS = tuple(f"{noun}{ending} of" for noun in ("photo", "photograph", "picture", "image") for ending in ("", "s"))
"""Beginnings that say nothing about what an image shows."""
_LEAD_IN = re.compile(
    rf"\A\W*(?:(?:an?|the|some)\s+)?(?:{'|'.join(LEAD_INS)})(?:\s+|\W*$)".replace(" of", r"\s+of"), re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+")
_MIN_NEARNESS = 0.4
"""Minimum weight of the nearest token for a word outside of the vocabulary to count as known. The text network has a place for
every word, but `jody` and `apostles` are near to nothing there."""
_MIN_PHOTO_NEARNESS, _MAX_PHOTO_TOKENS = 0.4, 8
"""Which tokens of photographs are added for a token that only drawings have. At .2 and .3, photographs lost a point of R@10."""
_NO_TOKENS = np.empty(0, np.int64), np.empty(0)
_MIN_PART_LETTERS = 3
_MAX_CACHED_WORDS = 4096
_ENDINGS = re.compile("(.?)(s|es|e?d|e?r|y|ing|ist|ian|ion|or|ic|al|ful|ness)")
"""Endings that make another form of a word rather than a compound; `swimming` doubles a letter."""
_NOT_THEIR_KIND = frozenset(
    (
        *("hotdog", "butterfly", "dragonfly", "damselfly", "hedgehog", "groundhog", "bighorn", "hammerhead", "flathead"),
        *("buttercup", "butternut", "pineapple", "mushroom", "scoreboard", "cockroach", "tombstone", "headstone"),
    )
)
"""Compounds that aren't a kind of what they end in, as a sailboat is a boat."""


class TextReader:
    """The words of the packaged model: what a text is about before a network or a table weighs it."""

    def __init__(self, mini: MiniArtifacts) -> None:
        """Keep the artifacts; the vocabulary of the text network is loaded on first use."""
        self._mini, self._words, self._stop_words = mini, mini.vocabulary.words, load_stop_words()
        self._photo_tokens: dict[int, tuple[NDArray[np.int64], Float64Array]] = {}
        self._list_look_alikes = lru_cache(maxsize=_MAX_CACHED_WORDS)(self._find_look_alikes)

    def read_text(self, text: str) -> ReadText:
        """Return how a text is read.

        A word of another language is replaced by its translation, and `birdwatching` by `bird watching`. If no word is known,
        the others are replaced by tokens that are spelled nearly like them. For tokens that no photograph can carry, near ones
        that can are added.
        """
        text = _LEAD_IN.sub("", text, count=1)
        matches, unknown = self.match_words(text), self.list_unknown_words(text)
        replaced = {word: other for word in unknown if (other := self._translate(word) or self._split_compound(word))}
        if not replaced and not matches and len(unknown) == len(self.list_uncovered_words(text, matches)):
            replaced = {word: token for word in unknown if (token := self._correct_spelling(word))}
        text = _WORD.sub(lambda found: replaced.get(found[0].lower()) or self._replace_pieces(found[0]), text)
        indices = dict.fromkeys(match.word_index for match in self.match_words(text))
        drawn = [index for index in indices if not self._mini.can_be_on_photo_V[index]]
        added = {self._words[index]: tuple(self._words[near] for near in self.find_photo_tokens(index)[0]) for index in drawn}
        return ReadText(text=text, replaced=replaced, added=added)

    def match_words(self, text: str) -> list[WordMatch]:
        """Match the words of a text to tokens, without stop words."""
        matches = self._mini.vocabulary.match_words(text)
        return [match for match in matches if text[match.begin : match.end].lower() not in self._stop_words]

    def list_uncovered_words(self, text: str, matches: Sequence[WordMatch]) -> list[str]:
        """Return the words of a text that are neither tokens nor stop words, in lower case, each once."""
        return [word for word in list_uncovered_words(text, matches) if word not in self._stop_words]

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that are neither tokens nor near to one, in lower case, each once; translated ones, too."""
        words = self.list_uncovered_words(text, self._mini.vocabulary.match_words(text))
        return tuple(word for word in words if self._translate(word) or not self.find_near_tokens(word).any())

    def find_near_tokens(self, word: str) -> Float64Array:
        """Return the weights [V] of the tokens near a word of the text network; zeros if it isn't near to any."""
        near_V = self._mini.table.find_near_tokens(self._pieces.ids.get(strip_accents(word), -1), len(self._words))
        return near_V if near_V.max() >= _MIN_NEARNESS else np.zeros_like(near_V)

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word as users write it; empty if there are none."""
        vocabulary = self._mini.vocabulary
        index = vocabulary.find_word(word)
        indices = [index] if index >= 0 else [match.word_index for match in vocabulary.match_words(word)]
        tokens = tuple(self._words[index] for index in dict.fromkeys(indices))
        return tokens or tuple(filter(None, (self._translate(word),)))

    def find_photo_tokens(self, index: int) -> tuple[NDArray[np.int64], Float64Array]:
        """Return the tokens of photographs nearest to a token that only drawings have, nearest first, and their nearness."""
        mini = self._mini
        if mini.can_be_on_photo_V[index]:
            return _NO_TOKENS
        if index not in self._photo_tokens:
            embeddings_VD, min_cosine = mini.arrays["embeddings.words_VD"], mini.blend.text_min_near_cosine
            nearness_V = ((embeddings_VD @ embeddings_VD[index]).astype(np.float64) - min_cosine) / (1 - min_cosine)
            near = np.flatnonzero(mini.can_be_on_photo_V & (nearness_V >= _MIN_PHOTO_NEARNESS)).tolist()
            addable = np.array([other for other in near if self.can_add(other, self._words[index])], np.int64)
            ids = addable[np.argsort(-nearness_V[addable], kind="stable")[:_MAX_PHOTO_TOKENS]]
            self._photo_tokens[index] = ids, nearness_V[ids]
        return self._photo_tokens[index]

    def find_addable(self, indices: Sequence[int], words: Iterable[str] = ()) -> NDArray[np.bool_]:
        """Find the tokens that may be added to a text with these tokens and other words [V].

        They aren't on the list of those that never are, and they don't merely look like a word: `treefrog` isn't about trees.
        """
        addable_V = self._is_addable_V.copy()
        for word in (*(self._words[index] for index in indices), *words):
            addable_V[self._list_look_alikes(word)] = False
        addable_V[list(indices)] = True
        return addable_V

    def can_add(self, index: int, word: str) -> bool:
        """Return whether a token may be added to a text of one word, as `find_addable`."""
        return bool(self._is_addable_V[index]) and not self._is_look_alike(self._words[index], word)

    def _find_look_alikes(self, word: str) -> list[int]:
        return [index for index, token in enumerate(self._words) if self._is_look_alike(token, word)]

    def _is_look_alike(self, token: str, word: str) -> bool:
        """Return whether a token contains a word without being a form or a kind of it."""
        if word not in token or token == word or len(word) < _MIN_PART_LETTERS:
            return False
        rest = token.removeprefix(word)
        if rest != token and (ending := _ENDINGS.fullmatch(rest)) and ending[1] in ("", word[-1]):
            return False
        rest = token.removesuffix(word)
        is_compound = rest != token and len(rest) >= _MIN_PART_LETTERS and self._is_word(rest)
        return not is_compound or token in _NOT_THEIR_KIND

    def _replace_pieces(self, word: str) -> str:
        """Return the token of a word that the text network reads in pieces: it takes `tulips` for tusks and tuxedos."""
        index = -1 if strip_accents(word) in self._pieces.ids else self._mini.vocabulary.find_word(word)
        return word if index < 0 else self._words[index]

    def _is_known(self, word: str) -> bool:
        return self._mini.vocabulary.find_word(word) >= 0 or bool(self.find_near_tokens(word).any())

    def _is_word(self, word: str) -> bool:
        return word in self._pieces.ids or self._mini.vocabulary.find_word(word) >= 0

    def _translate(self, word: str) -> str:
        """Return the token of a word of another language; empty if there is none."""
        plain = strip_accents(word)
        return next((token for form in (plain, *list_singulars(plain)) if (token := self._mini.translations.get(form))), "")

    def _split_compound(self, word: str) -> str:
        """Return the two words that a word consists of, a token and one that is near to a token; empty if it doesn't."""
        for cut in range(len(word) - _MIN_PART_LETTERS, _MIN_PART_LETTERS - 1, -1):
            first, second = word[:cut], word[cut:]
            if self._mini.vocabulary.find_word(first) >= 0 and self._is_known(second):
                return f"{first} {second}"
        return ""

    def _correct_spelling(self, word: str) -> str:
        """Return the token that is spelled nearly like a word that doesn't exist (`jody` isn't joy); empty if there is none."""
        similar = () if strip_accents(word) in self._pieces.ids else find_similar_tokens(word, self._words)
        return similar[0][0] if similar and similar[0][1] >= SURE_LIKENESS else ""

    @cached_property
    def _is_addable_V(self) -> NDArray[np.bool_]:  # noqa: N802  the suffix is its shape
        return np.array([word not in self._mini.never_added for word in self._words])

    @cached_property
    def _pieces(self) -> WordPieceVocabulary:
        return load_wordpiece_vocabulary()
