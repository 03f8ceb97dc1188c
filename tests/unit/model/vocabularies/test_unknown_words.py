"""Words that a model doesn't know, and words that are spelled like them."""

from collections.abc import Sequence

import pytest

from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.vocabularies.unknown_words import UnknownWord, find_unknown_words, has_known_word, suggest_words
from stair_es.types import ImageSpec, Pixels, SparseVector


class PiecesEncoder(Encoder):
    """Toy encoder of a few pieces; it neither lists its tokens nor checks words."""

    card = ModelCard(name="pieces", model_id="pieces-1", image_spec=ImageSpec(size_px=8), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        return [SparseVector((), ()) for _ in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector((), ()) for _ in texts]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        return {"dogs": ("dog", "##s"), "コ": ("[UNK]",)}.get(word, ())


@pytest.fixture(scope="module")
def mini() -> StairMiniEncoder:
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
        ("paris", []),  # not a token, but a whole word of the text network
        ("a naïve résumé from ZÜRICH", []),  # which reads words without accents
    ],
)
def test_unknown_words_are_found(mini: StairMiniEncoder, text: str, unknown: list[tuple[str, bool]]) -> None:
    assert [(each.word, bool(each.suggestions)) for each in find_unknown_words(mini, text)] == unknown


@pytest.mark.parametrize(
    ("word", "meant"), [("elefant", "elephant"), ("giraf", "giraffe"), ("gorrila", "gorilla"), ("bicyle", "bicycle")]
)
def test_near_spellings_are_suggested(mini: StairMiniEncoder, word: str, meant: str) -> None:
    assert meant in suggest_words(mini, word)


def test_nothing_is_suggested_for_other_scripts_and_single_letters(mini: StairMiniEncoder) -> None:
    assert [suggest_words(mini, word) for word in ("コーヒー", "q", "xyzzy")] == [(), (), ()]


def test_a_model_of_pieces_knows_a_word_by_any_piece() -> None:
    encoder = PiecesEncoder()
    assert [each.word for each in find_unknown_words(encoder, "the dogs コ zebra")] == ["コ", "zebra"]
    assert has_known_word(encoder, "dogs zebra")
    assert not has_known_word(encoder, "a zebra")
    assert suggest_words(encoder, "dogz") == ()


def test_stop_words_alone_are_not_unknown(mini: StairMiniEncoder) -> None:
    assert [has_known_word(mini, text) for text in ("the", "the xyzzy", "xyzzy dog")] == [True, False, True]


def test_a_user_reads_the_word_and_what_is_near() -> None:
    assert str(UnknownWord(word="xyzzy")) == "'xyzzy' is not a word of this model"
    found = str(UnknownWord(word="elefant", suggestions=("elephant", "elegant")))
    assert found == "'elefant' is not a word of this model; did you mean elephant or elegant?"
