"""The words of a text by which a query is read: those searched in captions, named by tokens, the rarest one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from stair_es.feature_names import WORD_PARTS, normalize_label
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.unknown_words import get_rarity
from stair_es.search.query import CaptionWord, TokenGroup, list_word_parts

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy

_MAX_NAMED_TOKENS = 4
MAX_CAPTION_WORDS = 16
"""Each is a clause, and a bit of a score (`QueryRunner`)."""
MAX_LABEL_PARTS = 4
_UNKNOWN_WORD_WEIGHT = 2.0
"""`benchmarks/hybrid.py`: with 1, the first ten of a brand and a kind of product are right less often; 4 is no better."""


def split_caption_words(
    text: str,
    phrases: Sequence[str],
    unknown_words: AbstractSet[str],
    list_tokens: Callable[[str], TokenGroup],
    *,
    with_labels: bool = False,
) -> tuple[CaptionWord, ...]:
    """Split a text into the words and phrases that are searched in captions and labels, without stop words, each once.

    What only a caption can tell counts more: a word that the model doesn't know.

    Args:
        text: The text.
        phrases: The phrases in it.
        unknown_words: The words that the model doesn't know.
        list_tokens: Lists the tokens of a word or phrase.
        with_labels: Whether labels are searched.
    """
    longest = sorted((phrase for phrase in phrases if " " in phrase), key=len, reverse=True)
    pattern = "|".join([*(re.escape(phrase) for phrase in longest), WORD_PARTS.pattern])
    found = [part.lower() for part in re.findall(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", text, re.IGNORECASE)]
    stop_words = load_stop_words()
    parts = [part for part in dict.fromkeys(found) if part not in stop_words]
    labels = _list_labels(found) if with_labels else {}
    unknown = {part for part in parts if not unknown_words.isdisjoint(list_word_parts(part))}
    parts = sorted(parts, key=lambda part: part not in unknown)[:MAX_CAPTION_WORDS]
    weights = {part: _UNKNOWN_WORD_WEIGHT if part in unknown else 1.0 for part in parts}
    total = sum(weights.values())
    return tuple(
        CaptionWord(part, weights[part] / total, () if part in unknown else list_tokens(part), labels.get(part, ()))
        for part in parts
    )


def _list_labels(parts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List for each part of a text the labels that it may be of: itself, and up to four parts in a row that have it."""
    labels: dict[str, dict[str, None]] = {part: {normalize_label(part): None} for part in parts}
    for size in range(2, MAX_LABEL_PARTS + 1):
        for start in range(len(parts) - size + 1):
            run = parts[start : start + size]
            for part in run:
                labels[part][normalize_label(" ".join(run))] = None
    return {part: tuple(named) for part, named in labels.items()}


def list_part_tokens(encoder: Encoder, part: str, replaced: Mapping[str, str], policy: TokenPolicy | None = None) -> TokenGroup:
    """List the tokens of a word or phrase; none if the model has no token for one of its words.

    `replaced` are the words of the text for which the model reads others.
    """
    read = " ".join(replaced.get(word, word) for word in part.split())
    groups = encoder.list_text_words(read, is_read=True).values()
    tokens = tuple(dict.fromkeys(token for group in groups for token in group)) if all(groups) else ()
    return tokens if policy is None else policy.replace_tokens(tokens)


def list_named_words(encoder: Encoder, texts: Sequence[str], policy: TokenPolicy | None = None) -> list[TokenGroup]:
    """List the words of texts as tokens, without stop words; none if the model has no token for one of them."""
    words = [tokens for text in texts for tokens in encoder.list_text_words(text).values()]
    if not all(words):
        return []
    return words if policy is None else list(map(policy.replace_tokens, words))


def find_rarest_word(encoder: Encoder, texts: Sequence[str], policy: TokenPolicy | None = None) -> tuple[str, TokenGroup] | None:
    """Find the rarest word of texts, as `list_word_tokens`; None if the model has no token for it."""
    words = {word: tokens for text in texts for word, tokens in list_word_tokens(encoder, text).items()}
    if not words:
        return None
    word, tokens = max(words.items(), key=lambda pair: get_rarity([pair[0]]))
    return (word, tokens if policy is None else policy.replace_tokens(tokens)) if tokens else None


def list_word_tokens(encoder: Encoder, text: str) -> dict[str, TokenGroup]:
    """List the words of a text as the model reads it, without stop words, each with its tokens and those that are added to it."""
    added = encoder.read_text(text).added
    return {
        word: tuple(dict.fromkeys((*group, *(other for token in group for other in added.get(token, ())))))
        for word, group in encoder.list_text_words(text).items()
    }


def list_text_remarks(encoder: Encoder, text: str) -> list[str]:
    """List for the user which words of a text were taught, which no photograph can carry, and what is searched as well."""
    read = encoder.read_text(text)
    added = list(read.added.items())[:_MAX_NAMED_TOKENS]
    return [
        *read.taught.values(),
        *(
            f"no photograph can carry {word!r}"
            + (f"; looked for {', '.join(tokens[:_MAX_NAMED_TOKENS])} as well" if tokens else "")
            for word, tokens in added
        ),
    ]
