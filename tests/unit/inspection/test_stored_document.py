"""One stored document, its thumbnail, and differences to the current model."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import pytest
from PIL import Image

from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document
from stair_es.inspection.diff import TOLERANCE, CurrentVector, WeightDifference, compare_vectors, find_policy_effect
from stair_es.inspection.stored_document import StoredImage, parse_stored_image, parse_thumbnail, parse_token_vector
from stair_es.token_policy import PolicyUndo, TokenPolicy
from stair_es.types import SparseVector

POLICY = TokenPolicy(name="p", mute=("egyptian",), cap={"cat": 0.3}, rename={"hound": "dog"})
WORDS = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.5, "hound": 0.25, "a.b": 0.125})


def hit(vector: SparseVector, policy: TokenPolicy | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    facts = ImageMetadata(
        uri="u",
        name="u",
        source="s",
        version="v",
        bytes=1,
        sha256="aa",
        width=1,
        height=2,
        format="PNG",
        taken_at=None,
        thumbnail="data:,",
    )
    made = build_document(
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


def now(vector: SparseVector = WORDS, *, sha256: str = "aa", model: str = "m-1") -> CurrentVector:
    return CurrentVector(sha256=sha256, model=model, vector=vector)


def encoded(picture: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def uri(type_: str, data: bytes) -> str:
    return f"data:{type_};base64,{base64.b64encode(data).decode()}"


def test_document_shows_words_and_readable_fields() -> None:
    image = parse_stored_image(hit(WORDS))
    assert (image.id, image.index, image.uri, image.vector) == ("1", "i-1", "u", WORDS)
    assert not {"tokens", "impacts", "thumbnail", "policy_undo"} & set(image.source)
    assert image.source["caption"] == "c"
    assert image.source["top_tokens"] == list(WORDS.tokens)
    assert not image.undo


@pytest.mark.parametrize("source", [None, {}, {"tokens": None}, {"tokens": [], "uri": ["u"], "policy_undo": 3}, {"uri": 7}])
def test_a_foreign_document_is_read_without_error(source: object) -> None:
    assert parse_stored_image({"_id": "1", "_source": source}) == StoredImage(
        id="1", index="", uri="", vector=SparseVector((), ()), source=parse_stored_image({"_id": "1", "_source": source}).source
    )


def test_tokens_that_no_query_can_find_are_left_out() -> None:
    tokens = {"dog": 1, "a%2Eb": "0.5", "zero": 0, "less": -1.0, "none": None, "nan": math.nan, "inf": math.inf, "%": 0.25}
    assert parse_token_vector(tokens) == SparseVector(("dog", "a.b", ""), (1.0, 0.5, 0.25))
    assert (
        parse_token_vector({"dog": "one"})
        == parse_token_vector({"dog": {"a": 1}})
        == parse_token_vector("dog")
        == SparseVector((), ())
    )


@pytest.mark.parametrize("form", ["WEBP", "JPEG", "PNG"])
def test_a_thumbnail_must_have_the_format_that_it_declares(form: str) -> None:
    data = encoded(Image.new("RGB", (8, 4), "red"), form)
    type_ = f"image/{form.lower()}"
    found = parse_thumbnail(uri(type_, data))
    assert found is not None
    assert (found.content_type, found.data) == (type_, data)
    for other in {"image/webp", "image/jpeg", "image/png"} - {type_}:
        assert parse_thumbnail(uri(other, data)) is None


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
def test_anything_else_is_rejected_as_a_thumbnail(value: object) -> None:
    assert parse_thumbnail(value) is None


def test_the_same_words_are_the_same_up_to_rounding() -> None:
    image = parse_stored_image(hit(WORDS))
    assert compare_vectors(image, now(), None).is_same
    near = SparseVector.from_pairs((word, weight + 0.9 * TOLERANCE) for word, weight in WORDS)
    assert compare_vectors(image, now(near), None).is_same
    far = SparseVector.from_pairs((word, weight + 1.1 * TOLERANCE) for word, weight in WORDS)
    found = compare_vectors(image, now(far), None)
    assert [each.token for each in found.differences]
    assert not found.reasons


def test_comparison_lists_the_largest_differences_first() -> None:
    other = SparseVector.from_mapping({"cat": 0.8, "egyptian": 0.4, "fox": 0.9})
    found = compare_vectors(parse_stored_image(hit(WORDS)), now(other, sha256="bb", model="m-2"), None)
    assert not found.is_same
    assert found.differences == (
        WeightDifference(token="fox", stored=0.0, current=0.9),
        WeightDifference(token="hound", stored=0.25, current=0.0),
        WeightDifference(token="a.b", stored=0.125, current=0.0),
        WeightDifference(token="egyptian", stored=0.5, current=0.4),
    )
    file, model = found.reasons
    assert "the file has changed" in file
    assert "m-1" in model
    assert "m-2" in model


def test_an_applied_policy_is_not_reported_as_a_difference() -> None:
    image = parse_stored_image(hit(WORDS, POLICY))
    found = compare_vectors(image, now(), POLICY)
    assert found.is_same
    assert not found.reasons


def test_policies_not_yet_applied_and_rolled_back() -> None:
    late = compare_vectors(parse_stored_image(hit(WORDS)), now(), POLICY)
    assert {each.token for each in late.differences} == {"cat", "egyptian", "hound", "dog"}
    assert POLICY.digest in late.reasons[0]
    assert "no token policy" in late.reasons[0]
    back = compare_vectors(parse_stored_image(hit(WORDS, POLICY)), now(), None)
    assert not back.is_same
    assert POLICY.digest in back.reasons[0]


def test_policies_without_effect_are_no_reason() -> None:
    plain = SparseVector.from_mapping({"tree": 1.0})
    found = compare_vectors(parse_stored_image(hit(plain, POLICY)), now(plain), POLICY)
    assert found.is_same
    assert not found.reasons


def test_the_effect_of_a_policy_is_shown() -> None:
    found = find_policy_effect(parse_stored_image(hit(WORDS, POLICY)), POLICY)
    assert found is not None
    assert found.rules == ("hound -> dog", "mute egyptian", "cap cat")
    assert {each.token: (each.current, each.stored) for each in found.tokens} == {
        "cat": (0.8, 0.3),
        "egyptian": (0.5, 0.0),
        "hound": (0.25, 0.0),
        "dog": (0.0, 0.25),
    }
    assert find_policy_effect(parse_stored_image(hit(WORDS)), POLICY) is None
    unknown = find_policy_effect(parse_stored_image(hit(WORDS, POLICY)), None)
    assert unknown is not None
    assert unknown.rules == ()
    assert unknown.tokens == found.tokens


def test_an_undo_without_a_valid_vector_is_ignored() -> None:
    image = StoredImage(id="1", index="", uri="", vector=WORDS, source={}, undo=PolicyUndo(tokens={"cat": -1.0}))
    found = find_policy_effect(image, POLICY)
    assert found is not None
    assert found.tokens == ()
