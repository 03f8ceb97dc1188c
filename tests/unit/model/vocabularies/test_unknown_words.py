"""Words that a model doesn't know, and suggestions of similar ones."""

from collections.abc import Sequence

import pytest

from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.vocabularies.unknown_words import UnknownWord, find_unknown_words, is_rarest_word_known, suggest_words
from stair_es.types import ImageSpec, Pixels, SparseVector


class PiecesEncoder(Encoder):
    """An encoder of a few pieces of words; it neither lists its tokens nor checks words."""

    card = ModelCard(name="pieces", model_id="pieces-1", image_spec=ImageSpec(size_px=8), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        return [SparseVector((), ()) for _ in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector((), ()) for _ in texts]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        return {"dogs": ("dog", "##s"), "コ": ("[UNK]",)}.get(word, ())


@pytest.fixture(scope="module")
def mini_encoder() -> StairMiniEncoder:
    return StairMiniEncoder(ModelSpec(name="stair-mini", text_tower="table"))


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("xyzzy", [("xyzzy", False)]),
        ("コーヒー", [("コーヒー", False)]),
        ("The Elefant and a dog", [("elefant", True)]),
        ("xyzzy XYZZY", [("xyzzy", False)]),
        ("a clown fish, two dogs, the dog's ball", []),
        ("in 2023 - ?!", []),
        ("the", []),
        ("berlin", []),  # not a token, but a whole word of the text network that is near to some
        ("a café in ZÜRICH", []),  # which reads words without accents
        ("naive jody", [("naive", True), ("jody", True)]),  # whole words that are near to none
        ("hund", [("hund", False)]),  # translated
    ],
)
def test_unknown_words_are_found(mini_encoder: StairMiniEncoder, text: str, unknown: list[tuple[str, bool]]) -> None:
    words = find_unknown_words(mini_encoder, text)
    assert [(each.word, bool(each.suggestions)) for each in words] == unknown


def test_similar_words_are_suggested(mini_encoder: StairMiniEncoder) -> None:
    for word, suggestion in {"elefant": "elephant", "giraf": "giraffe", "gorrila": "gorilla", "bicyle": "bicycle"}.items():
        assert suggestion in suggest_words(mini_encoder, word)
    first = {"elepahnt": "elephant", "elefant": "elephant", "doggos": "dog", "buterflies": "butterfly", "kiten": "kitten"}
    assert {word: suggest_words(mini_encoder, word)[0] for word in first} == first
    assert not {"lips", "skate"} & {*suggest_words(mini_encoder, "tulips"), *suggest_words(mini_encoder, "katze")}
    for word in ("コーヒー", "q", "xyzzy"):
        assert suggest_words(mini_encoder, word) == ()


@pytest.mark.parametrize(
    ("text", "searched_for"),
    [
        ("buterfly", ["butterfly"]),
        ("the kiten", ["kitten"]),
        ("perro rojo", ["dog", ""]),
        ("gatos", ["cat"]),
        ("red buterfly", [""]),  # one word is known
        ("xqzzy", [""]),
    ],
)
def test_what_is_searched_instead_is_said(mini_encoder: StairMiniEncoder, text: str, searched_for: list[str]) -> None:
    unknown = find_unknown_words(mini_encoder, text)
    assert [each.searched_for for each in unknown] == searched_for
    assert all(repr(each.searched_for) in str(each) for each in unknown if each.searched_for)
    assert not [each for each in unknown if each.searched_for in each.suggestions]
    assert is_rarest_word_known(mini_encoder, text) == all(searched_for)


def test_a_model_of_pieces_knows_a_word_by_any_piece() -> None:
    encoder = PiecesEncoder()
    assert [unknown.word for unknown in find_unknown_words(encoder, "dogs コ zebra")] == ["コ", "zebra"]
    assert [is_rarest_word_known(encoder, text) for text in ("dogs", "dogs zebra", "a zebra")] == [True, False, False]
    assert suggest_words(encoder, "dogz") == ()


@pytest.mark.parametrize(
    ("text", "is_known"),
    [("the", True), ("the xyzzy", False), ("xyzzy dog", False), ("the Eiffel tower", False), ("a wonderful peacock", True)],
)
def test_the_rarest_word_tells_what_is_searched(mini_encoder: StairMiniEncoder, text: str, *, is_known: bool) -> None:
    assert is_rarest_word_known(mini_encoder, text) == is_known


def test_texts_name_the_word_and_its_suggestions() -> None:
    assert "'xyzzy'" in str(UnknownWord(word="xyzzy"))
    text = str(UnknownWord(word="elefant", suggestions=("elephant", "elegant")))
    assert [word for word in ("'elefant'", "elephant or elegant") if word not in text] == []
