"""Read colors and prices in a text as conditions on fields of the index. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.search.dsl.filters import build_text_clause
from stair_es.sources.image.colors import COLOR_NAMES

_SPELLINGS = {"grey": "gray", "violet": "purple"}
_SHADES = frozenset({"dark", "light", "bright", "pale", "deep"})
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NAMES = frozenset(
    f"{color} {noun}"
    for color, nouns in {
        "black": "bear bears swan swans widow bird birds pepper panther panthers stork storks currant hole",
        "white": "wolf wolves shark sharks stork storks tiger tigers rhino rhinos whale whales wine house rice",
        "gray": "wolf wolves whale whales fox foxes heron herons seal seals squirrel squirrels",
        "red": "panda pandas fox foxes wolf wolves squirrel squirrels deer kite kites wine cross carpet cabbage snapper",
        "orange": "juice tree trees peel slice slices blossom fruit fruits",
        "green": "snake snakes mamba tea beans onion house lizard lizards",
        "blue": "jay jays whale whales tit tits heron herons cheese",
        "brown": "bear bears rice sugar",
        "pink": "panther floyd",
        "yellow": "jacket",
    }.items()
    for noun in nouns.split()
)
"""Colors that are part of a name: a red panda isn't a panda that is red."""

_UNITS = r"cm|mm|km|m|kg|g|ml|l|lbs?|oz|inch(?:es)?|feet|ft|px|pixels?|years?|days?|hours?|minutes?|people|pieces|%"
_AMOUNT = r"[$€£]?\s?(?P<{0}>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d{{1,12}}(?:[.,]\d{{1,2}})?)(?![\d.,]*\d)"
_CURRENCY = rf"(?:\s?(?:[$€£]|(?:euros?|eur|dollars?|usd|bucks|pounds?|gbp)\b))?(?!\w|\s?(?:{_UNITS})(?!\w))"
_BOUNDS: Mapping[str, str] = {
    "lt": "under|below|less than|cheaper than",
    "lte": "up to|at most|no more than",
    "gt": "over|above|more than",
    "gte": "at least",
}
_PRICES = [
    re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)
    for pattern in (
        *(rf"\b(?:{words}) {_AMOUNT.format(bound)}{_CURRENCY}" for bound, words in _BOUNDS.items()),
        rf"\bbetween {_AMOUNT.format('gte')}{_CURRENCY} and {_AMOUNT.format('lte')}{_CURRENCY}",
    )
]
_KEPT = "\0"
"""Stands for the letters of words that are read as words."""
_Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class SearchFields:
    """The fields of an index in which a text is searched besides the token weights; empty for none."""

    text: str = ""
    """The text fields of captions and titles, separated by commas."""
    colors: str = ""
    """The field of the main colors of an image."""
    price: str = ""
    """A field of numbers."""
    labels: bool = False
    """Whether documents have labels from elsewhere."""
    location: str = ""
    """The field of the points where images were taken, for `near:`."""


NO_FIELDS = SearchFields()


@dataclass(frozen=True, kw_only=True)
class TextCondition:
    """A part of a text that is read as a condition on a field."""

    text: str = ""
    """The part, as the user wrote it."""
    field: str
    clause: Mapping[str, Any]
    """The query clause that a document must match."""
    is_color: bool = False
    meaning: str = ""
    """The condition in words, of a part that is an operator; empty for one that could be words."""

    def __str__(self) -> str:
        """Return the note for the user."""
        if self.meaning:
            return f"{self.text} is read as: {self.meaning}"
        return f'"{self.text}" is read as a condition on {self.field}; in quotes, it is read as words'

    def to_dict(self) -> dict[str, Any]:
        """Return the machine-readable form: `{"text", "field", "clause"}`."""
        return {"text": self.text, "field": self.field, "clause": dict(self.clause)}


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """A text, split into what a picture shows and conditions on fields."""

    text: str
    """The text without the conditions."""
    conditions: tuple[TextCondition, ...] = ()


def understand_text(text: str, fields: SearchFields, kept: Collection[str] = ()) -> Understanding:
    """Read colors and prices in a text as conditions, if the index has fields for them and other words are left to rank by.

    Args:
        text: The text, without operators.
        fields: The fields of the index.
        kept: Words and phrases of the text that are read as words: those in quotes, or with an operator.
    """
    rest = text
    for part in kept:
        rest = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", lambda found: _KEPT * len(found[0]), rest)
    taken: list[TextCondition] = []
    for field, find_conditions in ((fields.price, _find_prices), (fields.colors, _find_colors)):
        found = list(find_conditions(rest, fields)) if field else []
        left = _blank_spans(rest, [span for span, _ in found])
        if found and (list_content_words(left) or _KEPT in left):
            rest = left
            taken += [replace(condition, text=text[slice(*span)]) for span, condition in found]
    restored = "".join(letter if other == _KEPT else other for letter, other in zip(text, rest, strict=True))
    return Understanding(text=" ".join(restored.split()) if taken else text, conditions=tuple(taken))


def _blank_spans(text: str, spans: Iterable[_Span]) -> str:
    for begin, end in spans:
        text = text[:begin] + " " * (end - begin) + text[end:]
    return text


def _find_prices(text: str, fields: SearchFields) -> Iterator[tuple[_Span, TextCondition]]:
    for pattern in _PRICES:
        for found in pattern.finditer(text):
            bounds = {name: _parse_amount(amount) for name, amount in found.groupdict().items()}
            yield found.span(), TextCondition(field=fields.price, clause={"range": {fields.price: bounds}})
        text = pattern.sub(lambda found: " " * len(found[0]), text)  # `no more than 9` isn't `more than 9`


def _parse_amount(text: str) -> float:
    """Parse an amount: `1,200.50`, `1200` or `19,90`."""
    value = float(re.sub(r",(?=\d{3}(?!\d))", "", text).replace(",", "."))
    return int(value) if value.is_integer() else value


def _find_colors(text: str, fields: SearchFields) -> Iterator[tuple[_Span, TextCondition]]:
    """Find the colors, each with its shade, that aren't part of a name. A picture has one, or its caption says it."""
    found = list(_WORD.finditer(text))
    words = [_SPELLINGS.get(each[0].lower(), each[0].lower()) for each in found]
    grays = {place for place in range(len(words)) if {*words[place : place + 3 : 2]} == {"black", "white"}}
    for place, word in enumerate(words):
        following = " ".join(words[place + 1 : place + 2])
        is_name = f"{word} {following}" in _NAMES or (word == "orange" and not following)
        if word not in COLOR_NAMES or is_name or place in grays or place - 2 in grays:
            continue
        first = found[place - 1] if place and words[place - 1] in _SHADES else found[place]
        span = first.start(), found[place].end()
        clause: dict[str, Any] = {"term": {fields.colors: word}}
        if fields.text:
            clause = {"bool": {"should": [clause, build_text_clause(fields.text, word)], "minimum_should_match": 1}}
        yield span, TextCondition(field=fields.colors, clause=clause, is_color=True)
