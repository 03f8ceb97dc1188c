"""A vocabulary of whole words: words and token offsets of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.errors import expect_error
from support.models import tiny_stair

from stair_es.model.stair.tokenizer import StairTokenizer, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

WORDS = (
    *("dog", "cat", "wolf", "gray", "fish", "clownfish", "clown", "fox", "box", "berry", "church", "glass", "glasses", "lens"),
    *("tomato", "shoe", "bus", "jeans", "t-shirt", "x-ray", "café", "resume", "hedgehog", "alive", "herring", "ring", "cupboard"),
    *("doe", "new", "ice cream", "o'clock", "black", "white"),
)
SPELLINGS = {"wolves": "wolf", "grey": "gray", "mice": "cat", "soft ice": "ice cream", "tshirt": "t-shirt"}


VOCABULARY = WholeWordVocabulary(WORDS, SPELLINGS)


def list_words(text: str) -> list[str]:
    return [VOCABULARY.words[index] for index, _, _ in VOCABULARY.match_words(text)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("dog", "dog"),
        ("DOG", "dog"),
        ("dogs", "dog"),
        ("Dogs", "dog"),
        ("foxes", "fox"),
        ("boxes", "box"),
        ("berries", "berry"),
        ("churches", "church"),
        ("tomatoes", "tomato"),
        ("shoes", "shoe"),
        ("lenses", "lens"),
        ("buses", "bus"),
        ("glasses", "glasses"),
        ("jeans", "jeans"),
        ("wolves", "wolf"),
        ("GREY", "gray"),
        ("greys", "gray"),
        ("café", "café"),
        ("CAFÉS", "café"),
        ("cafe\u0301", "café"),
        ("résumé", "resume"),
        ("re\u0301sume\u0301s", "resume"),
        ("ice cream", "ice cream"),
    ],
)
def test_words_are_found_in_their_forms(text: str, word: str) -> None:
    assert VOCABULARY.words[VOCABULARY.find_word(text)] == word
    assert list_words(text) == [word]


@pytest.mark.parametrize("text", ["", "s", "do", "does", "news", "cafe", "dogss", "doggy", "ing", "2", "..."])
def test_other_words_are_not_found(text: str) -> None:
    assert VOCABULARY.find_word(text) == -1
    assert list_words(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a dog and a cat", ["dog", "cat"]),
        ("dog dog", ["dog", "dog"]),
        ("a clown fish", ["clownfish", "clown", "fish"]),
        ("clownfish", ["clownfish"]),
        ("clown-fish", ["clownfish"]),
        ("clown fishes", ["clownfish", "clown", "fish"]),
        ("a clown, fish", ["clown", "fish"]),
        ("cup. Board", []),
        ("a cup\n board", ["cupboard"]),
        ("a live band with her ring", ["ring"]),
        ("two ice creams", ["ice cream"]),
        ("Soft Ice", ["ice cream"]),
        ("black-and-white dog", ["black", "white", "dog"]),
        ("a T-shirt, a t shirt, a tshirt", ["t-shirt"] * 3),
        ("an x-ray", ["x-ray"]),
        ("the dog's box", ["dog", "box"]),
        ("the dogs’ box at 5 o'clock", ["dog", "box", "o'clock"]),
        ("dog_cat3fish", ["dog", "cat", "fish"]),
        ("'dog' -cat- (fish)", ["dog", "cat", "fish"]),
    ],
)
def test_words_are_matched_in_the_order_of_the_text(text: str, words: list[str]) -> None:
    assert list_words(text) == words


def test_offsets_are_those_of_the_text() -> None:
    text = "İİ re\u0301sume\u0301 GREY clown fish, black-white"
    matches = [(VOCABULARY.words[index], text[begin:end]) for index, begin, end in VOCABULARY.match_words(text)]
    assert matches == [
        ("resume", "re\u0301sume\u0301"),
        ("gray", "GREY"),
        ("clownfish", "clown fish"),
        ("clown", "clown"),
        ("fish", "fish"),
        ("black", "black"),
        ("white", "white"),
    ]


def match_tokens(text: str, offsets: list[tuple[int, int]]) -> list[str]:
    """Return the word of each token, or an empty string."""
    return ["" if index < 0 else VOCABULARY.words[index] for index in VOCABULARY.match_tokens(text, offsets)]


def test_a_word_is_assigned_to_its_first_token() -> None:
    text = "hedgehog clown fish, of dogs"
    #        [CLS]   hedge   ##hog   clown     fish      ,         of        dogs      [SEP]
    offsets = [(0, 0), (0, 5), (5, 8), (9, 14), (15, 19), (19, 20), (21, 23), (24, 28), (0, 0)]
    assert match_tokens(text, offsets) == ["", "hedgehog", "", "clownfish", "fish", "", "", "dog", ""]
    assert match_tokens(text, offsets[:2]) == ["", "hedgehog"]  # truncated
    assert match_tokens("a dog", [(0, 1), (1, 5)]) == ["", "dog"]  # a token that begins with a space
    assert match_tokens("", []) == []


def test_tokens_are_whole_words() -> None:
    vocabulary = WholeWordVocabulary(["dog", "running", "redcar", "bluebird", "xyzzy"], {"crimson": "dog"})
    tokenizer = StairTokenizer(tiny_stair.build_tokenizer(), vocabulary, tiny_stair.MAX_TOKENS)
    texts = ["Running dogs", "a RED car", "", "xyzzy", "blue bird sea"]
    result = tokenizer.encode(texts)
    assert result.features_BL.tolist() == [
        [-1, 1, -1, -1, 0, -1, -1],
        [-1, -1, 2, -1, -1, -1, -1],
        [-1] * 7,
        [-1, 4, -1, -1, -1, -1, -1],
        [-1, 3, -1, -1, -1, -1, -1],
    ]
    rows = 0
    for indices, batch in tokenizer.encode_batches(texts, 2):
        for index, features_L, mask_L in zip(indices, batch.features_BL, batch.mask_BL, strict=True):
            assert features_L[mask_L].tolist() == result.features_BL[index][result.mask_BL[index]].tolist()
            rows += 1
    assert rows == len(texts)
    assert tokenizer.tokens == vocabulary.words
    assert tokenizer.index_of_token == vocabulary.index_of_word
    words = {
        "Dogs": ("dog",),
        "crimson": ("dog",),
        "blue bird": ("bluebird",),
        "running-dog": ("running", "dog"),
        "cat": (),
        "": (),
    }
    assert {word: tokenizer.tokenize_word(word) for word in words} == words
    get_token = tiny_stair.build_tokenizer().id_to_token
    pieces = [[get_token(token) for token in ids] for ids in tokenizer.list_token_ids()]
    assert pieces == [["dog"], ["run", "##n", "##ing"], ["[UNK]"], ["[UNK]"], ["[UNK]"]]


def test_token_positions_match_their_features() -> None:
    ids_F = list_candidate_tokens(tiny_stair.build_tokenizer())[::2]
    tokenizer = StairTokenizer(tiny_stair.build_tokenizer(), ids_F, tiny_stair.MAX_TOKENS)
    result = tokenizer.encode(["the dogs running of the sea .", "cat ! cat", "", "xyzzy"])
    assert np.array_equal(result.features_BL, np.where(result.mask_BL, tokenizer.own_feature_of_V[result.ids_BL], -1))
    assert (result.features_BL >= 0).any()
    assert tokenizer.list_token_ids() == [[int(token)] for token in ids_F]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "words.json"),
        ("{", "words.json"),
        ("[]", "words.json"),
        ("{}", "words.json"),
        ('{"words": 3}', "words.json"),
        ('{"words": "dog"}', "words.json"),
        ('{"words": ["dog"], "spellings": ["x"]}', "words.json"),
        ('{"words": []}', "no words"),
        ('{"words": ["dog", ""]}', "''"),
        ('{"words": ["dog", "dog"]}', "duplicate"),
        ('{"words": ["Dog"]}', "'Dog'"),
        ('{"words": ["dog"], "spellings": {"kitty": "cat"}}', "'kitty' as 'cat'"),
    ],
)
def test_a_broken_file_is_reported(tmp_path: Path, content: str | None, fact: str) -> None:
    if content is not None:
        (tmp_path / "words.json").write_text(content)
    with expect_error("checkpoint-error") as caught:
        WholeWordVocabulary.from_file(tmp_path / "words.json")
    assert fact in caught.value.message


def test_files_round_trip(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text(VOCABULARY.to_json(), encoding="utf-8")
    loaded = WholeWordVocabulary.from_file(tmp_path / "words.json")
    assert (loaded.words, loaded.spellings) == (VOCABULARY.words, VOCABULARY.spellings)
    assert loaded.to_json() == VOCABULARY.to_json()
    assert json.loads(VOCABULARY.to_json())["words"] == list(WORDS)
