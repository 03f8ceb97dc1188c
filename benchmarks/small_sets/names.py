"""Names of things, and the keys by which two captions are about the same concept."""

from __future__ import annotations

import hashlib
import re
import unicodedata

ARTICLES = frozenset({"a", "an", "the", "some"})
WORD = re.compile(r"[a-z0-9]+")


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without accents and apostrophes."""
    plain = unicodedata.normalize("NFKD", text.lower().replace("’", "").replace("'", ""))
    return WORD.findall("".join(letter for letter in plain if not unicodedata.combining(letter)))


def make_singular(word: str) -> str:
    """Return the word without an English plural ending; approximate, but equal for singular and plural of nearly every noun."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes", "sses", "toes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def make_concept(text: str) -> str:
    """Return the key of the concept of a name: "The Red Apples." and "a red apple" are one concept."""
    found = split_words(text)
    while len(found) > 1 and found[0] in ARTICLES:
        found = found[1:]
    return " ".join(make_singular(word) for word in found)


def hash_share(key: str, salt: str) -> float:
    """Return a number in [0, 1) that depends only on the text, so it is the same on every machine and in every build."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big") / 2**64


def has_mention(key: str, other: str) -> bool:
    """Return whether the words of `other` are next to each other in `key`."""
    return f" {other} " in f" {key} "
