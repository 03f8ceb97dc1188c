"""Convert tokens of any tokenizer to readable words, all different, so that the index of a word is the id of its token.

BERT marks a continuing piece with `##`; others mark the beginning of a word: byte-level BPE with a space written `Ġ` (each
byte is written as a letter), SentencePiece with `▁`. All are converted to BERT's form: `Ġdog` and `▁dog` become `dog`, and
`dog` becomes `##dog`. A token stays unchanged if the result would be unreadable (white space, a partial character) or the same
as that of another token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from stair_es.system.user_files import parse_json

TokenizerStyle: TypeAlias = Literal["plain", "byte-level", "metaspace"]

CONTINUATION_PREFIX = "##"
"""Beginning of a piece that continues a word."""
_WORD_START_MARKS: Mapping[TokenizerStyle, str] = {"byte-level": "Ġ", "metaspace": "▁"}


def is_piece(token: str) -> bool:
    """Return whether a readable token is a piece that continues a word."""
    return token.startswith(CONTINUATION_PREFIX) and len(token) > len(CONTINUATION_PREFIX)


def detect_tokenizer_style(tokenizer_json: str) -> TokenizerStyle:
    """Detect how a tokenizer marks the beginning of words."""
    config: Any = parse_json(tokenizer_json)
    kinds = {part.get("type") for key in ("decoder", "pre_tokenizer") for part in _list_components(config.get(key))}
    if "ByteLevel" in kinds:
        return "byte-level"
    return "metaspace" if "Metaspace" in kinds else "plain"


def make_readable_tokens(tokens: Sequence[str], style: TokenizerStyle, special: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Make tokens readable. The results are all different if the tokens are: of equal results, the shortest token keeps it."""
    readable = [token if token in special else _make_readable(token, style) for token in tokens]
    unchanged = {index for index, token in enumerate(tokens) if readable[index] == token}
    while True:
        indices_of: dict[str, list[int]] = {}
        for index, token in enumerate(tokens):
            indices_of.setdefault(token if index in unchanged else readable[index], []).append(index)
        ambiguous = {index for indices in indices_of.values() for index in _find_ambiguous(indices, unchanged, tokens)}
        if not ambiguous:
            return tuple(token if index in unchanged else readable[index] for index, token in enumerate(tokens))
        unchanged |= ambiguous


def _find_ambiguous(indices: Sequence[int], unchanged: Collection[int], tokens: Sequence[str]) -> set[int]:
    """Return which of several tokens with one result stay unchanged: all but the shortest, or all if it is a token itself."""
    others = {index for index in indices if index not in unchanged}
    if len(others) == len(indices):
        others.discard(min(indices, key=lambda index: (len(tokens[index]), tokens[index])))
    return others


def _make_readable(token: str, style: TokenizerStyle) -> str:
    if style == "plain":
        return token
    mark = _WORD_START_MARKS[style]
    text = token.removeprefix(mark)
    if style == "byte-level":
        text = _decode_byte_letters(text)
    if not text or not text.isprintable() or any(map(str.isspace, text)) or mark in text:
        return token
    return text if token.startswith(mark) else CONTINUATION_PREFIX + text


def _decode_byte_letters(letters: str) -> str:
    """Return the text of byte-level letters; empty if they are no complete text."""
    byte_of_letter = _build_byte_alphabet()
    if any(letter not in byte_of_letter for letter in letters):
        return ""
    try:
        return bytes(byte_of_letter[letter] for letter in letters).decode()
    except UnicodeDecodeError:
        return ""


@lru_cache
def _build_byte_alphabet() -> dict[str, int]:
    """Return the letter of each byte in byte-level BPE (Radford et al., 2019): itself if visible in Latin-1, else from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + offset): byte for offset, byte in enumerate(hidden)}


def _list_components(component: Any) -> list[dict[str, Any]]:  # noqa: ANN401  JSON
    if not isinstance(component, dict):
        return []
    inner = component.get("decoders") or component.get("pretokenizers") or []
    return [component, *(part for child in inner for part in _list_components(child))]
