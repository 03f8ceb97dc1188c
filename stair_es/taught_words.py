"""Taught words: words that an index knows from marked pictures, each a sparse vector over the tokens of its model. Pure.

A document gets the token of a taught word, `#` and the word, from the vector that the model gave it: its weight is the dot
product of both vectors, moved and scaled so that `floor` becomes 0 and `full` becomes 1. No other token of a document changes, so
no other query ranks differently.

The dot product is a sum of integers, so that a cluster computes the same in any order, to the bit.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from stair_es.errors import ResourceError, UsageError
from stair_es.types import Json, SparseVector, is_utf8

TaughtMode: TypeAlias = Literal["replace", "add"]
"""Whether a taught word replaces what the model's text encoder makes of it, or adds to it."""

TAUGHT_PREFIX = "#"
MATCH_WEIGHT = 0.25
"""Weight from which an image with a taught word is a match, and has the word for `+word` and `-word`."""
MAX_TAUGHT_TOKENS = 32
DOCUMENT_SCALE, WORD_SCALE = 4096, 1000
"""Steps per unit of weight: of a document's tokens, and of the tokens of a taught word."""
WEIGHT_SCALE = 10_000
"""Steps per unit of the weight that a document gets."""
_MAX_WEIGHT = 2.0**28
"""Larger weights of documents count as this: a cluster sums up in 64 bits."""
MAX_WORD_PARTS = 4
_MAX_WORD_CHARS = 64
_MAX_MARKS, _MAX_TEXT_CHARS, _MAX_WORDS = 20, 512, 2000
"""Of a word: marks of a kind, and characters of a token, an id, a model id or a time. Of a policy: words. A cluster sends them
with each mapping."""
_LETTER = r"[^\x00-\xbf\s\u2000-\u206f\u3000-\u303f\uff01-\uff0f]"
WORD_PATTERN = re.compile(rf"[^\W_](?:[^\W_]|{_LETTER}|['’-](?=[^\W_]))*")
"""Letters and digits, with marks, apostrophes and hyphens in them. `\\w` has no marks, which Hindi and Thai need."""
_FIELDS = ("tokens", "floor", "full", "mode", "model", "yes", "no", "taught_at", "precision")
_FORM = (
    'Write it like {"windmill": {"tokens": {"wind": 0.5, "tower": 0.4}, "floor": 0.2, "full": 0.9, "model": "stair-mini-3"}}, '
    "or let `stair-es teach` write it."
)


