"""One document as anyone may have written it, its thumbnail, and how it differs from what a model says now."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import pytest
from PIL import Image

from stair_es.cluster.documents import DocumentSettings, ImageFacts, document
from stair_es.inspection.compare import TOLERANCE, Difference, Now, compare, steered
from stair_es.inspection.stored import StoredImage, image_of, thumbnail_of, vector_of
from stair_es.policy import Undo, WordPolicy
from stair_es.types import SparseVector

POLICY = WordPolicy(name="p", mute=("egyptian",), cap={"cat": 0.3}, rename={"hound": "dog"})
WORDS = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.5, "hound": 0.25, "a.b": 0.125})


def hit(vector: SparseVector, policy: WordPolicy | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    facts = ImageFacts(
        uri="u", source="s", version="v", sha256="aa", width=1, height=2, format="PNG", taken_at=None, thumbnail="data:,"
    )
    made = document(
        vector,
        facts,
        fields={"caption": "c"},
        model_id="m-1",
        fingerprint="f",
        ingested_at="t",
        settings=DocumentSettings(impacts=True),
        policy=policy,
    )
    return {"_id": "1", "_index": "i-1", "_source": {**made, **more}}


def now(vector: SparseVector = WORDS, *, sha256: str = "aa", model: str = "m-1") -> Now:
    return Now(sha256=sha256, model=model, vector=vector)


def encoded(picture: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def uri(type_: str, data: bytes) -> str:
    return f"data:{type_};base64,{base64.b64encode(data).decode()}"


def test_a_document_is_its_words_and_what_people_can_read() -> None:
    image = image_of(hit(WORDS))
    assert (image.id, image.index, image.uri, image.vector) == ("1", "i-1", "u", WORDS)
    assert not {"tokens", "impacts", "thumbnail", "policy_undo"} & set(image.source)
    assert image.source["caption"] == "c"
    assert image.source["top_tokens"] == list(WORDS.features)
    assert not image.undo


@pytest.mark.parametrize("source", [None, {}, {"tokens": None}, {"tokens": [], "uri": ["u"], "policy_undo": 3}, {"uri": 7}])
def test_a_document_of_somebody_else_is_no_error(source: object) -> None:
    assert image_of({"_id": "1", "_source": source}) == StoredImage(
        id="1", index="", uri="", vector=SparseVector((), ()), source=image_of({"_id": "1", "_source": source}).source
    )


def test_what_no_query_could_find_is_no_word() -> None:
    tokens = {"dog": 1, "a%2Eb": "0.5", "zero": 0, "less": -1.0, "none": None, "nan": math.nan, "inf": math.inf, "%": 0.25}
    assert vector_of(tokens) == SparseVector(("dog", "a.b", ""), (1.0, 0.5, 0.25))
    assert vector_of({"dog": "one"}) == vector_of({"dog": {"a": 1}}) == vector_of("dog") == SparseVector((), ())


@pytest.mark.parametrize("form", ["WEBP", "JPEG", "PNG"])
def test_a_thumbnail_is_a_picture_that_is_what_it_says(form: str) -> None:
    data = encoded(Image.new("RGB", (8, 4), "red"), form)
    type_ = f"image/{form.lower()}"
    found = thumbnail_of(uri(type_, data))
    assert found is not None
    assert (found.content_type, found.data) == (type_, data)
    for other in {"image/webp", "image/jpeg", "image/png"} - {type_}:
        assert thumbnail_of(uri(other, data)) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "",
        "data:,",
        "https://elsewhere/a.png",
        uri("image/svg+xml", b"<svg onload='x()'/>"),
        uri("text/html", b"<script>"),
        uri("image/png", b"<script>"),
        "data:image/png;base64,@@@",
        "data:image/png;base64,iVBORw0KGgo=x",
        "data:image/webp;base64,UklGRg==",
        "data:image/png;base64,\u00e9",
        "data:image/png,\x89PNG",
    ],
)
def test_everything_else_is_no_thumbnail(value: object) -> None:
    assert thumbnail_of(value) is None


def test_the_same_words_are_the_same_up_to_rounding() -> None:
    image = image_of(hit(WORDS))
    assert compare(image, now(), None).same
    near = SparseVector.from_pairs((word, weight + 0.9 * TOLERANCE) for word, weight in WORDS)
    assert compare(image, now(near), None).same
    far = SparseVector.from_pairs((word, weight + 1.1 * TOLERANCE) for word, weight in WORDS)
    found = compare(image, now(far), None)
    assert [each.word for each in found.differences]
    assert not found.reasons


def test_a_changed_file_another_model_and_what_differs_largest_first() -> None:
    other = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.4, "fox": 0.9})
    found = compare(image_of(hit(WORDS)), now(other, sha256="bb", model="m-2"), None)
    assert not found.same
    assert found.differences == (
        Difference(word="fox", stored=0.0, now=0.9),
        Difference(word="hound", stored=0.25, now=0.0),
        Difference(word="a.b", stored=0.125, now=0.0),
        Difference(word="egyptian", stored=0.5, now=0.4),
    )
    file, model = found.reasons
    assert "the file has changed" in file
    assert "m-1" in model
    assert "m-2" in model


def test_a_policy_is_no_difference_where_it_was_applied() -> None:
    image = image_of(hit(WORDS, POLICY))
    found = compare(image, now(), POLICY)
    assert found.same
    assert not found.reasons


def test_a_policy_that_has_not_reached_a_document_and_one_that_was_taken_back() -> None:
    late = compare(image_of(hit(WORDS)), now(), POLICY)
    assert {each.word for each in late.differences} == {"cat", "egyptian", "hound", "dog"}
    assert POLICY.digest in late.reasons[0]
    assert "no token policy" in late.reasons[0]
    back = compare(image_of(hit(WORDS, POLICY)), now(), None)
    assert not back.same
    assert POLICY.digest in back.reasons[0]


def test_a_policy_that_does_not_touch_an_image_is_no_reason() -> None:
    plain = SparseVector.from_mapping({"tree": 1.0})
    found = compare(image_of(hit(plain, POLICY)), now(plain), POLICY)
    assert found.same
    assert not found.reasons


def test_what_a_policy_did() -> None:
    found = steered(image_of(hit(WORDS, POLICY)), POLICY)
    assert found is not None
    assert found.rules == ("hound -> dog", "mute egyptian", "cap cat")
    assert {each.word: (each.now, each.stored) for each in found.words} == {
        "cat": (0.8, 0.3),
        "egyptian": (0.5, 0.0),
        "hound": (0.25, 0.0),
        "dog": (0.0, 0.25),
    }
    assert steered(image_of(hit(WORDS)), POLICY) is None
    unknown = steered(image_of(hit(WORDS, POLICY)), None)
    assert unknown is not None
    assert unknown.rules == ()
    assert unknown.words == found.words


def test_an_undo_that_makes_no_vector_is_no_error() -> None:
    image = StoredImage(id="1", index="", uri="", vector=WORDS, source={}, undo=Undo(words={"cat": -1.0}))
    found = steered(image, POLICY)
    assert found is not None
    assert found.words == ()
