"""What people type: `beach -people +dog^2` as a text to encode and what is wanted of single words. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stair_es.errors import QueryError

_MINUS = "-\u2212\u2013"
"""The minus of a keyboard, and what word processors and phones make of it: the minus sign and the short dash."""
_SIGNED = re.compile(rf"[{_MINUS}+](?=#*[^\W\d_])")
"""`-people` and `+dog`; neither `-5` nor a dash alone."""
_BOOSTED = re.compile(r"(?P<word>.*[^\W_].*)\^(?P<boost>[^^]*)")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A query as it was typed."""

    text: str
    """What is to be encoded: all but the excluded words, without signs and boosts."""
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    """Word -> factor for its weight in the query; 0 takes it out."""


def parse(typed: str) -> Wish:
    """`+word` must be there, `-word` mustn't, `word^2` counts twice, `word^0` not at all; everything else is text.

    Raises:
        QueryError: A boost is not a number, is below 0, or stands at an excluded word.
    """
    text, required, excluded, boosts = [], [], [], {}
    for part in typed.split():
        sign, word = (part[0], part[1:]) if _SIGNED.match(part) else ("", part)
        sign = "-" if sign and sign in _MINUS else sign
        boosted = _BOOSTED.fullmatch(word)
        if boosted:
            word = boosted["word"]
            if sign == "-":
                raise QueryError(f"{part!r} excludes a word and boosts it", f"Write -{word} or {word}^{boosted['boost']}.")
            boosts[word] = _boost(boosted["boost"], part)
        if sign == "-":
            excluded.append(word)
            continue
        if sign == "+":
            required.append(word)
        text.append(word)
    return Wish(text=" ".join(text), required=tuple(required), excluded=tuple(excluded), boosts=boosts)


def factor_of(text: str) -> float | None:
    """A boost as people write it: a finite number from 0 on; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _boost(text: str, part: str) -> float:
    value = factor_of(text)
    if value is None:
        raise QueryError(f"{part!r}: {text!r} is not a boost", "Write a number from 0 on: dog^2, dog^0.5; 0 takes the word out.")
    return value