@dataclass(frozen=True, kw_only=True)
class TaughtWord:
    """A taught word.

    Raises:
        ResourceError: On construction, if a value is outside of its range.
    """

    word: str
    """The word or phrase, as `normalize_word` returns it."""
    tokens: Mapping[str, float]
    """Token of the model -> weight, above 0 and at most 1, in steps of 1/`WORD_SCALE`; at most `MAX_TAUGHT_TOKENS`."""
    floor: float
    """Dot product up to which a document doesn't get the token."""
    full: float
    """Dot product from which it gets it with the weight 1."""
    mode: TaughtMode = "replace"
    model: str = ""
    """Model id of the vectors that it was taught from; empty if unknown."""
    yes: tuple[str, ...] = ()
    """Ids of the images that show it."""
    no: tuple[str, ...] = ()
    """Ids of images that don't."""
    taught_at: str = ""
    """Time in UTC, ISO 8601."""
    precision: float | None = None
    """Estimate of the share of right images among its matches; see `stair_es.teaching.fit`."""

    def __post_init__(self) -> None:
        """Check the values."""
        where = f"teach.{self.word}"
        if not 0 < len(self.tokens) <= MAX_TAUGHT_TOKENS:
            problem = f"{where}.tokens: {len(self.tokens)} tokens instead of 1 to {MAX_TAUGHT_TOKENS}"
            raise ResourceError(problem, _FORM, code="taught-word-tokens")
        for token, weight in self.tokens.items():
            if not 1 / WORD_SCALE <= weight <= 1:
                problem = f"{where}.tokens.{token}: {weight:g} is not between {1 / WORD_SCALE:g} and 1"
                raise ResourceError(problem, _FORM, code="taught-word-weight")
        if not (0 <= self.floor < self.full <= _MAX_WEIGHT and self.range_units[0] < self.range_units[1]):
            problem = f"{where}: floor {self.floor:g} and full {self.full:g} are not numbers with 0 <= floor < full"
            raise ResourceError(problem, _FORM, code="taught-word-range")
        if self.precision is not None and not 0 <= self.precision <= 1:
            problem = f"{where}.precision: {self.precision:g} is not between 0 and 1"
            raise ResourceError(problem, _FORM, code="taught-word-range")

    @property
    def token(self) -> str:
        """The token of documents that have it."""
        return TAUGHT_PREFIX + self.word

    @property
    def units(self) -> dict[str, int]:
        """The tokens with their weights in steps of 1/`WORD_SCALE`."""
        return {token: round(weight * WORD_SCALE) for token, weight in self.tokens.items()}

    @cached_property
    def range_units(self) -> tuple[int, int]:
        """`floor` and `full` in the steps of the dot product."""
        return round(self.floor * DOCUMENT_SCALE * WORD_SCALE), round(self.full * DOCUMENT_SCALE * WORD_SCALE)

    @property
    def vector(self) -> SparseVector:
        """The tokens as a query vector of length 1, for an index whose documents don't have the token."""
        length = math.hypot(*self.tokens.values())
        return SparseVector.from_mapping({token: weight / length for token, weight in self.tokens.items()})

    @property
    def note(self) -> str:
        """A note for the user on where it comes from."""
        date = f" on {self.taught_at[:10]}" if self.taught_at else ""
        count = len(self.yes)
        pictures = f" from {count} picture{'s' if count != 1 else ''}" if count else ""
        added = "; what the model says counts as well" if self.mode == "add" else ""
        return f"{self.word!r} was taught{pictures}{date}{added}"

    def compute_weight(self, vector: SparseVector) -> float:
        """Compute the weight of its token in a document with the model's vector."""
        return self.scale_product(compute_products(vector, list_weighted_units([self])).get(self.word, 0))

    def scale_product(self, product: int) -> float:
        """Return the weight of its token, in steps of 1/`WEIGHT_SCALE`, for the dot product of a document; 0 up to `floor`."""
        floor, full = self.range_units
        if product <= floor:
            return 0.0
        return min(round((product - floor) / (full - floor) * WEIGHT_SCALE), WEIGHT_SCALE) / WEIGHT_SCALE

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that `parse_taught_words` accepts as the value of the word."""
        value: dict[str, Json] = {
            "tokens": dict(self.tokens),
            "floor": self.floor,
            "full": self.full,
            "mode": self.mode,
            "model": self.model,
            "yes": list(self.yes),
            "no": list(self.no),
            "taught_at": self.taught_at,
            "precision": self.precision,
        }
        return {name: item for name, item in value.items() if item not in ("", None, [])}


def check_taught_words(words: Mapping[str, TaughtWord], rules: Mapping[str, str]) -> None:
    """Check the taught words of a policy, whose other rules are given as token -> place of the rule.

    Raises:
        ResourceError: If there are more than an index can be taught, or another rule is about one of them.
    """
    if len(words) > _MAX_WORDS:
        problem = f"teach: {len(words):,} words; at most {_MAX_WORDS:,} can be taught"
        raise ResourceError(problem, "Forget some: stair-es teach WORD --forget", code="too-many-taught-words")
    for name, word in words.items():
        if rule := rules.get(name) or rules.get(word.token):
            raise ResourceError(
                f"teach.{name}: {name!r} already has a rule of the token policy: {rule}",
                "Keep one of the two: remove the rule from the policy, or forget the word (stair-es teach WORD --forget).",
                code="taught-word-in-policy",
            )


def check_word_model(word: TaughtWord, model_id: str) -> None:
    """Raise UsageError if a word was taught from vectors of another model: its tokens mean nothing there."""
    if word.model not in ("", model_id):
        raise UsageError(
            f"the word {word.word!r} was taught from vectors of the model {word.model}, not of {model_id}",
            "Teach it to an index of this model: stair-es teach WORD --yes IMAGE IMAGE IMAGE",
            code="taught-for-other-model",
        )


def is_taught_token(token: str) -> bool:
    """Return whether a token is that of a taught word, not of a model: WordPiece begins pieces with two of these characters."""
    return len(token) > 1 and token[0] == TAUGHT_PREFIX != token[1]


def fold_words(text: str) -> str:
    """Fold a composed text for comparison: lower case, single spaces, and the Turkish dotted I as i."""
    return " ".join(text.lower().replace("i\u0307", "i").split())


def normalize_word(word: str) -> str:
    """Return a word or phrase as it is stored: lower case, composed (NFC), single spaces.

    Raises:
        UsageError: If it isn't 1 to 4 words of letters and digits, which may contain hyphens and apostrophes.
    """
    normal = fold_words(unicodedata.normalize("NFC", word)) if is_utf8(word) else ""
    parts = normal.split(" ")
    is_word = all(map(WORD_PATTERN.fullmatch, parts)) and not normal.replace(" ", "").isdecimal()
    if not is_word or len(parts) > MAX_WORD_PARTS or len(normal) > _MAX_WORD_CHARS:
        raise UsageError(
            f"not a word that can be taught: {word!r}",
            f"Use 1 to {MAX_WORD_PARTS} words of letters and digits, together at most {_MAX_WORD_CHARS} characters.",
            code="not-a-teachable-word",
        )
    return normal


def parse_taught_words(value: Mapping[str, object]) -> dict[str, TaughtWord]:
    """Parse the taught words of a policy, `{word: {"tokens", "floor", "full", ...}}`.

    Raises:
        ResourceError: If it isn't valid; names the place.
    """
    words: dict[str, TaughtWord] = {}
    for name, body in value.items():
        try:
            word = normalize_word(name)
        except UsageError as error:
            raise ResourceError(f"teach: {error.message}", error.remedy, code=error.code) from None
        if word in words:
            raise ResourceError(f"teach.{name}: {word!r} is there twice", "Keep one of them.", code="taught-word-twice")
        words[word] = _parse_word(word, body)
    return words


def _parse_word(word: str, body: object) -> TaughtWord:
    where = f"teach.{word}"
    if not isinstance(body, dict):
        raise ResourceError(f"{where}: not an object", _FORM, code="policy-not-an-object")
    if unknown := [name for name in body if name not in _FIELDS]:
        raise ResourceError(f"{where}.{unknown[0]}: no such field", _FORM, code="taught-word-field")
    tokens, mode = body.get("tokens"), body.get("mode", "replace")
    if not isinstance(tokens, dict) or not all(map(_is_short, tokens)):
        raise ResourceError(f"{where}.tokens: not an object of tokens and weights", _FORM, code="taught-word-tokens")
    if mode not in get_args(TaughtMode):
        raise ResourceError(f"{where}.mode: not one of {', '.join(get_args(TaughtMode))}", _FORM, code="taught-word-mode")
    texts = {name: body.get(name, "") for name in ("model", "taught_at")}
    for name, text in texts.items():
        if not _is_short(text):
            raise ResourceError(f"{where}.{name}: not a short string", _FORM, code="taught-word-field")
    precision = body.get("precision")
    return TaughtWord(
        word=word,
        tokens=_parse_tokens(tokens, f"{where}.tokens"),
        floor=_parse_number(body.get("floor"), f"{where}.floor"),
        full=_parse_number(body.get("full"), f"{where}.full"),
        mode=mode,
        model=texts["model"],
        yes=_parse_ids(body.get("yes", []), f"{where}.yes"),
        no=_parse_ids(body.get("no", []), f"{where}.no"),
        taught_at=texts["taught_at"],
        precision=None if precision is None else _parse_number(precision, f"{where}.precision"),
    )


def _parse_tokens(tokens: Mapping[str, object], where: str) -> dict[str, float]:
    """Parse tokens and weights, heaviest first: a cluster returns the keys of an object in any order."""
    weights = {token: _parse_number(weight, f"{where}.{token}") for token, weight in tokens.items()}
    return dict(sorted(weights.items(), key=lambda item: (-item[1], item[0])))


def _parse_number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ResourceError(f"{where}: not a number", _FORM, code="policy-not-a-number")
    try:
        return float(value)
    except OverflowError:
        raise ResourceError(f"{where}: too large for a weight", _FORM, code="policy-weight-too-large") from None


def _parse_ids(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MAX_MARKS or not all(map(_is_short, value)):
        raise ResourceError(f"{where}: not a list of at most {_MAX_MARKS} ids", _FORM, code="taught-word-marks")
    return tuple(value)


def _is_short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS and is_utf8(value)


def list_weighted_units(words: Iterable[TaughtWord]) -> dict[str, dict[str, int]]:
    """List the units of words by the tokens of the model: `{token: {word: units}}`."""
    by_token: dict[str, dict[str, int]] = {}
    for word in words:
        for token, units in word.units.items():
            by_token.setdefault(token, {})[word.word] = units
    return by_token


def compute_products(vector: SparseVector, units: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Compute the dot products of a document's vector with all words that have one of its tokens: `{word: product}`."""
    products: dict[str, int] = {}
    for token, weight in vector:
        steps = round(min(weight, _MAX_WEIGHT) * DOCUMENT_SCALE)
        for word, count in units.get(token, {}).items():
            products[word] = products.get(word, 0) + steps * count
    return products
