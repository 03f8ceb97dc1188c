"""Random words, texts and weights that tend to break things; seeded, so that a failure can be reproduced."""

from __future__ import annotations

import random

POOLS = (
    "abcXYZ019",
    "..%%##",
    "%2E %25 .",
    '"\\/{}[]():*?~^+-!&|<>=',
    "\x00\x01\x07\x1b\x7f\t\n\r\u2028\x85",
    "e\u0301o\u0308a\u030a\u0336",
    "אבגשלום\u202e\u200f",
    "🐕🏳️\u200d🌈𝔘𐎀\U0010fffd",
    "犬猫カナひらが",
    "\ufeff\u200b\u00ad\uffff\ufffe\ufdd0",
    "ẞßİıſK",
)
NAMES = (
    "",
    ".",
    "..",
    "%",
    "%2E",
    "%25",
    "##",
    "##ing",
    " ",
    "_id",
    "tokens",
    "a.b",
    "a%2Eb",
    "*",
    "null",
    "é",
    "e\u0301",
    "NaN",
    "-1",
    "1e5",
    "A",
    "a",
    "\x00",
    "it's",
    "x" * 300,
    "犬" * 2000,
    "a b",
)
BAD_WEIGHTS = (float("nan"), float("inf"), -1.0, 0.0, -0.0, 1e39, 2.0**101, 1e308)
TINY_WEIGHTS = (5e-324, 1e-45, 1e-38, 2.0**-101)


def draw_word(rng: random.Random) -> str:
    """Draw a valid word."""
    if rng.random() < 0.3:
        return rng.choice(NAMES)
    pools = rng.sample(POOLS, rng.randint(1, 3))
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, rng.choice((2, 5, 20)))))


def draw_words(rng: random.Random, count: int) -> list[str]:
    """Return `count` different words."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw_word(rng)] = None
    return list(drawn)


def draw_weight(rng: random.Random, decades: float = 6) -> float:
    """Return a weight within some powers of ten around 1."""
    return float(10 ** rng.uniform(-decades, decades))


def draw_text(rng: random.Random, count: int) -> str:
    """Return a text of `count` words."""
    return " ".join(draw_word(rng) for _ in range(count))


def draw_broken_text(rng: random.Random) -> str:
    """Return a text with an unpaired surrogate."""
    return draw_word(rng) + rng.choice(("\ud800", "\udfff", "\udc80")) + draw_word(rng)
