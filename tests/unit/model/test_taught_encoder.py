"""An encoder with taught words: which texts have them, and what the model reads of the rest."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.taught_encoder import TaughtEncoder, teach_encoder
from stair_es.model.vocabularies.unknown_words import find_unknown_words
from stair_es.taught_words import TaughtMode, TaughtWord, normalize_word


def make_word(word: str, mode: TaughtMode = "replace", model: str = "stair-mini-3") -> TaughtWord:
    return TaughtWord(
        word=word, tokens={"tower": 1.0, "wind": 0.5}, floor=0.2, full=0.9, mode=mode, model=model, yes=("a", "b", "c")
    )


WORDS = {
    word.word: word
    for word in (
        *map(make_word, ("gefieder", "art nouveau", "castle", "pant", "café", "istanbul", "हिन्दी")),
        make_word("dog", "add"),
    )
}


@pytest.fixture(scope="module")
def base() -> Encoder:
    return registry.load_encoder(ModelSpec(name="stair-mini", text_tower="table"))


@pytest.fixture(scope="module")
def encoder(base: Encoder) -> Encoder:
    return teach_encoder(base, WORDS)


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        ("Gefieder", ["gefieder"], None),
        ("ein GEFIEDER, rot", ["gefieder"], "ein , rot"),
        ("art  nouveau lamp", ["art nouveau"], "lamp"),
        ("red wind-tower", [], None),
        ("two castles", ["castles"], "two"),
        ("gefieder-lamp", [], None),
        ("pants", [], None),
        ("a cafe", [], None),
        ("red cafe\u0301s", ["cafés"], "red"),
        ("red cafe\u0301", ["café"], "red"),
        ("İSTANBUL bridge", ["istanbul"], "bridge"),
        ("«हिन्दी» castle", ["हिन्दी", "castle"], None),
        ("modern-art nouveau", [], None),
        ("dog on a beach", ["dog"], "dog on a beach"),
        ("nothing new", [], None),
    ],
)
def test_words_of_a_text(encoder: TaughtEncoder, base: Encoder, text: str, found: list[str], rest: str | None) -> None:
    assert list(encoder.read_text(text).taught) == found
    [vector], others = encoder.encode_texts([text]), base.encode_texts([rest or text])[0].to_dict()
    weights = vector.to_dict()
    taught = {token: weights.pop(token) for token in list(weights) if token.startswith("#")}
    assert len(taught) == len(found)
    assert math.hypot(*vector.weights) == pytest.approx(1.0, abs=1e-3)
    if not found:
        assert vector.to_dict() == others
    elif len(found) > 1:
        assert weights == {}
    elif others:
        assert weights.keys() == others.keys()
        factors = [weights[token] / others[token] for token in others]
        assert max(factors) == pytest.approx(min(factors))
    else:
        assert (list(taught.values()), weights) == ([1.0], {})


def test_taught_words_are_known_words(encoder: TaughtEncoder, base: Encoder) -> None:
    assert [word.word for word in find_unknown_words(encoder, "gefieder xqzvt")] == ["xqzvt"]
    assert set(encoder.tokens) - set(base.tokens) == {f"#{name}" for name in WORDS}
    assert set(encoder.tokens) - set(encoder.photo_tokens or ()) == set(base.tokens) - set(base.photo_tokens or ())
    tokens = {word: encoder.tokenize_word(word) for word in ("Gefieder", "castles", "art nouveau", "#dog", "cat", "xqzvt")}
    assert tokens == {
        "Gefieder": ("#gefieder",),
        "castles": ("#castle",),
        "art nouveau": ("#art nouveau",),
        "#dog": ("#dog",),
        "cat": ("cat",),
        "xqzvt": (),
    }
    assert encoder.list_text_words("an art nouveau cat") == {"cat": ("cat",), "art nouveau": ("#art nouveau",)}


def test_local_words_search_the_tokens_that_they_were_taught_from(base: Encoder) -> None:
    encoder = teach_encoder(base, {"castle": WORDS["castle"]}, {"gefieder": WORDS["gefieder"]})
    vector = encoder.encode_texts(["gefieder"])[0].to_dict()
    assert vector == pytest.approx({"tower": 1 / math.sqrt(1.25), "wind": 0.5 / math.sqrt(1.25)})
    assert encoder.tokenize_word("gefieder") == ()
    assert teach_encoder(base, {}, {"dog": WORDS["dog"]}).tokenize_word("dog") == ("dog",)
    assert encoder.list_unknown_words("gefieder castle") == ()
    assert "#gefieder" not in encoder.tokens
    assert teach_encoder(encoder, {}) is base
    with expect_error("taught-for-other-model"):
        teach_encoder(base, {}, {"gefieder": make_word("gefieder", model="other-1")})


@pytest.mark.parametrize(
    ("word", "normal"),
    [("  Wind   Mill ", "wind mill"), ("Kühlschrank", "kühlschrank"), ("Ku\u0308hlschrank", "kühlschrank"), ("風車", "風車")]
    + [("हिन्दी", "हिन्दी"), ("กังหันลม", "กังหันลม"), ("İstanbul", "istanbul")]
    + [("Model 7", "model 7"), ("half-timbered", "half-timbered"), ("it's", "it's"), ("a" * 64, "a" * 64)]
    + [(bad, None) for bad in ("", " ", "a|b", "#a", "-a", "a_b", "7", "a b c d e", "a" * 65, "\ud800", "a\x00b", "a.b")],
)
def test_words_are_normalized_or_rejected(word: str, normal: Any) -> None:  # noqa: ANN401  a string or None
    if normal is not None:
        assert normalize_word(word) == normalize_word(normal) == normal
        return
    with expect_error("not-a-teachable-word"):
        normalize_word(word)
