"""A vocabulary of whole words: words and token offsets of texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.models import tiny_stair

from stair_es.errors import ModelError
from stair_es.model.stair.tokenizer import StairTokenizer, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

WORDS = (
    *("dog", "cat", "wolf", "gray", "fish", "clownfish", "clown", "fox", "box", "berry", "church", "glass", "glasses", "lens"),
    *("tomato", "shoe", "bus", "jeans", "t-shirt", "x-ray", "café", "resume", "hedgehog", "alive", "herring", "ring", "cupboard"),
    *("doe", "new", "ice cream", "o'clock", "black", "white"),
)
SPELLINGS = {"wolves": "wolf", "grey": "gray", "mice": "cat", "soft ice": "ice cream", "tshirt": "t-shirt"}


@pytest.fixture(scope="module")
def vocabulary() -> WholeWordVocabulary:
    return WholeWordVocabulary(WORDS, SPELLINGS)


def said(vocabulary: WholeWordVocabulary, text: str) -> list[str]:
    return [vocabulary.words[index] for index, _, _ in vocabulary.match_words(text)]


@pytest.mark.parametrize(
    ("written", "word"),
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
def test_words_are_found_as_written(vocabulary: WholeWordVocabulary, written: str, word: str) -> None:
    assert vocabulary.words[vocabulary.find_word(written)] == word
    assert said(vocabulary, written) == [word]


@pytest.mark.parametrize("written", ["", "s", "do", "does", "news", "cafe", "dogss", "doggy", "ing", "2", "..."])
def test_other_words_are_not_found(vocabulary: WholeWordVocabulary, written: str) -> None:
    assert vocabulary.find_word(written) == -1
    assert said(vocabulary, written) == []


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
def test_words_are_matched_in_the_order_of_the_text(vocabulary: WholeWordVocabulary, text: str, words: list[str]) -> None:
    assert said(vocabulary, text) == words


def test_offsets_are_those_of_the_text(vocabulary: WholeWordVocabulary) -> None:
    text = "İİ re\u0301sume\u0301 GREY clown fish, black-white"
    result = [(vocabulary.words[index], text[begin:end]) for index, begin, end in vocabulary.match_words(text)]
    assert result == [
        ("resume", "re\u0301sume\u0301"),
        ("gray", "GREY"),
        ("clownfish", "clown fish"),
        ("clown", "clown"),
        ("fish", "fish"),
        ("black", "black"),
        ("white", "white"),
    ]


def test_a_word_is_assigned_to_its_first_token(vocabulary: WholeWordVocabulary) -> None:
    #        [CLS]   hedge   ##hog   clown     fish      ,         of        dogs      [SEP]
    offsets = [(0, 0), (0, 5), (5, 8), (9, 14), (15, 19), (19, 20), (21, 23), (24, 28), (0, 0)]
    indices = vocabulary.match_tokens("hedgehog clown fish, of dogs", offsets)
    assert [None if index < 0 else vocabulary.words[index] for index in indices] == [
        *(None, "hedgehog", None, "clownfish", "fish", None, None, "dog", None)
    ]
    assert vocabulary.match_tokens("hedgehog clown fish, of dogs", offsets[:2]) == [
        -1,
        vocabulary.index_of_word["hedgehog"],
    ]  # what is cut
    assert vocabulary.match_tokens("a dog", [(0, 1), (1, 5)]) == [
        -1,
        vocabulary.index_of_word["dog"],
    ]  # a token with the space before it
    assert vocabulary.match_tokens("", []) == []


def test_tokens_are_whole_words() -> None:
    vocabulary = WholeWordVocabulary(["dog", "running", "redcar", "bluebird", "xyzzy"], {"crimson": "dog"})
    tokens = StairTokenizer(tiny_stair.build_tokenizer(), vocabulary, tiny_stair.MAX_TOKENS)
    texts = ["Running dogs", "a RED car", "", "xyzzy", "blue bird sea"]
    result = tokens.encode(texts)
    assert result.features_BL.tolist() == [
        [-1, 1, -1, -1, 0, -1, -1],
        [-1, -1, 2, -1, -1, -1, -1],
        [-1] * 7,
        [-1, 4, -1, -1, -1, -1, -1],
        [-1, 3, -1, -1, -1, -1, -1],
    ]
    seen = {}
    for indices, part in tokens.encode_batches(texts, 2):
        for index, row, mask in zip(indices, part.features_BL, part.mask_BL, strict=True):
            seen[int(index)] = row[mask].tolist()
    assert seen == {
        index: row[mask].tolist() for index, (row, mask) in enumerate(zip(result.features_BL, result.mask_BL, strict=True))
    }
    assert tokens.tokens == vocabulary.words
    assert tokens.index_of_token == vocabulary.index_of_word
    assert tokens.ranks_F.tolist() == [1, 3, 2, 0, 4]
    assert [tokens.tokenize_word(word) for word in ("Dogs", "crimson", "blue bird", "running-dog", "cat", "")] == [
        *(("dog",), ("dog",), ("bluebird",), ("running", "dog"), (), ())
    ]
    names = tiny_stair.build_tokenizer()
    assert [[names.id_to_token(token) for token in row] for row in tokens.list_token_ids()] == [
        *(["dog"], ["run", "##n", "##ing"], ["[UNK]"], ["[UNK]"], ["[UNK]"])
    ]


def test_token_positions_match_their_features() -> None:
    ids = list_candidate_tokens(tiny_stair.build_tokenizer())
    tokens = StairTokenizer(tiny_stair.build_tokenizer(), ids[::2], tiny_stair.MAX_TOKENS)
    result = tokens.encode(["the dogs running of the sea .", "cat ! cat", "", "xyzzy"])
    assert np.array_equal(result.features_BL, np.where(result.mask_BL, tokens.own_feature_of_V[result.ids_BL], -1))
    assert (result.features_BL >= 0).any()
    assert tokens.list_token_ids() == [[int(token)] for token in ids[::2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't be read"),
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ("{}", "can't be read"),
        ('{"words": 3}', "can't be read"),
        ('{"words": "dog"}', "can't be read"),
        ('{"words": ["dog"], "spellings": ["x"]}', "can't be read"),
        ('{"words": []}', "has no words"),
        ('{"words": ["dog", ""]}', "empty"),
        ('{"words": ["dog", "dog"]}', "duplicate word"),
        ('{"words": ["Dog"]}', "'Dog'"),
        ('{"words": ["dog"], "spellings": {"kitty": "cat"}}', "'kitty' as 'cat'"),
    ],
)
def test_a_broken_file_is_reported(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "words.json").write_text(text)
    with pytest.raises(ModelError, match=message) as error:
        WholeWordVocabulary.from_file(tmp_path / "words.json")
    assert error.value.remedy


def test_files_round_trip(tmp_path: Path, vocabulary: WholeWordVocabulary) -> None:
    (tmp_path / "words.json").write_text(vocabulary.to_json(), encoding="utf-8")
    loaded = WholeWordVocabulary.from_file(tmp_path / "words.json")
    assert (loaded.words, loaded.spellings) == (vocabulary.words, vocabulary.spellings)
    assert loaded.to_json() == vocabulary.to_json()
    assert json.loads(vocabulary.to_json())["words"] == list(WORDS)
    assert [vocabulary.ranks[vocabulary.index_of_word[word]] for word in sorted(WORDS)] == list(range(len(WORDS)))
