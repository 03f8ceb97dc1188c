"""A question of a visitor -> the words that are asked for, each with its weight and factor. Pure, but for the encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.search.combine import combined
from stair_es.search.inputs import spelled
from stair_es.search.question import NOTHING, Question, Spelling, parse_filter
from stair_es.search.wish import Wish, parse
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.encoder import Encoder
    from stair_es.policy import WordPolicy
    from stair_es.web.asked import Asked

WORDS_FIELD = "top_tokens"
COLOURS_FIELD = "colours"
_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""One that nothing stands for as it is. It would begin a regular expression, and engines build those to the end, whatever limit
there is for their work: `/((a{1,100}){1,100}){1,100}/` keeps one of their few search threads busy until they are started anew."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a query."""

    word: str
    weight: float
    """Before the factor."""
    factor: float = 1.0
    added: bool = False
    """By a factor alone."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A question, ready to be asked."""

    words: tuple[Word, ...]
    """All of them, muted ones too, heaviest first."""
    required: tuple[str, ...]
    """As they were written."""
    excluded: tuple[str, ...]
    question: Question


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How an index writes words: by its model, then by its policy."""

    encoder: Encoder
    policy: WordPolicy | None = None

    def spelled(self, word: str) -> Spelling:
        """The features that stand for a word.

        Raises:
            QueryError: There are none.
        """
        becomes: Mapping[str, str] = self.policy.becomes if self.policy else {}
        if word in becomes.values():  # a word that the policy made: the model may never have heard of it
            return (word,)
        return tuple(dict.fromkeys(becomes.get(feature, feature) for feature in spelled(self.encoder, word)))

    def steered(self, vector: SparseVector) -> SparseVector:
        """A vector of the model in the words of the index."""
        return self.policy.asked(vector) if self.policy else vector


def weighed(asked: Asked, wording: Wording, encode: Callable[[str], SparseVector], stored: SparseVector | None = None) -> Weighed:
    """What is asked for.

    Args:
        asked: By the visitor.
        wording: Of the index.
        encode: The vector of a text.
        stored: The words of the document `asked.like`, which the policy has been applied to already.

    Raises:
        QueryError: Nothing is looked for, a word is none of the model's, or wishes can't be.
    """
    wish = parse(asked.text)
    by_caption = asked.method == "bm25"
    words = () if by_caption else _words(asked, wish, wording, encode, stored)
    if by_caption and not wish.text:
        raise QueryError("bm25 compares texts, and there is none in the question", "Write some words, or take another method.")
    required = tuple(dict.fromkeys((*wish.required, *asked.require)))
    excluded = tuple(dict.fromkeys((*wish.excluded, *asked.exclude)))
    left = {word.word: word.weight * word.factor for word in words if word.weight * word.factor > 0}
    if words and not left:
        raise QueryError("all words of the query are muted", "Leave one of them in.")
    if not all(map(math.isfinite, left.values())):
        raise QueryError("a factor makes a weight too large", "Take a smaller one.")
    question = Question(
        vector=SparseVector.from_mapping(left),
        caption=wish.text if by_caption else "",
        required=[wording.spelled(word) for word in required],
        excluded=[wording.spelled(word) for word in excluded],
        filters=_filters(asked),
    )
    return Weighed(words=words, required=required, excluded=excluded, question=question)


def narrowed(asked: Asked) -> dict[str, Any] | None:
    """The query for all that the filters leave, if nothing else is asked; else None.

    Raises:
        QueryError: A filter can't be read.
    """
    ranks = asked.text.strip() or asked.like or asked.vector or asked.factors
    return None if ranks or asked.require or asked.exclude else {"bool": {"filter": _filters(asked)}}


def _words(
    asked: Asked, wish: Wish, wording: Wording, encode: Callable[[str], SparseVector], stored: SparseVector | None
) -> tuple[Word, ...]:
    vectors = [wording.steered(encode(wish.text))] if wish.text else []
    vectors += [] if stored is None else [stored]
    vectors += [wording.steered(SparseVector.from_mapping(asked.vector))] if asked.vector else []
    vector = combined((vector, 1.0) for vector in vectors) if vectors else NOTHING
    words = _boosted({word: Word(word=word, weight=weight) for word, weight in vector}, wish, wording)
    words = _factored(words, asked.factors, wording)
    if not words:
        what = "only says what must not be there" if wish.excluded or asked.exclude else "is empty"
        raise QueryError(f"the query {what}", 'Say what to look for: words, an image, or both ("beach -people").')
    return tuple(sorted(words.values(), key=lambda word: (-word.weight, word.word)))


def _boosted(words: Mapping[str, Word], wish: Wish, wording: Wording) -> dict[str, Word]:
    """With the boosts that were typed: they are part of the weight; `dog^0` is a word with a factor of 0."""
    made = dict(words)
    for written, boost in wish.boosts.items():
        for feature in wording.spelled(written):
            if feature not in made:
                raise QueryError(f"the query has no word {feature!r} to boost", f"Its words are: {', '.join(words)}.")
            word = made[feature]
            made[feature] = replace(word, weight=word.weight * boost) if boost > 0 else replace(word, factor=0.0)
    return made


def _factored(words: Mapping[str, Word], factors: Mapping[str, float], wording: Wording) -> dict[str, Word]:
    made = dict(words)
    for written, factor in factors.items():
        for feature in (written,) if written in words else wording.spelled(written):
            if feature in words and (feature == written or feature not in factors):
                made[feature] = replace(words[feature], factor=factor)
            elif feature not in words:
                made[feature] = Word(word=feature, weight=1.0, factor=factor, added=True)
    return made


def _filters(asked: Asked) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = [{"term": {WORDS_FIELD: word}} for word in asked.words]
    filters += [{"term": {COLOURS_FIELD: colour}} for colour in asked.colours]
    text = asked.filter.strip()
    if text[:1] in ("{", "["):  # a clause may run scripts, and look into other indices
        raise QueryError("the filter is not a query string", "Write it like width:>800 AND format:JPEG")
    return [*filters, parse_filter(_SLASH.sub(r"\1\\/", text))] if text else filters
