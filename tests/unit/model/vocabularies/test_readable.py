"""Tokens as words: readable, all different, and escaped."""

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


METASPACE = {"▁dog": "dog", "dog": "##dog", "▁": "▁", "▁new▁york": "▁new▁york", "s": "##s"}
PLAIN = {token: token for token in ("dog", "##s", "new york", "Ġ")}


@pytest.mark.parametrize(("style", "words"), [("byte-level", BYTES), ("metaspace", METASPACE), ("plain", PLAIN)])
def test_tokens_become_readable(style: TokenizerStyle, words: dict[str, str]) -> None:
    assert make_readable_tokens(tuple(words), style, frozenset({"<pad>"})) == tuple(words.values())


@pytest.mark.parametrize("style", ["byte-level", "metaspace"])
def test_all_words_differ_in_any_vocabulary(style: TokenizerStyle) -> None:
    """Use tokens whose words collide with each other and with other tokens."""
    mark = {"byte-level": "Ġ", "metaspace": "▁"}[style]
    suffixes = ("x", "##x", "####x", f"{mark}x", "xx")
    tokens = dict.fromkeys([*(mark * count + suffix for count in range(3) for suffix in suffixes), "ÄłÄł", "Äł##x"])
    assert len(set(make_readable_tokens(tuple(tokens), style))) == len(tokens)


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
