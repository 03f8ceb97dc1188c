"""Parse query strings such as `beach -people +dog^2`. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stair_es.errors import QueryError
from stair_es.search.dsl.near import NEAR_PART, NearPlace, check_near_parts, parse_near

_MINUS = "-\u2212\u2013"
"""The hyphen-minus, and what word processors and phones replace it with: the minus sign and the en dash."""
_SIGNED = re.compile(rf"[{_MINUS}+](?=[#\"]*[^\W\d_])")
"""`-people`, `+dog` and `-"new york"`, but neither `-5` nor a single dash."""
_PART = re.compile(rf'{NEAR_PART.pattern}|[{_MINUS}+]?"[^"]*[^\W_][^"]*"\S*|\S+', re.IGNORECASE)
"""A place, a word, or a phrase in quotes with its operators."""
_PHRASE = re.compile(r'"(?P<phrase>[^"]+)"')
_BOOSTED = re.compile(r"(?P<word>.*[^\W_].*)\^(?P<boost>[^^]*)")


@dataclass(frozen=True, kw_only=True)
class ParsedQuery:
    """A parsed query string."""

    text: str
    """The text to encode: all words except the excluded ones, without operators and quotes."""
    phrases: tuple[str, ...] = ()
    """What is in quotes, except what is excluded."""
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    """Word -> factor of its weight in the query; 0 removes it."""
    near: tuple[NearPlace, ...] = ()
    """Where an image must be."""


def parse_query(query_string: str) -> ParsedQuery:
    """Parse a query string.

    `+word` is required, `-word` is excluded, `word^2` doubles the weight, `word^0` removes the word; everything else is text.
    Quotes keep words together as they are: `"red carpet"`, `-"new york"`. `near:38.71,-9.14,5km` says where an image must be.

    Raises:
        QueryError: If a boost is not a number, is negative, or belongs to an excluded word, or a place is invalid.
    """
    text, phrases, required, excluded, boosts = [], [], [], [], {}
    parts = _PART.findall(query_string)
    near = tuple(parse_near(part) for part in parts if NEAR_PART.fullmatch(part))
    check_near_parts(parts, near)
    for part in parts:
        if NEAR_PART.fullmatch(part):
            continue
        sign, word = (part[0], part[1:]) if _SIGNED.match(part) else ("", part)
        sign = "-" if sign and sign in _MINUS else sign
        boosted = _BOOSTED.fullmatch(word)
        if boosted:
            word = boosted["word"]
            if sign == "-":
                raise QueryError(
                    f"{part!r} both excludes and boosts a word",
                    f"Write -{word} or {word}^{boosted['boost']}.",
                    code="word-boosted-and-excluded",
                )
            boost = _parse_boost(boosted["boost"], part)
        quoted = _PHRASE.fullmatch(word)
        if quoted:
            word = " ".join(quoted["phrase"].split())
        if boosted:
            boosts[word] = boost
        if sign == "-":
            excluded.append(word)
            continue
        if sign == "+":
            required.append(word)
        if quoted:
            phrases.append(word)
        text.append(word)
    return ParsedQuery(
        text=" ".join(text),
        phrases=tuple(phrases),
        required=tuple(required),
        excluded=tuple(excluded),
        boosts=boosts,
        near=near,
    )


def list_operator_remarks(query_string: str) -> list[str]:
    """List what looks like an operator of other query languages, since it is read as text."""
    operators = [word for word in ("AND", "OR", "NOT") if word in query_string.split()]
    remarks = []
    if operators and not query_string.isupper():
        names = " or ".join(operators)
        remarks.append(
            f"words are not combined with {names}, read here as text; use +word and -word, or a filter, which supports them"
        )
    return remarks


def parse_factor(text: str) -> float | None:
    """Parse a boost: a finite number >= 0; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _parse_boost(text: str, part: str) -> float:
    value = parse_factor(text)
    if value is None:
        raise QueryError(
            f"{part!r}: {text!r} is not a boost", "Write a number >= 0: dog^2, dog^0.5; 0 removes the word.", code="invalid-boost"
        )
    return value
