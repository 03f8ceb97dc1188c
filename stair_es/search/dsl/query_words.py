"""The words of a text by which a query is read: those searched in captions, named by tokens, the rarest one. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from stair_es.model.vocabularies.stop_words import list_content_words, load_stop_words
from stair_es.model.vocabularies.unknown_words import get_rarity
from stair_es.search.query import CaptionWord, TokenGroup

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy

_MAX_NAMED_TOKENS = 4
_MAX_CAPTION_WORDS = 32
"""Each is a clause."""
_UNKNOWN_WORD_WEIGHT = 2.0
"""`benchmarks/hybrid.py`: with 1, the first ten of a brand and a kind of product are right less often; 4 is no better."""


def split_caption_words(text: str, phrases: Sequence[str], unknown_words: AbstractSet[str]) -> tuple[CaptionWord, ...]:
    """Split a text into the words and phrases that are searched in captions, without stop words, each once.

    What only a caption can tell counts more: a word that the model doesn't know.
    """
    longest = sorted((phrase for phrase in phrases if " " in phrase), key=len, reverse=True)
    pattern = "|".join([*(re.escape(phrase) for phrase in longest), r"[^\W_]+(?:['-][^\W_]+)*"])
    found = (part.lower() for part in re.findall(rf"(?<!\w)(?:{pattern})(?!\w)", text, re.IGNORECASE))
    stop_words = load_stop_words()
    parts = [part for part in dict.fromkeys(found) if part not in stop_words][:_MAX_CAPTION_WORDS]
    weights = [_UNKNOWN_WORD_WEIGHT if {*part.split()} & unknown_words else 1.0 for part in parts]
    return tuple(CaptionWord(part, weight / sum(weights)) for part, weight in zip(parts, weights, strict=True))


def list_named_words(encoder: Encoder, texts: Sequence[str], policy: TokenPolicy | None = None) -> list[TokenGroup]:
    """List the words of texts as tokens, without stop words; none if the model has no token for one of them."""
    words = [encoder.tokenize_word(word) for text in texts for word in list_content_words(encoder.read_text(text).text)]
    if not all(words):
        return []
    return words if policy is None else list(map(policy.replace_tokens, words))


def find_rarest_word(encoder: Encoder, texts: Sequence[str], policy: TokenPolicy | None = None) -> tuple[str, TokenGroup] | None:
    """Find the rarest word of texts, with its tokens and those that are added to it; None if the model has none for it."""
    read_texts = [encoder.read_text(text) for text in texts]
    words = [word for read in read_texts for word in list_content_words(read.text)]
    if not words:
        return None
    word = max(words, key=lambda word: get_rarity([word]))
    tokens = encoder.tokenize_word(word)
    added = [token for read in read_texts for own in tokens for token in read.added.get(own, ())]
    group = tuple(dict.fromkeys((*tokens, *added)))
    return (word, group if policy is None else policy.replace_tokens(group)) if tokens else None


def list_photo_remarks(encoder: Encoder, text: str) -> list[str]:
    """List for the user which words of a text no photograph can carry, and what is searched as well."""
    added = list(encoder.read_text(text).added.items())[:_MAX_NAMED_TOKENS]
    return [
        f"no photograph can carry {word!r}" + (f"; looked for {', '.join(tokens[:_MAX_NAMED_TOKENS])} as well" if tokens else "")
        for word, tokens in added
    ]
