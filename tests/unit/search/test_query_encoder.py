"""Words and files -> vectors, with a toy encoder."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es.errors import DecodeError, QueryError
from stair_es.model.base import Encoder, MatchThresholds, ModelCard
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_words import list_named_words
from stair_es.search.dsl.understanding import SearchFields
from stair_es.search.query import CaptionWord, SearchQuery
from stair_es.search.query_encoder import build_search_query, encode_query_image, encode_query_text
from stair_es.sources.base import ReadLimits
from stair_es.types import ImageSpec, Pixels, SparseVector


class BrightnessEncoder(Encoder):
    """Toy encoder with one word per image, its brightness, and one per text, its length."""

    card = ModelCard(name="brightness", model_id="brightness-1", image_spec=ImageSpec(size_px=8), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        assert pixels_BHWC.shape[1:] == (8, 8, 3)
        return [SparseVector.from_mapping({"bright": float(p.mean()) + 1}) for p in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_mapping({word: 1.0 for word in text.split() if word != "unknown"}) for text in texts]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("red car", ["car", "red"]),
        ("red " * 512 + "car", ["red"]),
        ("red " * 511 + "cars car", ["cars", "red"]),
        ("red " * 511 + "longer", ["red"]),
        ("x" * 3000, ["x" * 2048]),
        ("Title: " + "x" * 3000, ["Title:", "x" * 2041]),
        ("red\ncar\n" * 500, ["car", "red"]),
        ("\n" * 3000 + "red\tcar", ["car", "red"]),
    ],
)
def test_the_whole_words_at_the_beginning_of_a_text_are_encoded(text: str, tokens: list[str]) -> None:
    assert sorted(encode_query_text(BrightnessEncoder(), text).tokens) == tokens


def test_texts_of_unknown_words_are_rejected() -> None:
    with expect_error("no-known-word", QueryError) as caught:
        encode_query_text(BrightnessEncoder(), "unknown unknown")
    assert "'unknown unknown'" in caught.value.message
    assert caught.value.remedy


def test_images_use_the_encoder_pixels(tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.fromarray(np.full((30, 20, 3), 255, np.uint8)).save(path)
    assert encode_query_image(BrightnessEncoder(), path).to_dict() == {"bright": 256.0}


@pytest.mark.parametrize(
    ("data", "code"), [(b"", "file-empty"), (b"no image", "unknown-image-format"), (b"x" * 101, "file-too-large")]
)
def test_a_bad_file_is_named_with_its_reason(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(data)
    with expect_error(code, DecodeError) as caught:
        encode_query_image(BrightnessEncoder(), path, ReadLimits(max_bytes=100))
    assert "bad.jpg" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with expect_error("file-unreadable", DecodeError) as caught:
        encode_query_image(BrightnessEncoder(), tmp_path / "gone.jpg")
    assert "gone.jpg" in caught.value.message


class GradingEncoder(BrightnessEncoder):
    """Knows all words but `unknown`, and where weak matches begin."""

    card = replace(
        BrightnessEncoder.card, match_thresholds=MatchThresholds(weak_cosine=0.4, weak_image_cosine=0.3, named_weight=0.25)
    )

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        return ("unknown",) if "unknown" in text else ()


MANY_WORDS = " ".join(f"{letter}word" for letter in "abcdefghijklmnopqrst")


@pytest.mark.parametrize(
    ("inputs", "caption_words", "needed", "weak_cosine"),
    [
        (QueryInputs(query_string="red car"), {"red", "car"}, set(), 0.4),
        (QueryInputs(query_string="unknown car"), {"unknown", "car"}, {"unknown"}, 0.4),  # no picture tells the rarest word
        (QueryInputs(query_string='"unknown car" red'), {"unknown car", "red"}, {"unknown car"}, 0.4),
        (QueryInputs(query_string="unknown-car red"), {"unknown-car", "red"}, {"unknown-car"}, 0.4),
        (QueryInputs(query_string="unknown_car"), {"unknown", "car"}, {"unknown"}, 0.4),
        (QueryInputs(query_string=f"{MANY_WORDS} unknown"), {"unknown", *MANY_WORDS.split()[:15]}, set(), 0.4),
        (QueryInputs(query_string="unknown car", hybrid=False), set(), {"unknown"}, 1.0),  # and there is no caption
        (QueryInputs(query_string="unknown car", caption_weight=0), set(), {"unknown"}, 1.0),
        (QueryInputs(query_string="unknown", texts=["car"]), {"unknown"}, set(), 0.4),
        (QueryInputs(query_string="red", caption="crimson"), {"crimson"}, set(), 0.4),
        (QueryInputs(query_string="unknown", vectors=[SparseVector(("a",), (1.0,))]), {"unknown"}, set(), 0.3),
        (QueryInputs(query_string="the"), set(), set(), 0.4),  # nearly every caption has it
    ],
)
def test_what_a_match_needs(inputs: QueryInputs, caption_words: set[str], needed: set[str], weak_cosine: float) -> None:
    query = build_search_query(GradingEncoder(), inputs, fields=SearchFields(text="title"))
    assert query.match_cut
    assert {word.text for word in query.match_cut.words if word.text} == caption_words
    assert query.match_cut.needed_words == needed
    assert query.match_cut.weak_below == pytest.approx(weak_cosine * math.hypot(*query.vector.weights))
    assert sum(word.share for word in query.searched_words) == pytest.approx(1 if caption_words else 0)
    if "unknown" not in inputs.query_string:
        assert build_search_query(BrightnessEncoder(), inputs).match_cut is None


def test_required_and_excluded_words_may_be_in_captions() -> None:
    inputs = QueryInputs(query_string="+dogs unknown -unknown", excluded=["cats"])
    query = build_search_query(SpellingEncoder(), inputs, fields=SearchFields(text="title"))
    assert query.required_words == [CaptionWord("dogs", 0.0, ("dog",))]
    assert query.excluded_words == [CaptionWord("unknown", 0.0), CaptionWord("cats", 0.0, ("cat",))]
    assert (*query.required, *query.excluded) == ()
    assert any("'unknown'" in remark for remark in query.remarks)
    for fields in (SearchFields(), SearchFields(text="title")):
        with expect_error("word-not-in-vocabulary", QueryError):  # nearly every caption has the second one
            build_search_query(SpellingEncoder(), QueryInputs(query_string="dog", excluded=["unknown", "the"]), fields=fields)


def test_a_model_that_knows_no_word_leaves_it_to_captions() -> None:
    class SilentEncoder(GradingEncoder):
        def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
            return [SparseVector((), ()) for _ in texts]

    query = build_search_query(SilentEncoder(), QueryInputs(query_string="unknown"), fields=SearchFields(text="caption"))
    assert not len(query.vector)
    assert query.match_cut
    assert [query.match_cut.is_weak(9.0, {}, frozenset(found)) for found in ((), ("unknown",))] == [True, False]
    with expect_error("no-known-word", QueryError):
        build_search_query(SilentEncoder(), QueryInputs(query_string="unknown"))


class SpellingEncoder(BrightnessEncoder):
    """Has a token for each word that it knows."""

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        return () if word in ("unknown", "the") else (word.removesuffix("s"),)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["the Dogs on a beach"], [("dog",), ("beach",)]),  # no stop words
        (["a dog", "a cat"], [("dog",), ("cat",)]),
        (["a dog unknown"], []),  # no image has that one
        ([], []),
    ],
)
def test_the_words_of_texts_as_tokens(texts: list[str], words: list[tuple[str, ...]]) -> None:
    assert list_named_words(SpellingEncoder(), texts) == words


@pytest.mark.parametrize(
    ("query_string", "rest", "conditions"),
    [
        ('"red" shoes', "red shoes", []),
        ('"red shoes" under 40', "red shoes", ["under 40"]),
        ("red^2 shoes", "red shoes", []),
        ("+red blue shoes", "red shoes", ["blue"]),
        ("shoes -red", "shoes", []),
        ("red unknown", "red unknown", []),  # nothing would be left to rank by
        ("red the", "red the", []),
    ],
)
def test_words_in_quotes_or_with_an_operator_stay_words(query_string: str, rest: str, conditions: list[str]) -> None:
    encoder, fields = SpellingEncoder(), SearchFields(colors="colors", price="price")
    understood = QueryInputs(query_string=query_string).understand(encoder, fields)
    assert (understood.text, [condition.text for condition in understood.conditions]) == (rest, conditions)
    assert not QueryInputs(query_string=query_string, literal=True).understand(encoder, fields).conditions


def test_a_query_keeps_its_unknown_words_and_remarks() -> None:
    query = build_search_query(GradingEncoder(), QueryInputs(query_string="red AND unknown"))
    assert [each.word for each in query.unknown_words] == ["unknown"]
    assert "AND" in query.remarks[0]
    assert not build_search_query(GradingEncoder(), QueryInputs(query_string="red AND blue", literal=True)).remarks


def get_weak_below(query: SearchQuery) -> float:
    assert query.match_cut
    assert query.match_cut.weak_below is not None
    return query.match_cut.weak_below


def test_a_boost_scales_the_cut_with_the_vector() -> None:
    plain = build_search_query(GradingEncoder(), QueryInputs(query_string="red car"))
    boosted = build_search_query(GradingEncoder(), QueryInputs(query_string="red^2 car^2"))
    assert get_weak_below(plain) == pytest.approx(0.4 * 2**0.5)
    assert get_weak_below(boosted) == pytest.approx(0.8 * 2**0.5)
    one = build_search_query(GradingEncoder(), QueryInputs(query_string="red^100 car"))
    assert get_weak_below(one) == pytest.approx(40, rel=1e-3)  # a document with 0.4 of `red` alone still matches


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (QueryInputs(query_string="a^4 b^0"), {"a": 4.0}),
        (QueryInputs(texts=["a b"], boosts={"a": 4.0}, muted=frozenset({"b", "z"})), {"a": 4.0}),
        (QueryInputs(texts=["a b"], factors={"a": 0.0, "c": 3.0}), {"b": 1.0, "c": 3.0}),
        (QueryInputs(query_string="a^0 b", factors={"a": 1.0}), {"a": 1.0, "b": 1.0}),
        (QueryInputs(vectors=[SparseVector(("a",), (2.0,))], texts=["a"], weights=[1.0, 0.5]), {"a": 2.0}),
        (QueryInputs(texts=["a b"], boosts={"z": 2.0}), "no-such-token-to-boost"),
        (QueryInputs(texts=["a"], muted=frozenset({"a"})), "all-tokens-muted"),
        (QueryInputs(texts=["a"], factors={"a": 0.0}), "all-tokens-muted"),
        (QueryInputs(query_string="a^0"), "all-tokens-muted"),
        (QueryInputs(query_string="a^1e308", factors={"a": 1e6}), "boost-too-large"),
    ],
)
def test_boosts_muted_words_and_factors(inputs: QueryInputs, expected: dict[str, float] | str) -> None:
    if isinstance(expected, str):
        with expect_error(expected, QueryError):
            build_search_query(BrightnessEncoder(), inputs)
    else:
        assert build_search_query(BrightnessEncoder(), inputs).vector == SparseVector.from_mapping(expected)
