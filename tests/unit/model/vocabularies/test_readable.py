"""Tokens as words: readable, all different, and back."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordPiece

from stair_es.feature_names import escape_feature, unescape_feature
from stair_es.model.vocabularies.readable import TokenizerStyle, detect_tokenizer_style, make_readable_tokens

BYTES = {
    "Ġdog": "dog",
    "dog": "##dog",
    "Ġ": "Ġ",
    "ĠĠ": "ĠĠ",
    "Ċ": "Ċ",
    "ĠCafÃ©": "Café",
    "Ã": "Ã",
    "Ġ3.14": "3.14",
    "%": "##%",
    "Ġ##dog": "Ġ##dog",  # `##dog` is taken
    "ĠäºĨ": "了",
    ".": "##.",
    "Ġ.": ".",
    "<pad>": "<pad>",
    "ĠðŁĲķ": "🐕",
}


def test_byte_level_tokens() -> None:
    assert make_readable_tokens(tuple(BYTES), "byte-level", frozenset({"<pad>"})) == tuple(BYTES.values())


def test_metaspace_tokens() -> None:
    assert make_readable_tokens(("▁dog", "dog", "▁", "▁new▁york", "s"), "metaspace") == ("dog", "##dog", "▁", "▁new▁york", "##s")


def test_plain_tokens() -> None:
    assert make_readable_tokens(("dog", "##s", "new york", "Ġ"), "plain") == ("dog", "##s", "new york", "Ġ")


@pytest.mark.parametrize("style", ["byte-level", "metaspace"])
def test_all_words_differ_in_any_vocabulary(style: TokenizerStyle) -> None:
    """Tokens that were made to collide: with each other's word, and with a word that is somebody's token."""
    mark = {"byte-level": "Ġ", "metaspace": "▁"}[style]
    pieces = ("x", "##x", "####x", f"{mark}x", "xx")
    tokens = tuple(
        dict.fromkeys((*pieces, *(mark + piece for piece in pieces), *(mark * 2 + piece for piece in pieces), "ÄłÄł", "Äł##x"))
    )
    words = make_readable_tokens(tokens, style)
    assert len(set(words)) == len(tokens)


def test_words_survive_the_escape() -> None:
    for word in make_readable_tokens(tuple(BYTES), "byte-level"):
        assert unescape_feature(escape_feature(word)) == word
        assert "." not in escape_feature(word)


def test_the_style_of_a_tokenizer() -> None:
    byte_level = Tokenizer(BPE())
    byte_level.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    metaspace = Tokenizer(BPE())
    metaspace.decoder = decoders.Metaspace()
    assert detect_tokenizer_style(byte_level.to_str()) == "byte-level"
    assert detect_tokenizer_style(metaspace.to_str()) == "metaspace"
    assert detect_tokenizer_style(Tokenizer(WordPiece()).to_str()) == "plain"
