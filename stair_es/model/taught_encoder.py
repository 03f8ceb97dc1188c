"""An encoder that also knows the taught words of an index: texts that have them get their tokens."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stair_es.model.base import Encoder, ReadText
from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.model.vocabularies.whole_words import list_singulars
from stair_es.taught_words import MAX_WORD_PARTS, WORD_PATTERN, TaughtWord, check_word_model, fold_words
from stair_es.types import Floats, Pixels, SparseVector


class FoundWord(NamedTuple):
    """A taught word in a text."""

    begin: int
    end: int
    text: str
    """The text there, in lower case."""
    word: TaughtWord


class TaughtEncoder(Encoder):
    """An encoder whose texts may contain taught words. Images get what the model gives them: an index adds the words."""

    def __init__(
        self, base: Encoder, words: Mapping[str, TaughtWord], local_words: Mapping[str, TaughtWord] | None = None
    ) -> None:
        """Set the encoder of the model, and the words by their names.

        The documents of the index have the tokens of `words`; `local_words` are known here alone, and search the tokens that they
        were taught from.
        """
        self.base, self.card, self._local = base, base.card, dict(local_words or {})
        self.words = {**words, **self._local}
        written = [word for name, word in words.items() if name not in self._local]
        # Later words come last: tokens have ids by their places.
        self._written = {word.token: word for word in sorted(written, key=lambda word: (word.taught_at, word.word))}

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return the tokens of the model and those of taught words."""
        return (*self.base.tokens, *self._written) if self.base.tokens else ()

    @property
    def photo_tokens(self) -> tuple[str, ...] | None:
        """Return the tokens that photographs can carry: taught words as well."""
        carried = self.base.photo_tokens
        return None if carried is None else (*carried, *self._written)

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return the vectors of the model."""
        return self.base.encode_images(pixels_BHWC)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one vector per text, of what the model reads and of taught words, each with the share of a word.

        A text keeps the length that its vector has without taught words.
        """
        found = [self._find_words(text) for text in texts]
        read = [self._remove_words(text, words) for text, words in found]
        vectors = self.base.encode_texts(read)
        return [
            self._add_words(vector, len(list_content_words(text)), words) if words else vector
            for text, vector, (_, words) in zip(read, vectors, found, strict=True)
        ]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the token of a taught word; otherwise as the model."""
        if word in self._written:
            return (word,)
        word, found = self._find_words(word)
        is_taught = len(found) == 1 and found[0].end - found[0].begin == len(word.strip())
        if is_taught and found[0].word.token in self._written:
            return (found[0].word.token,)
        return self.base.tokenize_word(word)

    def list_text_words(self, text: str, *, is_read: bool = False) -> dict[str, tuple[str, ...]]:
        """Return the words of a text with their tokens: a taught phrase is one word. Local words have none of their own."""
        text, found = self._find_words(text)
        words = self.base.list_text_words(_cut_words(text, found), is_read=is_read)
        return {**words, **{each.text: (each.word.token,) for each in found if each.word.token in self._written}}

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that neither the model nor anybody who taught words knows."""
        return self.base.list_unknown_words(_cut_words(*self._find_words(text)))

    def read_text(self, text: str) -> ReadText:
        """Return how the model reads a text without what taught words replace."""
        text, found = self._find_words(text)
        read = self.base.read_text(self._remove_words(text, found))
        return replace(read, taught={each.text: each.word.note for each in found})

    def _find_words(self, text: str) -> tuple[str, list[FoundWord]]:
        """Compose a text (NFC), and find the taught words and phrases in it, the longest at each place."""
        text = unicodedata.normalize("NFC", text)
        return text, list(self._iterate_words(text))

    def _iterate_words(self, text: str) -> Iterator[FoundWord]:
        spans = [match.span() for match in WORD_PATTERN.finditer(text)] if self.words else []
        place = 0
        while place < len(spans):
            count, found = self._find_longest(text, spans[place : place + MAX_WORD_PARTS])
            if found:
                yield found
            place += count

    def _find_longest(self, text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, FoundWord | None]:
        """Find the longest taught word at the first of some places, and return of how many places it is."""
        for count in range(len(spans), 0, -1):
            begin, end = spans[0][0], spans[count - 1][1]
            part = fold_words(text[begin:end])
            word = self.words.get(part) or (self._find_singular(part) if count == 1 else None)
            if word is not None:
                return count, FoundWord(begin, end, part, word)
        return 1, None

    def _find_singular(self, plural: str) -> TaughtWord | None:
        """Find the taught word of an English plural, unless that is another word of the model: pants aren't a pant."""
        word = next((self.words[form] for form in list_singulars(plural) if form in self.words), None)
        known = self.base.tokenize_word(plural) if word else ()
        return word if word and (not known or known == self.base.tokenize_word(word.word)) else None

    def _remove_words(self, text: str, found: Sequence[FoundWord]) -> str:
        """Return a text without what taught words replace: a word that adds stays, if the model knows it."""
        return _cut_words(text, [each for each in found if each.word.mode == "replace" or not self._is_known(each.text)])

    def _is_known(self, text: str) -> bool:
        return bool(list_content_words(text)) and not self.base.list_unknown_words(text)

    def _add_words(self, vector: SparseVector, word_count: int, found: Sequence[FoundWord]) -> SparseVector:
        taught = {each.word.word: each.word for each in found}.values()
        word_count = word_count if len(vector) else 0
        length = math.hypot(*vector.weights) if len(vector) else 1.0
        total = word_count + len(taught)
        weights = defaultdict[str, float](float)
        for token, weight in vector if word_count else ():
            weights[token] += weight * math.sqrt(word_count / total)
        for word in taught:
            own = word.vector if word.token not in self._written else SparseVector((word.token,), (1.0,))
            for token, weight in own:
                weights[token] += weight * length / math.sqrt(total)
        return SparseVector.from_mapping(weights)

    @property
    def has_dense(self) -> bool:
        """Return whether the model has dense vectors; they know no taught words."""
        return self.base.has_dense

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of the model."""
        return self.base.encode_images_dense(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of the model."""
        return self.base.encode_texts_dense(texts)


def teach_encoder(
    encoder: Encoder, words: Mapping[str, TaughtWord], local_words: Mapping[str, TaughtWord] | None = None
) -> Encoder:
    """Return an encoder that knows taught words, instead of those that it knows now.

    Raises:
        UsageError: If a local word was taught from vectors of another model.
    """
    base = encoder.base if isinstance(encoder, TaughtEncoder) else encoder
    for word in (local_words or {}).values():
        check_word_model(word, base.model_id)
    return TaughtEncoder(base, words, local_words) if words or local_words else base


def _cut_words(text: str, found: Sequence[FoundWord]) -> str:
    ends = [0, *(each.end for each in found)]
    begins = [*(each.begin for each in found), len(text)]
    return " ".join(text[end:begin] for end, begin in zip(ends, begins, strict=True))
